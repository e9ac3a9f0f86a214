"""Leaves: which values count as arrays, and how each kind of them gives its data and takes it back.

A `LeafAdapter` knows one kind (NumPy's here, tensors in slices in `asyncsaver.model.partitioned`, those of frameworks in
`asyncsaver.frameworks`). `Adapters` finds the one for a value. Frameworks are never imported by looking: their adapters are
loaded once the framework itself is in use.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import cast

import numpy as np

from asyncsaver.errors import UnsupportedLeafError
from asyncsaver.model.dtypes import Array
from asyncsaver.model.leaf import Differences, LeafAdapter, TensorInfo, TensorSpec, has_repeated_memory
from asyncsaver.model.partitioned import PartitionedAdapter

__all__ = [
    "ENTRY_POINT_GROUP",
    "Adapters",
    "Differences",
    "LeafAdapter",
    "NumpyAdapter",
    "TensorInfo",
    "TensorSpec",
    "has_repeated_memory",
]

ENTRY_POINT_GROUP = "asyncsaver.leaves"


class NumpyAdapter:
    """NumPy arrays, memory-mapped ones included."""

    kind = "numpy"

    def matches(self, value: object) -> bool:
        """See `LeafAdapter`."""
        return isinstance(value, np.ndarray)

    def describe(self, value: Array) -> TensorSpec:
        """See `LeafAdapter`. Subclasses that carry more than their elements (a mask, a unit) are refused."""
        if type(value) is not np.ndarray and type(value) not in (np.memmap, np.matrix):
            if isinstance(value, np.ma.MaskedArray):
                raise UnsupportedLeafError(
                    "the mask of a masked array would be lost: save .data and .mask, or .filled()"
                )
            raise UnsupportedLeafError(
                f"an array of type {_type_name(value)} may carry more than its elements: save numpy.asarray(it)"
            )
        return TensorSpec(value.dtype, value.shape)

    def to_numpy(self, value: Array) -> Array:
        """See `LeafAdapter`."""
        return value.view(np.ndarray)

    def is_immutable(self, value: Array) -> bool:
        """Never: a read-only array may be a view of one that is written."""
        del value
        return False

    def writable_view(self, target: Array) -> Array | None:
        """See `LeafAdapter`. Arrays whose elements share memory (broadcast ones) have none."""
        flags = target.flags
        if not flags.writeable or not (flags.c_contiguous or not has_repeated_memory(target.shape, target.strides)):
            return None
        return target if type(target) is np.ndarray else target.view(np.ndarray)

    def from_numpy(self, array: Array, like: Array | None = None) -> Array:
        """See `LeafAdapter`. Takes over the byte order and the memory order (C or Fortran) of ``like``."""
        if like is None:
            return array
        fortran = like.ndim > 1 and like.flags.f_contiguous and not like.flags.c_contiguous
        return array.astype(like.dtype, order="F" if fortran else "C", copy=False)

    def fill(self, target: Array, array: Array) -> Array:
        """See `LeafAdapter`."""
        view = self.writable_view(target)
        if view is None:
            return self.from_numpy(array, target)
        view[...] = array
        return target

    def is_fillable(self, target: Array) -> bool:
        """See `LeafAdapter`."""
        return self.writable_view(target) is not None

    def check_object(self, obj: object, state: object) -> Differences | None:
        """NumPy has no objects with state."""
        del obj, state
        return None


class Adapters:
    """The adapters in use, asked in order; NumPy's comes first unless others are given.

    Args:
        adapters: the adapters to begin with; when there are none, that of NumPy and that of tensors in slices.
        extensions: entry points to adapters, by the top-level module that their values come from. Each is loaded when
            that module has been imported by somebody else.
    """

    def __init__(self, *adapters: LeafAdapter, extensions: Sequence[EntryPoint] = ()) -> None:
        self._adapters: tuple[LeafAdapter, ...] = adapters or (NumpyAdapter(), PartitionedAdapter(self.find))
        self._by_kind: Mapping[str, LeafAdapter] = {adapter.kind: adapter for adapter in reversed(self._adapters)}
        self._pending: Mapping[str, EntryPoint] = {entry.name: entry for entry in extensions}

    @classmethod
    def discover(cls) -> Adapters:
        """NumPy and whatever is installed under the entry-point group ``asyncsaver.leaves``.

        Reads the metadata of installed packages: call it once, not for each save.
        """
        return cls(extensions=tuple(entry_points(group=ENTRY_POINT_GROUP)))

    def find(self, value: object) -> LeafAdapter | None:
        """The adapter for a value; None when it is no array."""
        for name in self._pending:
            if name in sys.modules:
                self._load(name)
        for adapter in self._adapters:
            if adapter.matches(value):
                return adapter
        return None

    def by_kind(self, kind: str) -> LeafAdapter | None:
        """The adapter of a kind, importing its framework if that is installed; None when there is none."""
        if kind in self._pending:
            try:
                self._load(kind)
            except ImportError:
                return None
        return self._by_kind.get(kind)

    def check_object(self, obj: object, state: object) -> Differences | None:
        """What the first adapter that knows the object says; see `LeafAdapter.check_object`."""
        for adapter in self._adapters:
            differences = adapter.check_object(obj, state)
            if differences is not None:
                return differences
        return None

    def _load(self, name: str) -> None:
        adapter = cast("LeafAdapter", self._pending[name].load())
        # Replaced rather than changed: another thread may be iterating over either.
        self._adapters = (*(known for known in self._adapters if known.kind != adapter.kind), adapter)
        self._by_kind = {**self._by_kind, adapter.kind: adapter}
        self._pending = {other: entry for other, entry in self._pending.items() if other != name}


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
