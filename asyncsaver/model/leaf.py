"""What a leaf is to everybody else: dtype and shape, and an adapter that gives its data and takes it back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from asyncsaver.model.dtypes import Array, DType


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

    def is_fillable(self, target: Any) -> bool:
        """Whether `fill` puts data into the target itself, and so returns it."""
        ...

    def check_object(self, obj: object, state: object) -> Differences | None:
        """Compare an object that has ``load_state_dict`` with a saved state, whose arrays are given as `TensorSpec`.

        Returns:
            The differences that loading would fail on; None when this adapter does not know such objects.
        """
        ...


def has_repeated_memory(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether several elements stand in the same place, as in a broadcast array."""
    if 0 in shape or 0 not in strides:
        return False
    return any(stride == 0 and length > 1 for length, stride in zip(shape, strides, strict=True))
