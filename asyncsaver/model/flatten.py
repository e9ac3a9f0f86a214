"""From a state to its tree and its tensors.

The tree is JSON and describes everything but the arrays' data; `asyncsaver.model.nodes` lists its nodes. What cannot be
saved without losing something is refused, with the name of the leaf and what to do instead. The state is never
changed, and no data is touched: that is the business of whoever stages or writes the tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec
import numpy as np

from asyncsaver.errors import InvalidStateError, UnsupportedLeafError
from asyncsaver.model.containers import Items, OpenContainers, child_name, contents, is_stateful
from asyncsaver.model.dtypes import DType, dtype_name, storage_order
from asyncsaver.model.leaves import Adapters, LeafAdapter
from asyncsaver.model.nodes import ENCODERS, MAX_INLINE_BYTES, Node, encode_int, encode_scalar

BARE_NAME = "state"
"""The name of the only leaf of a state that is itself a leaf."""

_RESERVED = "__metadata__"

_STRINGS = frozenset("OSU")
"""What NumPy calls kinds of dtypes that may be strings."""

_PAIRED = frozenset(["items", "ordereddict", "defaultdict"])
_POSITIONAL = frozenset(["list", "tuple"])
_TYPED = frozenset(["namedtuple", "dataclass"])

_Path = tuple[Any, Any] | None
"""The path of a leaf: that of its container, and its key there. Linked, so that a leaf costs one small tuple."""


class TensorLeaf(msgspec.Struct, frozen=True, gc=False):
    """One array of a state.

    Attributes:
        name: its path joined with ``.``.
        dtype: as stored (little-endian).
        shape: its lengths; ``()`` for a single element.
        nbytes: its size in bytes. A field, because it is asked for so often.
        kind: of the adapter that gives its data: ``adapters.by_kind(kind).to_numpy(value)``, in any byte order.
        value: the array itself, as the caller's state holds it.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    nbytes: int
    kind: str
    value: Any


@dataclass(frozen=True, slots=True)
class FlatState:
    """A state as its tree (JSON) and the tensors that the tree names, in the state's order.

    Attributes:
        values: name and value of each leaf that is a plain value or a scalar of NumPy's, which the tree holds.
    """

    tree: Node
    tensors: tuple[TensorLeaf, ...]
    values: tuple[tuple[str, Any], ...] = ()


def flatten(state: object, adapters: Adapters, *, strings: bool = False) -> FlatState:
    """Describe a state.

    Takes a few microseconds a leaf, and calls ``state_dict()`` of the objects in it.

    Args:
        state: the state.
        adapters: for its arrays.
        strings: take arrays of strings or of Python objects as well, as they are, with as many bytes as they have in memory.

    Raises:
        UnsupportedLeafError: a leaf or a key is of a type that cannot be saved. A `TypeError`.
        InvalidStateError: a cycle, nesting deeper than `MAX_DEPTH`, two leaves with one name, or a reserved name. A
            `ValueError`.
    """
    flattening = _Flattening(adapters, strings=strings)
    tree = flattening.node(state, None, None)
    return FlatState(tree, tuple(flattening.tensors), tuple(flattening.values))


class _Flattening:
    def __init__(self, adapters: Adapters, *, strings: bool) -> None:
        self.tensors: list[TensorLeaf] = []
        self.values: list[tuple[str, Any]] = []
        self._strings = strings
        self._adapters = adapters
        self._names: dict[str, _Path] = {}
        self._open = OpenContainers()
        self._stored: dict[DType, DType] = {}

    def node(self, value: Any, name: str | None, path: _Path) -> Node:
        encode = ENCODERS.get(type(value))
        if encode is not None:
            leaf = self._claim(name, path)
            if type(value) is bytes and len(value) > MAX_INLINE_BYTES:
                data = np.frombuffer(value, np.uint8)
                self.tensors.append(TensorLeaf(leaf, data.dtype, data.shape, data.nbytes, "numpy", data))
                return {"blob": leaf}
            self.values.append((leaf, value))
            return encode(value)
        adapter = self._adapters.find(value)
        if adapter is not None:
            return self._tensor(value, adapter, self._claim(name, path))
        if isinstance(value, np.generic):
            return self._scalar(value, self._claim(name, path))
        stateful = is_stateful(value)
        found = None if stateful else contents(value)
        if not stateful and found is None:
            raise UnsupportedLeafError(f"{name or BARE_NAME}: {_advice(value)}")
        self._open.enter(value, name)
        if found is None:
            node: Node = {"object": self.node(value.state_dict(), name, path), "type": _type_name(value)}
        else:
            kind, items = found
            if kind == "dict" and int in set(map(type, value)):
                kind = "items"
            if kind in _PAIRED:
                node = {kind: self._pairs(items, name, path)}
            elif kind in _POSITIONAL:
                node = {kind: self._positional(items, name, path)}
            else:
                node = {kind: self._named(items, name, path)}
            if kind in _TYPED:
                node["type"] = _type_name(value)
        self._open.leave(value)
        return node

    # Loops rather than comprehensions: each of those would take a frame more at every level.

    def _positional(self, items: Items, name: str | None, path: _Path) -> list[Node]:
        nodes: list[Node] = []
        for key, child in items:
            nodes.append(self.node(child, child_name(name, key), (path, key)))
        return nodes

    def _named(self, items: Items, name: str | None, path: _Path) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key, child in items:
            full_name = child_name(name, key)  # refuses other keys than str
            nodes[str(key)] = self.node(child, full_name, (path, key))
        return nodes

    def _pairs(self, items: Items, name: str | None, path: _Path) -> list[list[Node]]:
        pairs: list[list[Node]] = []
        for key, child in items:
            full_name = child_name(name, key)  # refuses other keys than str and int
            shown = encode_int(key) if type(key) is int else key
            pairs.append([shown, self.node(child, full_name, (path, key))])
        return pairs

    def _tensor(self, value: Any, adapter: LeafAdapter, name: str) -> Node:
        try:
            spec = adapter.describe(value)
            dtype = self._stored.get(spec.dtype)
            if dtype is None:
                if not (self._strings and spec.dtype.kind in _STRINGS):
                    dtype_name(spec.dtype)  # raises for what cannot be stored
                dtype = self._stored[spec.dtype] = storage_order(spec.dtype)
        except UnsupportedLeafError as exc:
            raise UnsupportedLeafError(f"{name}: {exc}") from exc
        shape, kind = spec.shape, adapter.kind
        self.tensors.append(TensorLeaf(name, dtype, shape, math.prod(shape) * dtype.itemsize, kind, value))
        return {"tensor": name} if kind == "numpy" else {"tensor": name, "kind": kind}

    def _scalar(self, value: np.generic, name: str) -> Node:
        self.values.append((name, value))
        try:
            return encode_scalar(value)
        except UnsupportedLeafError as exc:
            raise UnsupportedLeafError(f"{name}: {exc}") from exc

    def _claim(self, name: str | None, path: _Path) -> str:
        if name is None:
            name = BARE_NAME
        elif name in self._names:
            raise InvalidStateError(
                f"{_shown(self._names[name])} and {_shown(path)} would both be named {name!r}: rename one of them"
            )
        elif name == _RESERVED:
            raise InvalidStateError(f"{_shown(path)}: the name {_RESERVED!r} is reserved by safetensors: rename it")
        elif not name:
            raise InvalidStateError(f"{_shown(path)}: a leaf needs a name that is not empty: rename its key")
        self._names[name] = path
        return name


def _shown(path: _Path) -> str:
    keys: list[str] = []
    while path is not None:
        path, key = path
        keys.append(f"[{key!r}]")
    return BARE_NAME + "".join(reversed(keys))


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _advice(value: object) -> str:
    match value:
        case Enum():
            advice = "save its .name or .value"
        case set() | frozenset():
            advice = "save it as a sorted list"
        case complex():
            advice = "save it as numpy.complex128(it)"
        case bytearray() | memoryview():
            advice = "save it as bytes, or as a NumPy array of uint8"
        case str() | int() | float() | bytes():
            plain = next(base for base in (str, int, float, bytes) if isinstance(value, base))
            advice = f"save {plain.__name__}(it)"
        case type():
            advice = "save its name, and look it up when restoring"
        case _:
            advice = (
                "save it as arrays, numbers, strings, dicts, lists or tuples, "
                "or give it state_dict() and load_state_dict()"
            )
    return f"a value of type {_type_name(value)} cannot be saved: {advice}"
