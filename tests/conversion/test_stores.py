"""From each kind of store to each other, through each engine; and two who write to the same place."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import CheckpointExistsError, Saver, convert

from .checkpoints import assert_same, content_of

pytestmark = pytest.mark.server
STATE = {
    "w": np.arange(3000, dtype=np.float32).reshape(60, 50),
    "none": np.zeros((0, 2)),
    "b": np.arange(5, dtype=np.int8),
}
ROUTE = ["local", "s3", "gcs", "azure", "memory", "local"]
FORMATS = ["native", "tensorflow", "huggingface", "native", "tensorflow"]


async def test_a_checkpoint_travels_through_all_stores_and_formats(request: pytest.FixtureRequest) -> None:
    roots: dict[str, Any] = {kind: request.getfixturevalue(f"{kind}_root") for kind in ROUTE}
    async with Saver(roots["local"].url) as saver:
        source, options = (await saver.save(STATE, step=1)).url, {}
    expected = await content_of(source)
    for (_, kind), into in zip(itertools.pairwise(ROUTE), FORMATS, strict=True):
        root = roots[kind]
        target = f"{root.url}/{into}-00000002"
        await convert(
            source,
            target,
            format=into,
            storage_options=options or None,
            target_storage_options=root.storage_options or None,
            shard_bytes=6000,
            memory_budget=10_000,
        )
        assert_same(await content_of(target, into, root.storage_options or None), expected)
        source, options = target, root.storage_options


@pytest.mark.parametrize("kind", ["memory", "local", "s3", "gcs", "azure"])
@pytest.mark.parametrize("into", ["native", "tensorflow", "huggingface"])
async def test_of_two_who_write_to_one_place_one_succeeds_whole(
    kind: str,
    into: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    root = request.getfixturevalue(f"{kind}_root")
    options = root.storage_options or None
    sources = []
    for number in range(3):
        async with Saver(tmp_path / f"source-{number}") as saver:
            sources.append((await saver.save({"w": np.full(1000, number), "b": np.arange(3 + number)}, step=1)).url)
    target = f"{root.url}/run/x-1"
    outcomes = await asyncio.gather(
        *(convert(source, target, format=into, target_storage_options=options) for source in sources),
        return_exceptions=True,
    )
    won = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
    assert len(won) <= 1
    for number, outcome in enumerate(outcomes):
        if number not in won:
            assert isinstance(outcome, CheckpointExistsError), outcome
    if won:
        assert_same(await content_of(target, into, options), await content_of(sources[won[0]]))
    else:
        assert into == "huggingface"  # where names cannot be avoided, all may give way to each other


async def test_conversions_that_replace_one_another_leave_one_whole(any_root: Any, tmp_path: Path) -> None:
    options = any_root.storage_options or None
    sources = []
    for number in range(3):
        async with Saver(tmp_path / f"source-{number}") as saver:
            sources.append((await saver.save({"w": np.full(1000, number), "b": np.arange(3 + number)}, step=1)).url)
    target = f"{any_root.url}/run/m-1"
    await convert(sources[0], target, format="tensorflow", target_storage_options=options)
    outcomes = await asyncio.gather(
        *(
            convert(source, target, format="tensorflow", target_storage_options=options, overwrite=True)
            for source in sources[1:]
        ),
        return_exceptions=True,
    )
    for outcome in outcomes:
        assert not isinstance(outcome, BaseException) or isinstance(outcome, CheckpointExistsError), outcome
    found = await content_of(target, "tensorflow", options)
    number = int(found["w"][1][0])
    assert_same(found, await content_of(sources[number]))
    assert number
