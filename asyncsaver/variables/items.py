"""What a saver may be bound to: arrays, variables and saveables, each with the names that it had when the saver was bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from asyncsaver.errors import InvalidStateError
from asyncsaver.model.leaves import Adapters, TensorSpec
from asyncsaver.variables.leaf import as_leaf, check_fillable, is_number, like_number, spec_of
from asyncsaver.variables.saveable import Saveable, SaveSpec, SliceInfo
from asyncsaver.variables.variable import Variable

Assign = Callable[[Mapping[str, Any]], None]
"""Assigns what was restored, by name."""


class Item(Protocol):
    """One thing that a saver is bound to.

    Attributes:
        name: of the variable, or of the saveable.
        names: of its tensors.
    """

    @property
    def name(self) -> str:
        """See above."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """See above."""
        ...

    def specs(self) -> Sequence[SaveSpec]:
        """What to save of it now."""
        ...

    def assignment(
        self, found: Mapping[str, TensorSpec], adapters: Adapters, *, reshape: bool
    ) -> tuple[Mapping[str, Any], Assign]:
        """What to restore into, by name, and what is to be done with the result.

        Args:
            found: the tensors of the checkpoint.
            adapters: for the arrays.
            reshape: whether other shapes with as many elements fit.
        """
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """An array, which is filled in place."""

    name: str
    leaf: Any

    @property
    def names(self) -> tuple[str, ...]:
        """See `Item`."""
        return (self.name,)

    def specs(self) -> Sequence[SaveSpec]:
        """See `Item`."""
        return (SaveSpec(self.name, self.leaf),)

    def assignment(
        self, found: Mapping[str, TensorSpec], adapters: Adapters, *, reshape: bool
    ) -> tuple[Mapping[str, Any], Assign]:
        """See `Item`. Raises `TypeError` where the array cannot be filled any more."""
        del found, reshape
        check_fillable(self.name, self.leaf, adapters)
        return {self.name: self.leaf}, _nothing_left


@dataclass(frozen=True, slots=True)
class Held:
    """A variable, under its own name or another one."""

    name: str
    variable: Variable

    @property
    def names(self) -> tuple[str, ...]:
        """See `Item`."""
        return (self.name,)

    def specs(self) -> Sequence[SaveSpec]:
        """See `Item`."""
        return (SaveSpec(self.name, self.variable.value, shard_key=self.variable.shard_key),)

    def assignment(
        self, found: Mapping[str, TensorSpec], adapters: Adapters, *, reshape: bool
    ) -> tuple[Mapping[str, Any], Assign]:
        """See `Item`."""
        del found, reshape
        current = self.variable.value

        def assign(restored: Mapping[str, Any]) -> None:
            new = restored[self.name]
            self.variable.value = like_number(current, new) if is_number(current) else new

        return {self.name: as_leaf(self.name, current, adapters)}, assign


@dataclass(frozen=True, slots=True)
class Custom:
    """A saveable."""

    saveable: Saveable
    name: str
    frozen: tuple[tuple[str, SliceInfo | None], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """See `Item`."""
        return tuple(dict.fromkeys(name for name, _ in self.frozen))

    def specs(self) -> Sequence[SaveSpec]:
        """See `Item`.

        Raises:
            InvalidStateError: it has other names or slices than when it was bound.
        """
        specs = tuple(self.saveable.specs())
        if tuple((spec.name, spec.slice) for spec in specs) != self.frozen:
            raise InvalidStateError(
                f"the saveable {self.name!r} had the tensors {_shown(self.frozen)} when the saver was bound to it, and has "
                f"{_shown([(spec.name, spec.slice) for spec in specs])} now"
            )
        return specs

    def assignment(
        self, found: Mapping[str, TensorSpec], adapters: Adapters, *, reshape: bool
    ) -> tuple[Mapping[str, Any], Assign]:
        """See `Item`. The shape of a whole tensor may be any: what becomes of it is the saveable's business."""
        specs = self.specs()
        own = [spec_of(spec.name, as_leaf(spec.name, spec.value, adapters), adapters) for spec in specs]
        targets: dict[str, Any] = {}
        for spec, described in zip(specs, own, strict=True):
            if spec.slice is not None:
                shape = spec.slice.full_shape
            else:
                shape = found[spec.name].shape if spec.name in found else described.shape
            # Takes no memory, and cannot be written: so what was read is not copied, but becomes the result.
            targets[spec.name] = np.broadcast_to(np.empty((), described.dtype), shape)

        def assign(restored: Mapping[str, Any]) -> None:
            if any(restored[name] is target for name, target in targets.items()):
                return  # the checkpoint lacks it, and nobody minds
            values = []
            for spec, described in zip(specs, own, strict=True):
                value = restored[spec.name]
                if spec.slice is not None:
                    starts = zip(spec.slice.offset, described.shape, strict=True)
                    value = value[(*(slice(start, start + length) for start, length in starts), ...)]
                values.append(value)
            try:
                self.saveable.restore(values, [described.shape for described in own] if reshape else None)
            except Exception as error:
                error.add_note(f"raised by the saveable {self.name!r}, after its tensors were read")
                raise

        return targets, assign


def _nothing_left(restored: Mapping[str, Any]) -> None:
    """An array that was filled needs nothing more."""
    del restored


def _shown(frozen: Sequence[tuple[str, SliceInfo | None]]) -> str:
    return ", ".join(f"{name} at {list(part.offset)}" if part else name for name, part in frozen) or "none"
