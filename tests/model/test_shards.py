"""Plans of shards: each tensor once, no gaps, aligned, no shard larger than it must be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.model.shards import plan_shards, spread


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: np.dtype[Any]
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.itemsize


DTYPES = [
    np.dtype(name) for name in ("u1", "f2", "f4", "f8", "c16", "<U1", "<U3", "<U5", "S3", "V6", "<M8[ns]", "bool")
]
tensors_lists = st.lists(
    st.builds(Tensor, st.text(max_size=5), st.sampled_from(DTYPES), st.integers(0, 40)), max_size=25
)


@given(tensors_lists, st.integers(1, 500))
def test_every_tensor_has_its_place(tensors: list[Tensor], shard_bytes: int) -> None:
    plans = plan_shards(tensors, shard_bytes)
    assert sorted(placed.index for plan in plans for placed in plan.tensors) == list(range(len(tensors)))
    for plan in plans:
        assert plan.tensors
        position = 0
        for placed in plan.tensors:
            tensor = tensors[placed.index]
            assert placed.start == position
            position = placed.stop
            assert placed.stop - placed.start == tensor.nbytes
            alignment = next(width for width in (16, 8, 4, 2, 1) if tensor.dtype.itemsize % width == 0)
            assert placed.start % alignment == 0
        assert plan.nbytes == position


@given(tensors_lists, st.integers(1, 500))
def test_shards_are_full_and_not_overfull(tensors: list[Tensor], shard_bytes: int) -> None:
    plans = plan_shards(tensors, shard_bytes)
    for plan in plans:
        assert plan.nbytes <= shard_bytes or len([one for one in plan.tensors if tensors[one.index].nbytes]) == 1
    for plan, after in itertools.pairwise(plans):
        # In the order of the state: what begins the next shard did not fit into this one.
        first = min(placed.index for placed in after.tensors)
        assert max(placed.index for placed in plan.tensors) == first - 1
        assert plan.nbytes + tensors[first].nbytes > shard_bytes


def test_many_small_tensors_share_a_shard() -> None:
    tensors = [Tensor(f"t{number}", np.dtype("f4"), 256) for number in range(10_000)]
    [plan] = plan_shards(tensors, 256 * 2**20)
    assert len(plan.tensors) == 10_000


def test_a_large_tensor_stays_whole_in_its_own_shard() -> None:
    tensors = [Tensor("a", np.dtype("u1"), 10), Tensor("b", np.dtype("u1"), 1000), Tensor("c", np.dtype("u1"), 10)]
    plans = plan_shards(tensors, 100)
    assert [[placed.index for placed in plan.tensors] for plan in plans] == [[0], [1], [2]]


def test_a_header_too_long_for_safetensors_is_not_made() -> None:
    tensors = [Tensor("x" * 5_000_000 + str(number), np.dtype("u1"), 1) for number in range(3)]
    assert [len(plan.tensors) for plan in plan_shards(tensors, 2**30)] == [1, 1, 1]


def test_nothing_takes_no_shard() -> None:
    assert plan_shards([], 100) == []


@given(st.integers(0, 10**13), st.integers(1, 10**9))
def test_no_shard_grows_beyond_what_the_user_allows(nbytes: int, shard_bytes: int) -> None:
    assert 1 <= spread(nbytes, shard_bytes, part_bytes=2**24, most=128) <= shard_bytes


def test_shards_are_single_requests_until_there_would_be_too_many() -> None:
    part, allowed = 2**24, 256 * 2**20

    def size(nbytes: int) -> int:
        return spread(nbytes, allowed, part_bytes=part, most=128)

    assert size(0) == size(10) == size(128 * part) == part
    assert size(128 * part + 1) == 4 * part
    assert size(128 * 8 * part) == 8 * part
    assert size(2**40) == allowed
