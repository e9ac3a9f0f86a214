"""Containers: what stands inside each kind, and how to make one like another with other content."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from asyncsaver.errors import InvalidStateError, UnsupportedLeafError
from asyncsaver.model.nodes import MAX_DEPTH, is_text

Items = Iterable[tuple[str | int, Any]]


def is_stateful(value: object) -> bool:
    """Whether a value is an object that gives its state, and takes it back, as PyTorch's modules and optimizers do."""
    return (
        not isinstance(value, type)
        and callable(getattr(value, "state_dict", None))
        and callable(getattr(value, "load_state_dict", None))
    )


def contents(value: Any) -> tuple[str, Items] | None:
    """The kind of a container and its content by key, in order; None when it is no container.

    Of a dataclass, the fields that are set, but not those that are declared static (``metadata`` with ``static=True``
    or ``pytree_node=False``), which JAX does not count as part of the data either.
    """
    if isinstance(value, dict):
        if isinstance(value, OrderedDict):
            return "ordereddict", value.items()
        return "defaultdict" if isinstance(value, defaultdict) else "dict", value.items()
    if isinstance(value, list):
        return "list", enumerate(value)
    if isinstance(value, tuple):
        if _is_namedtuple(value):
            return "namedtuple", zip(value._fields, value, strict=True)  # type: ignore[attr-defined]
        return "tuple", enumerate(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "dataclass", [
            (field.name, getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.metadata.get("pytree_node", True)
            and not field.metadata.get("static", False)
            and hasattr(value, field.name)
        ]
    return None


def remade(like: Any, items: Sequence[tuple[str | int, Any]]) -> Any:
    """A new container like ``like`` that holds ``items``, whose keys are the same in the same order."""
    values = [value for _, value in items]
    if type(like) is dict:
        return dict(items)
    if type(like) is list:
        return values
    if isinstance(like, dict):
        mapping = copy.copy(like)
        mapping.clear()
        mapping.update(items)
        return mapping
    if isinstance(like, list):
        sequence = copy.copy(like)
        sequence[:] = values
        return sequence
    if isinstance(like, tuple):
        return like._make(values) if _is_namedtuple(like) else type(like)(values)  # type: ignore[attr-defined]
    instance = copy.copy(like)
    for name, value in items:
        # Frozen dataclasses and fields with init=False take no other way.
        object.__setattr__(instance, str(name), value)
    return instance


def child_name(parent: str | None, key: object) -> str:
    """The name of what stands under a key.

    Args:
        parent: the name of the container; None for the state itself.
        key: a dict key, a position, or the name of a field.

    Raises:
        UnsupportedLeafError: the key is neither a string nor an integer that can be written out.
    """
    if type(key) is str:
        if not is_text(key):
            raise UnsupportedLeafError(f"{parent or 'state'}: the key {key!a} has lone surrogates: encode it otherwise")
    elif type(key) is not int:
        raise UnsupportedLeafError(
            f"{parent or 'state'}: the key {key!r} of type {type(key).__name__} cannot be saved: use str or int keys"
        )
    try:
        return str(key) if parent is None else f"{parent}.{key}"
    except ValueError as exc:
        raise UnsupportedLeafError(
            f"{parent or 'state'}: the key is a number that is too long to be written out: use a string"
        ) from exc


class OpenContainers:
    """The containers around the one that is being visited, to notice cycles and excessive depth."""

    def __init__(self) -> None:
        self._identities: set[int] = set()

    def enter(self, container: object, name: str | None) -> None:
        """Go into a container.

        Raises:
            InvalidStateError: it is inside itself, or nested too deep.
        """
        if id(container) in self._identities:
            raise InvalidStateError(f"{name or 'state'}: this {type(container).__name__} contains itself")
        if len(self._identities) >= MAX_DEPTH:
            raise InvalidStateError(f"the state is nested more than {MAX_DEPTH} deep; at {_shortened(name or '')}")
        self._identities.add(id(container))

    def leave(self, container: object) -> None:
        """Come out of it again."""
        self._identities.discard(id(container))


def _is_namedtuple(value: tuple[Any, ...]) -> bool:
    return isinstance(getattr(value, "_fields", None), tuple) and hasattr(value, "_make")


def _shortened(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:200]}..."
