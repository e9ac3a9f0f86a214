"""Leaves: which values count as arrays, and how each kind of them gives its data and takes it back.

A `LeafAdapter` knows one kind (NumPy's here, those of frameworks in `asyncsaver.frameworks`). `Adapters` finds the
one for a value. Frameworks are never imported by looking: their adapters are loaded once the framework itself is in
use.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

import msgspec
import numpy as np

from asyncsaver.errors import UnsupportedLeafError
from asyncsaver.model.dtypes import Array, DType

ENTRY_POINT_GROUP = "asyncsaver.leaves"


class TensorSpec(msgspec.Struct, frozen=True, gc=False):
    """What a tensor is, without its data: dtype and shape.

    A struct, like everything there is one of for each tensor: making a frozen dataclass takes ten times as long, and the
    garbage collector looks at each again and again.
    """

    dtype: DType
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


class TensorInfo(TensorSpec, frozen=True, gc=False):
    """What a reader tells of a tensor: a `TensorSpec`, and what the checkpoint itself calls the dtype.

    Attributes:
        dtype_name: as in a manifest; of another library's checkpoint also "string", whose elements are `bytes` in an array of
            objects (`nbytes` then is that of the references), and types that are plain numbers in NumPy, such as "qint8".
    """

    dtype_name: str

    def __str__(self) -> str:
        return f"{self.dtype_name}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Differences:
    """How a saved state differs from an object: keys joined with ``.``, and one line for each that does not fit."""

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()


class LeafAdapter(Protocol):
    """What is known about one kind of array. Stateless; used from several threads."""

    @property
    def kind(self) -> str:
        """The name of the kind in a checkpoint's tree; for a framework, also the name of its entry point."""
        ...

    def matches(self, value: object) -> bool:
        """Whether the value is an array of this kind."""
        ...

    def describe(self, value: Any) -> TensorSpec:
        """Dtype and shape, without touching the data.

        Raises:
            UnsupportedLeafError: no checkpoint can hold it. The message says what to do; the caller adds the path.
        """
        ...

    def to_numpy(self, value: Any) -> Array:
        """The data; shares memory with ``value`` where that is possible. May block: call it in a thread."""
        ...

    def is_immutable(self, value: Any) -> bool:
        """Whether the data can never change, so that a background save needs no copy."""
        ...

    def writable_view(self, target: Any) -> Array | None:
        """The memory of a target, to be filled in place; None where it is not ordinary writable memory."""
        ...

    def from_numpy(self, array: Array, like: Any | None = None) -> Any:
        """A new leaf with this data, on the device and in the layout of ``like``, or an ordinary one on the CPU.

        The array is handed over: the leaf may share its memory.

        Raises:
            UnsupportedLeafError: this kind has no such dtype.
        """
        ...

    def fill(self, target: Any, array: Array) -> Any:
        """Put data of the same shape and dtype into a target; returns it, or what replaces it if it cannot change.

        Where `writable_view` gives memory the data are copied into it. Else the array is handed over, as to `from_numpy`.
        """
        ...

    def check_object(self, obj: object, state: object) -> Differences | None:
        """Compare an object that has ``load_state_dict`` with a saved state, whose arrays are given as `TensorSpec`.

        Returns:
            The differences that loading would fail on; None when this adapter does not know such objects.
        """
        ...


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

    def check_object(self, obj: object, state: object) -> Differences | None:
        """NumPy has no objects with state."""
        del obj, state
        return None


class Adapters:
    """The adapters in use, asked in order; NumPy's comes first unless others are given.

    Args:
        adapters: the adapters to begin with; `NumpyAdapter` alone when there are none.
        extensions: entry points to adapters, by the top-level module that their values come from. Each is loaded when
            that module has been imported by somebody else.
    """

    def __init__(self, *adapters: LeafAdapter, extensions: Sequence[EntryPoint] = ()) -> None:
        self._adapters: tuple[LeafAdapter, ...] = adapters or (NumpyAdapter(),)
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


def has_repeated_memory(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether several elements stand in the same place, as in a broadcast array."""
    if 0 in shape or 0 not in strides:
        return False
    return any(stride == 0 and length > 1 for length, stride in zip(shape, strides, strict=True))


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
