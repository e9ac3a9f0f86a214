"""Whatever the state, what is converted is what was saved."""

from __future__ import annotations

import uuid

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from asyncsaver import Saver, convert

from .checkpoints import assert_same, can_hold, content_of

DTYPES = ["bool", "int8", "uint16", "int64", "float16", "float32", "complex64", "complex128"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6))
)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
STATES = st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), ARRAYS, min_size=1, max_size=6)


@settings(max_examples=40)
@given(STATES, st.integers(1, 2000), st.integers(1, 4000), st.permutations(["native", "tensorflow", "huggingface"]))
async def test_a_state_passes_through_all_formats(
    state: dict[str, np.ndarray], shard: int, budget: int, route: list[str]
) -> None:
    root = f"memory://{uuid.uuid4().hex}/run"
    async with Saver(root) as saver:
        source = (await saver.save(state, step=1)).url
        expected = await content_of(source)
        for number, into in enumerate(route):
            expected = {name: one for name, one in expected.items() if can_hold(into, one[0])}
            if not expected:
                return
            target = f"{root}/x{number}-5"
            wanted = expected.keys()
            await convert(
                source, target, format=into, shard_bytes=shard, memory_budget=budget, select=wanted.__contains__
            )
            assert_same(await content_of(target, into), expected)
            source = target
