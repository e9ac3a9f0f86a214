"""The tree of a PyTorch Distributed Checkpoint: its plain values, and the nested state that its names come from. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncsaver.errors import ManifestError
from asyncsaver.formats.dcp.pickles import Record
from asyncsaver.model.leaves import TensorSpec
from asyncsaver.model.nodes import ENCODERS, MAX_DEPTH, MAX_INLINE_BYTES, Node
from asyncsaver.model.parse import parse_tree

_BYTES = "_codecs:encode"  # by which protocol 2 of pickle writes bytes: as a string of latin-1


class NotPlainError(ValueError):
    """A value that the tree of a checkpoint cannot hold; the message says what it is."""


def value_node(value: Any, length: int) -> Node:
    """The node of an unpickled value.

    Args:
        value: as `read_pickle` returns it.
        length: of its pickle. A value with more parts than that holds some of them many times over, and is refused.

    Raises:
        NotPlainError: there is no node for it.
    """
    return _Encoding(length + 100).node(value, 0)


class _Encoding:
    def __init__(self, left: int) -> None:
        self._left = left

    def node(self, value: Any, depth: int) -> Node:
        self._take(1)
        if depth > MAX_DEPTH:
            raise NotPlainError(f"it is nested more than {MAX_DEPTH} deep, or contains itself")
        if isinstance(value, (list, tuple)):
            nodes = [self.node(item, depth + 1) for item in value]
            return {"list" if isinstance(value, list) else "tuple": nodes}
        if isinstance(value, dict):
            return self._dict(value, depth)
        if isinstance(value, Record):
            value = _bytes(value)
        if isinstance(value, bytes):
            self._take(len(value))
            if len(value) > MAX_INLINE_BYTES:
                raise NotPlainError(f"{len(value)} bytes are too many for a plain value")
        encode = ENCODERS.get(type(value))
        if encode is None:
            raise NotPlainError(f"a {type(value).__name__} is no plain value")
        return encode(value)

    def _dict(self, value: dict[Any, Any], depth: int) -> Node:
        if any(isinstance(key, Record) for key in value):
            raise NotPlainError("a dict with keys that are neither strings nor integers is no plain value")
        pairs = [(key, self.node(item, depth + 1)) for key, item in value.items()]
        if all(isinstance(key, str) for key in value):
            return {"dict": dict(pairs)}
        return {"items": [[key, item] for key, item in pairs]}

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise NotPlainError("its parts occur in it many times over")


def _bytes(value: Record) -> bytes:
    match value:
        case Record(kind, (str(text), "latin1"), None) if kind == _BYTES:
            if len(text) > MAX_INLINE_BYTES:
                raise NotPlainError(f"{len(text)} bytes are too many for a plain value")
            return text.encode("latin-1", "replace")
        case _:
            raise NotPlainError(f"an object of {value.kind[:100]} is no plain value")


def build_tree(
    nodes: Mapping[str, Node],
    paths: Mapping[str, tuple[str | int, ...]] | None,
    tensors: Mapping[str, TensorSpec],
) -> Node:
    """The tree of a whole checkpoint.

    Args:
        nodes: name → node.
        paths: name → where it is in the state; None for a flat dict.
        tensors: that nodes refer to.

    Returns:
        A tree that `parse_tree` accepts, flat where the paths contradict each other; None where that contradicts itself, too.
    """
    for find in (_nested, _flat) if paths is not None else (_flat,):
        try:
            tree = find(nodes, paths or {})
            parse_tree(tree, tensors)
        except ManifestError:
            continue
        return tree
    return None


def _flat(nodes: Mapping[str, Node], _: Mapping[str, tuple[str | int, ...]]) -> Node:
    return {"dict": dict(nodes)}


class _Branch(dict[str | int, Any]):
    """What is below a place in the state, by key: further branches and nodes."""


def _nested(nodes: Mapping[str, Node], paths: Mapping[str, tuple[str | int, ...]]) -> Node:
    root = _Branch()
    for name, node in nodes.items():
        *above, last = paths[name]
        if len(above) >= MAX_DEPTH:
            raise ManifestError(f"{name[:200]!a} is nested more than {MAX_DEPTH} deep")
        branch = root
        for key in above:
            branch = branch.setdefault(key, _Branch())
            if not isinstance(branch, _Branch):
                raise ManifestError(f"{name[:200]!a} is below a leaf")
        if last in branch:
            raise ManifestError(f"something else is where {name[:200]!a} is")
        branch[last] = node
    return _closed(root)


def _closed(branch: _Branch) -> Node:
    """A list where the keys are the positions in one, else a dict."""
    nodes = {key: _closed(item) if isinstance(item, _Branch) else item for key, item in branch.items()}
    numbers = sorted(key for key in nodes if isinstance(key, int))
    if not numbers:
        return {"dict": nodes}
    if len(numbers) == len(nodes) and numbers == list(range(len(numbers))):
        return {"list": [nodes[number] for number in numbers]}
    return {"items": [[key, node] for key, node in nodes.items()]}
