"""A saver's variables, once it is bound to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from asyncsaver.errors import InvalidStateError
from asyncsaver.model.leaves import Adapters, TensorSpec
from asyncsaver.model.partitioned import Partitioned
from asyncsaver.model.shard_keys import device_of, shards_by_key
from asyncsaver.variables.items import Assign, Custom, Item
from asyncsaver.variables.leaf import as_leaf
from asyncsaver.variables.saveable import SaveSpec


@dataclass(frozen=True, slots=True)
class Assignment:
    """How variables are restored.

    Attributes:
        target: what `CheckpointReader.restore` is to restore into: arrays that are filled in place, and stand-ins.
    """

    target: Mapping[str, Any]
    _assigns: Sequence[Assign]

    def assign(self, restored: Mapping[str, Any]) -> None:
        """Let variables and saveables have what was restored. Blocking, since saveables do what they like.

        Args:
            restored: what came of the target.
        """
        for assign in self._assigns:
            assign(restored)


class Bound:
    """Named variables, sorted by name. Which they are never changes, what they hold does.

    Args:
        items: sorted.
        adapters: for their arrays.

    Attributes:
        names: of all tensors, as they stand in a state.
        saveables: name → its tensors' names, of those that must stay in one shard.
    """

    def __init__(self, items: Sequence[Item], adapters: Adapters) -> None:
        self._items = tuple(items)
        self._adapters = adapters
        self.names: tuple[str, ...] = tuple(dict.fromkeys(name for item in items for name in item.names))
        self.saveables: Mapping[str, Sequence[str]] = MappingProxyType(
            {item.name: item.names for item in items if isinstance(item, Custom)}
        )

    def __repr__(self) -> str:
        return f"<{len(self.names)} bound variables>"

    @property
    def empty(self) -> bool:
        """Whether there are none: saves then save nothing, and restores have nothing to do."""
        return not self._items

    def state(self) -> dict[str, Any]:
        """What to save now: name → array, or `Partitioned` where there are slices.

        Raises:
            TypeError: a variable holds what is no array.
            InvalidStateError: a saveable has other names than before, or slices do not cover their tensor exactly once.
        """
        return gather((spec for item in self._items for spec in item.specs()), self._adapters)

    def shard_keys(self) -> dict[str, str]:
        """Name of each tensor → the key of its shard: the one given, or its device. For `shards_by_key`."""
        keys: dict[str, str] = {}
        for item in self._items:
            for spec in item.specs():
                keys.setdefault(spec.name, spec.shard_key or device_of(spec.value))
        return keys

    def checked_shard_keys(self) -> dict[str, str]:
        """As `shard_keys`; raises `ValueError` where the tensors of a saveable have several keys."""
        keys = self.shard_keys()
        shards_by_key(self.names, keys.__getitem__, together=self.saveables)
        return keys

    def assignment(self, found: Mapping[str, TensorSpec], names: Collection[str], *, reshape: bool) -> Assignment:
        """How to restore some of the variables.

        Args:
            found: the tensors of the checkpoint.
            names: of the tensors that are wanted, in any order.
            reshape: whether other shapes with as many elements fit.

        Raises:
            ValueError: only some tensors of a saveable are wanted; or as `state`.
            TypeError: an array cannot be filled any more; or as `state`.
        """
        target: dict[str, Any] = {}
        assigns: list[Assign] = []
        for item in self._items:
            wanted = [name for name in item.names if name in names]
            if not wanted:
                continue
            if len(wanted) < len(item.names):
                raise ValueError(
                    f"the saveable {item.name!r} is restored as a whole: {', '.join(wanted)} of it is selected, "
                    f"{', '.join(name for name in item.names if name not in names)} is not"
                )
            targets, assign = item.assignment(found, self._adapters, reshape=reshape)
            target.update(targets)
            assigns.append(assign)
        return Assignment(target, assigns)

    def batches(self, nbytes: Mapping[str, int], most: int) -> list[list[str]]:
        """Names of tensors that may be restored one batch after another.

        Args:
            nbytes: of each, by name; 0 where there is none.
            most: a batch has at most so many bytes, unless it is a single variable or saveable.
        """
        batches: list[list[str]] = []
        filled = 0
        for item in self._items:
            size = sum(nbytes.get(name, 0) for name in item.names)
            if not batches or filled + size > most:
                batches.append([])
                filled = 0
            batches[-1].extend(item.names)
            filled += size
        return batches


def gather(specs: Iterable[SaveSpec], adapters: Adapters) -> dict[str, Any]:
    """Put together what is to be saved, slices of one tensor under its name; see `Bound.state`."""
    state: dict[str, Any] = {}
    slices: dict[str, list[SaveSpec]] = {}
    for spec in specs:
        leaf = as_leaf(spec.name, spec.value, adapters)
        state.setdefault(spec.name, leaf)
        if spec.slice is not None:
            slices.setdefault(spec.name, []).append(SaveSpec(spec.name, leaf, spec.slice))
    for name, parts in slices.items():
        state[name] = _joined(name, parts)
    return state


def _joined(name: str, parts: Sequence[SaveSpec]) -> Partitioned:
    shapes = {part.slice.full_shape for part in parts if part.slice is not None}
    if len(shapes) > 1:
        raise InvalidStateError(f"{name}: its slices differ about its shape: {', '.join(map(str, sorted(shapes)))}")
    try:
        return Partitioned(shapes.pop(), [(part.slice.offset, part.value) for part in parts if part.slice is not None])
    except ValueError as exc:
        raise InvalidStateError(f"{name}: {exc}") from exc
