"""Which contiguous run of a tensor's bytes an index needs. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

Index = int | slice | EllipsisType | tuple[int | slice | EllipsisType, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A box of a tensor that is contiguous in C order, and how to get from the box to what was asked for.

    Attributes:
        offset: of the box in the tensor, per axis.
        shape: of the box.
        index: to be applied to the box.
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    index: tuple[Any, ...]


def smallest_run(shape: Sequence[int], index: Index) -> Run:
    """The smallest box, contiguous in C order, that holds everything the index selects.

    Args:
        shape: of the tensor.
        index: ints, slices (with any step) and at most one Ellipsis, as NumPy's basic indexing has them.

    Raises:
        IndexError: too many indices, or an int out of range.
        TypeError: another kind of index.
    """
    per_axis = _per_axis(shape, index)
    offset: list[int] = []
    box: list[int] = []
    rest: list[Any] = []
    whole = (
        False  # once an axis has more than one element, the axes after it must be whole for the box to be contiguous
    )
    for size, item in zip(shape, per_axis, strict=True):
        if whole:
            nothing = isinstance(item, slice) and not range(*item.indices(size))
            offset.append(0)
            box.append(0 if nothing else size)
            rest.append(item)
            continue
        if isinstance(item, int):
            offset.append(item)
            box.append(1)
            rest.append(0)
            continue
        selected = range(*item.indices(size))
        low = min(selected[0], selected[-1]) if selected else 0
        high = max(selected[0], selected[-1]) + 1 if selected else 0
        offset.append(low)
        box.append(high - low)
        rest.append(_within(selected, low))
        whole = high - low != 1
    return Run(tuple(offset), tuple(box), tuple(rest))


def _within(selected: range, low: int) -> slice:
    if not selected:
        return slice(0, 0)
    stop = selected[-1] - low + (1 if selected.step > 0 else -1)
    return slice(selected[0] - low, None if stop < 0 else stop, selected.step)


def _per_axis(shape: Sequence[int], index: Index) -> list[int | slice]:
    items = index if isinstance(index, tuple) else (index,)
    ellipses = sum(item is Ellipsis for item in items)
    if ellipses > 1:
        raise IndexError("an index can have only one ellipsis ('...')")
    given = len(items) - ellipses
    if given > len(shape):
        raise IndexError(f"too many indices: the tensor has {len(shape)} axes, but {given} were indexed")
    per_axis: list[int | slice] = []
    for item in items if ellipses else (*items, Ellipsis):
        if isinstance(item, EllipsisType):
            per_axis.extend([slice(None)] * (len(shape) - given))
        elif isinstance(item, slice):
            per_axis.append(item)
        elif isinstance(item, bool) or not hasattr(item, "__index__"):
            raise TypeError(f"a tensor is read by ints, slices and '...', not by {type(item).__name__}")
        else:
            position, size = item.__index__(), shape[len(per_axis)]
            if not -size <= position < size:
                raise IndexError(f"index {position} is out of bounds for axis {len(per_axis)} with size {size}")
            per_axis.append(position % size)
    return per_axis


def byte_range(shape: Sequence[int], run: Run, itemsize: int) -> tuple[int, int]:
    """Where the run lies in the bytes of a tensor (or chunk) of that shape: first byte and end."""
    start = 0
    for size, offset in zip(shape, run.offset, strict=True):
        start = start * size + offset
    count = math.prod(run.shape)
    return (start * itemsize, (start + count) * itemsize) if count else (0, 0)


def overlap(
    offset: Sequence[int], shape: Sequence[int], other_offset: Sequence[int], other_shape: Sequence[int]
) -> tuple[slice, ...] | None:
    """What two boxes of one tensor share, in coordinates of the tensor; None when they share nothing."""
    shared = []
    for start, size, other_start, other_size in zip(offset, shape, other_offset, other_shape, strict=True):
        low, high = max(start, other_start), min(start + size, other_start + other_size)
        if low >= high:
            return None
        shared.append(slice(low, high))
    return tuple(shared)
