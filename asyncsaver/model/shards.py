"""Which tensor goes to which shard, and where in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np


class Sized(Protocol):
    """A tensor to be placed."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def nbytes(self) -> int:
        """Its size on storage, in bytes."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        ...


# safetensors refuses headers of 100 MB or more; this is an estimate of ours, well below.
_HEADER_LIMIT = 50_000_000
_HEADER_PER_TENSOR = 160
_PARTS_WORTH_IT = 4


class Placed(msgspec.Struct, frozen=True, gc=False):
    """Position of a tensor in the list that was planned, and its byte range in the shard's data section."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard: its tensors in file order, and the size of its data section in bytes."""

    tensors: Sequence[Placed]
    nbytes: int


def spread(nbytes: int, shard_bytes: int, *, part_bytes: int, most: int) -> int:
    """How large shards may grow where one request for each is faster than several for a large one.

    A state that ``most`` requests of a part each can carry goes up in shards of that size. A larger one goes up in parts, in
    shards of at least a few, which make up for beginning and completing an upload; and there are not many more shards, up to
    ``shard_bytes``: a terabyte does not become tens of thousands of objects.

    Args:
        nbytes: of the whole state.
        shard_bytes: what is never exceeded.
        part_bytes: how much a request carries.
        most: how many shards the store takes well.
    """
    wanted = part_bytes if nbytes <= most * part_bytes else max(_PARTS_WORTH_IT * part_bytes, -(-nbytes // most))
    return min(shard_bytes, wanted)


def plan_shards(tensors: Sequence[Sized], shard_bytes: int) -> list[ShardPlan]:
    """Fill shards in the order of the state, so that what belongs together is read together.

    A tensor larger than ``shard_bytes`` gets a shard of its own, whole. Within a shard those with the strictest alignment come
    first, which keeps every tensor aligned without gaps (safetensors allows none).
    """
    plans: list[ShardPlan] = []
    # Alignment → position in the list and size, so that a shard is laid out without sorting its tensors.
    group: dict[int, list[tuple[int, int]]] = {}
    filled = header = 0
    for index, tensor in enumerate(tensors):
        nbytes = tensor.nbytes
        entry = _HEADER_PER_TENSOR + 6 * len(tensor.name)  # JSON may escape a character in six bytes
        if group and (filled + nbytes > shard_bytes or header + entry > _HEADER_LIMIT):
            plans.append(_lay_out(group))
            group, filled, header = {}, 0, 0
        group.setdefault(_alignment(tensor.dtype.itemsize), []).append((index, nbytes))
        filled += nbytes
        header += entry
    if group:
        plans.append(_lay_out(group))
    return plans


def _lay_out(group: Mapping[int, Sequence[tuple[int, int]]]) -> ShardPlan:
    placed = []
    position = 0
    for _, tensors in sorted(group.items(), reverse=True):
        for index, nbytes in tensors:
            placed.append(Placed(index, position, position + nbytes))
            position += nbytes
    return ShardPlan(placed, position)


def _alignment(itemsize: int) -> int:
    """The largest power of two that divides the size of an element: a string of three characters (12 bytes) takes 4."""
    return itemsize & -itemsize
