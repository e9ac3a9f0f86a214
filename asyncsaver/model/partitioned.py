"""One tensor that is held in slices, as TensorFlow's partitioned variables are: a leaf like any other, and whole on storage."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from asyncsaver.errors import ManifestError, UnsupportedLeafError
from asyncsaver.model.dtypes import Array
from asyncsaver.model.leaf import Differences, LeafAdapter, TensorSpec
from asyncsaver.model.manifest import Chunk, TensorEntry
from asyncsaver.model.merge import check_coverage
from asyncsaver.model.slices import overlap

_Box = tuple[tuple[int, int], ...]
"""First position and end along each axis."""


class Slice(NamedTuple):
    """A slice of a tensor.

    Attributes:
        offset: of its first element in the tensor.
        shape: its lengths.
        array: its data: an array of NumPy or of a framework.
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    array: Any

    @property
    def box(self) -> tuple[Any, ...]:
        """What it is of the whole array: ``whole[box]``, a view."""
        return (*(slice(start, start + size) for start, size in zip(self.offset, self.shape, strict=True)), ...)

    def __str__(self) -> str:
        return _shown(self.offset, self.shape)


class Partitioned:
    """A tensor whose elements lie in several arrays. Stands anywhere in a state, or in a ``var_list``.

    It is saved as the one tensor that it is, and restores from whatever holds that tensor, whole or in other slices: its arrays
    are filled in place. TensorFlow's format keeps the slices as those of a partitioned variable.

    Args:
        shape: of the whole tensor.
        slices: offset and array of each; views are fine. Together they cover every element exactly once.

    Attributes:
        shape: of the whole tensor.
        slices: as given, each with its shape.

    Raises:
        ValueError: slices overlap, leave a hole or reach outside; the message says which.
        TypeError: what should be an array has no shape.
    """

    __slots__ = ("_whole", "shape", "slices")

    def __init__(self, shape: Sequence[int], slices: Iterable[tuple[Sequence[int], Any]]) -> None:
        self.shape = tuple(map(operator.index, shape))
        self.slices = tuple(_slice(offset, array) for offset, array in slices)
        self._whole: Array | None = None
        _check(self.shape, self.slices)

    @classmethod
    def joined(cls, arrays: Sequence[Any], axis: int = 0) -> Partitioned:
        """Arrays that follow each other along an axis, as `numpy.concatenate` would join them.

        Raises:
            ValueError: there are none, they have no such axis, or they differ along another one.
        """
        shapes = [_shape_of(array) for array in arrays]
        if not shapes or not 0 <= axis < len(shapes[0]):
            raise ValueError(f"no arrays with an axis {axis} to be joined: {shapes}")
        first = shapes[0]
        starts = [0]
        for shape in shapes:
            if (*shape[:axis], *shape[axis + 1 :]) != (*first[:axis], *first[axis + 1 :]):
                raise ValueError(f"arrays of shapes {list(first)} and {list(shape)} cannot be joined along axis {axis}")
            starts.append(starts[-1] + shape[axis])
        before, after = (0,) * axis, (0,) * (len(first) - axis - 1)
        offsets = [(*before, start, *after) for start in starts[:-1]]
        return cls((*first[:axis], starts[-1], *first[axis + 1 :]), zip(offsets, arrays, strict=True))

    @property
    def whole(self) -> Array | None:
        """The array that the slices are views of, where that is known."""
        return self._whole

    def over(self, whole: Array) -> Partitioned:
        """The same slices as views of an array of this shape."""
        made = Partitioned(self.shape, [(part.offset, whole[part.box]) for part in self.slices])
        made._whole = whole
        return made

    def __repr__(self) -> str:
        return f"<Partitioned {list(self.shape)} in {len(self.slices)} slices>"


class PartitionedAdapter:
    """Tensors in slices.

    Args:
        find: finds the adapter of a slice.
    """

    kind = "partitioned"

    def __init__(self, find: Callable[[object], LeafAdapter | None]) -> None:
        self._find = find

    def matches(self, value: object) -> bool:
        """See `LeafAdapter`."""
        return isinstance(value, Partitioned)

    def describe(self, value: Partitioned) -> TensorSpec:
        """See `LeafAdapter`."""
        first, *others = value.slices
        dtype = self._describe(first).dtype
        for part in others:
            spec = self._describe(part)
            if spec.dtype != dtype:
                raise UnsupportedLeafError(
                    f"the slices {first} and {part} have different dtypes: {dtype} and {spec.dtype}"
                )
        return TensorSpec(dtype, value.shape)

    def to_numpy(self, value: Partitioned) -> Array:
        """See `LeafAdapter`. Copies, unless the slices are known to be views of one array."""
        if value.whole is not None:
            return value.whole
        spec = self.describe(value)
        whole: Array = np.empty(spec.shape, spec.dtype)
        for part in value.slices:
            whole[part.box] = self._adapter(part).to_numpy(part.array)
        return whole

    def is_immutable(self, value: Partitioned) -> bool:
        """See `LeafAdapter`."""
        return all(self._adapter(part).is_immutable(part.array) for part in value.slices)

    def writable_view(self, target: Partitioned) -> Array | None:
        """See `LeafAdapter`. There is none: the memory is in several places."""
        del target
        return None

    def from_numpy(self, array: Array, like: Partitioned | None = None) -> Any:
        """See `LeafAdapter`. Without ``like`` nothing says what the slices are: it stays an array."""
        if like is None:
            return array
        parts = [(part.offset, self._adapter(part).from_numpy(array[part.box], part.array)) for part in like.slices]
        return Partitioned(like.shape, parts)

    def fill(self, target: Partitioned, array: Array) -> Partitioned:
        """See `LeafAdapter`. Where a slice cannot change, a new tensor has another one in its place."""
        filled = [self._adapter(part).fill(part.array, array[part.box]) for part in target.slices]
        if all(new is part.array for new, part in zip(filled, target.slices, strict=True)):
            return target
        return Partitioned(target.shape, zip([part.offset for part in target.slices], filled, strict=True))

    def is_fillable(self, target: Partitioned) -> bool:
        """See `LeafAdapter`."""
        return all(self._adapter(part).is_fillable(part.array) for part in target.slices)

    def check_object(self, obj: object, state: object) -> Differences | None:
        """There are no objects with state in slices."""
        del obj, state
        return None

    def _describe(self, part: Slice) -> TensorSpec:
        try:
            spec = self._adapter(part).describe(part.array)
        except UnsupportedLeafError as exc:
            raise UnsupportedLeafError(f"the slice {part}: {exc}") from exc
        if spec.shape != part.shape:
            raise UnsupportedLeafError(f"the slice {part} has another shape now: {list(spec.shape)}")
        return spec

    def _adapter(self, part: Slice) -> LeafAdapter:
        adapter = self._find(part.array)
        if adapter is None:
            raise UnsupportedLeafError(f"it is no array, but a value of type {type(part.array).__name__}")
        return adapter


def _slice(offset: Sequence[int], array: Any) -> Slice:
    if isinstance(array, Partitioned):
        raise TypeError("a slice cannot be partitioned itself: give its slices")
    return Slice(tuple(map(operator.index, offset)), _shape_of(array), array)


def _shape_of(array: Any) -> tuple[int, ...]:
    shape = getattr(array, "shape", None)
    if not isinstance(shape, tuple):
        raise TypeError(f"a slice must be an array, not a value of type {type(array).__name__}")
    return tuple(map(operator.index, shape))


def _check(shape: tuple[int, ...], slices: Sequence[Slice]) -> None:
    if any(size < 0 for size in shape):
        raise ValueError(f"a partitioned tensor cannot have the shape {list(shape)}")
    if not slices:
        raise ValueError(f"a partitioned tensor of shape {list(shape)} needs at least one slice")
    chunks = tuple(Chunk(part.offset, part.shape, 0, 0, 0, "") for part in slices)
    try:
        check_coverage("", TensorEntry("", shape, chunks))
    except ManifestError:
        raise ValueError(_problem(shape, slices)) from None


def _problem(shape: tuple[int, ...], slices: Sequence[Slice]) -> str:
    """Why slices do not cover a tensor exactly once, which is known already."""
    where = f"a partitioned tensor of shape {list(shape)}"
    for part in slices:
        if len(part.offset) != len(shape) or len(part.shape) != len(shape):
            return f"{where}: a slice at {list(part.offset)} of shape {list(part.shape)} has another number of axes"
        if any(
            start < 0 or length < 1 or start + length > size
            for start, length, size in zip(part.offset, part.shape, shape, strict=True)
        ):
            return f"{where}: the slice {part} holds nothing, or reaches outside"
    for one, other in combinations(slices, 2):
        if overlap(one.offset, one.shape, other.offset, other.shape) is not None:
            return f"{where}: the slices {one} and {other} overlap"
    left: list[_Box] = [tuple((0, size) for size in shape)]
    for part in slices:
        left = [rest for box in left for rest in _outside(box, part)]
    hole = left[0]
    missing = _shown([start for start, _ in hole], [stop - start for start, stop in hole])
    return f"{where}: no slice holds {missing}; there are {', '.join(map(str, slices[:20]))}"


def _outside(box: _Box, part: Slice) -> Iterator[_Box]:
    """What a slice leaves of a box, in boxes."""
    shared = overlap([start for start, _ in box], [stop - start for start, stop in box], part.offset, part.shape)
    if shared is None:
        yield box
        return
    for axis, common in enumerate(shared):
        before, (start, stop), after = box[:axis], box[axis], box[axis + 1 :]
        if start < common.start:
            yield (*before, (start, common.start), *after)
        if common.stop < stop:
            yield (*before, (common.stop, stop), *after)
        box = (*before, (common.start, common.stop), *after)


def _shown(offset: Sequence[int], shape: Sequence[int]) -> str:
    return "[" + ", ".join(f"{start}:{start + size}" for start, size in zip(offset, shape, strict=False)) + "]"
