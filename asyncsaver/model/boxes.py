"""Which boxes of a tensor a run of its elements consists of. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Offset and shape, per axis."""


def boxes_of(shape: Sequence[int], start: int, stop: int) -> Iterator[Box]:
    """Cut a run of elements, counted in C order, into boxes that are each contiguous in C order.

    There are twice as many as there are axes at most: parts of rows at both ends, whole rows between them, and so on upwards.

    Args:
        shape: of the tensor.
        start: the first element.
        stop: one past the last; at most as many as there are.

    Yields:
        The boxes in order; none for an empty run.
    """
    if start == stop:
        return
    below = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]  # elements at one position of an axis
    if not below:
        yield (), ()
        return
    while start < stop:
        axis = next(axis for axis, size in enumerate(below) if start % size == 0 and start + size <= stop)
        offset = tuple(start // size % length for size, length in zip(below, shape, strict=True))
        count = min(shape[axis] - offset[axis], (stop - start) // below[axis])
        yield offset, (*(1,) * axis, count, *shape[axis + 1 :])
        start += count * below[axis]
