"""Objects that say themselves what of them is saved, and take it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from asyncsaver.model.dtypes import Array


@dataclass(frozen=True, slots=True)
class SliceInfo:
    """Which slice of a larger tensor something is.

    Attributes:
        full_shape: of that tensor.
        offset: of the slice's first element in it.
    """

    full_shape: tuple[int, ...]
    offset: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SaveSpec:
    """One tensor of a `Saveable`, or a slice of one.

    Attributes:
        name: in checkpoints.
        value: an array or a number, as a `Variable` may hold.
        slice: None for a whole tensor. The slices that all of a ``var_list`` have of a tensor cover it exactly once.
        shard_key: as that of a `Variable`.
    """

    name: str
    value: Any
    slice: SliceInfo | None = None
    shard_key: str = ""


@runtime_checkable
class Saveable(Protocol):
    """Something that consists of several tensors, or that is saved as others than it holds."""

    @property
    def name(self) -> str:
        """For messages, and for its place among others."""
        ...

    def specs(self) -> Sequence[SaveSpec]:
        """What to save, as it is now; also asked when restoring. Names and slices are always the same, in the same order."""
        ...

    def restore(self, values: Sequence[Array], shapes: Sequence[tuple[int, ...]] | None) -> None:
        """Take back what was saved, transformed in any way; in a thread.

        Everything that is restored along with it was read and checked by then.

        Args:
            values: for each of `specs` a new NumPy array of its dtype, in the shape in which the checkpoint has the tensor; of a
                slice, in its own shape; of a number, without axes.
            shapes: those of `specs` where the restore was called with ``reshape=True``: to be reshaped to. Else None.
        """
        ...
