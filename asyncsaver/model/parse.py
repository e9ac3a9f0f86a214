"""From the tree in a manifest to typed nodes, trusting nothing: whatever is wrong with it is a `ManifestError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from asyncsaver.errors import ManifestError
from asyncsaver.model.flatten import BARE_NAME
from asyncsaver.model.leaves import TensorSpec
from asyncsaver.model.nodes import MAX_DEPTH, Node, decode_value


class TensorNode(msgspec.Struct, frozen=True, gc=False):
    """A leaf whose data is a tensor of the checkpoint.

    Attributes:
        name: its path in the tree.
        tensor: what the tensor is called; another name than the path where a foreign format has its own.
        kind: what kind of array was saved, or ``bytes``.
    """

    name: str
    tensor: str
    kind: str
    spec: TensorSpec


class ValueNode(msgspec.Struct, frozen=True, gc=False):
    """A leaf that is a plain value or a NumPy scalar."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True)
class BranchNode:
    """A container, or with the kind ``object`` the state of an object: its only child, under the same name.

    Attributes:
        name: None for the state itself.
        keys: one for each child: str and int for the kinds of dict, positions for lists and tuples, else names of
            fields.
        leaves: which of `ParsedTree.leaves` are below it.
    """

    name: str | None
    kind: str
    keys: tuple[str | int, ...]
    children: tuple[TreeNode, ...]
    leaves: slice


Leaf = TensorNode | ValueNode
TreeNode = Leaf | BranchNode


@dataclass(frozen=True, slots=True)
class ParsedTree:
    """A checked tree.

    Attributes:
        leaves: by name, in order.
        branches: by name, without the root; of an object and its state, the object.
        names: of the leaves, in order.
    """

    root: TreeNode
    leaves: Mapping[str, Leaf]
    branches: Mapping[str, BranchNode]
    names: Sequence[str]


def parse_tree(tree: Node, tensors: Mapping[str, TensorSpec]) -> ParsedTree:
    """Check a tree and make it typed.

    Args:
        tree: as decoded from JSON; `asyncsaver.model.nodes` says what it may be.
        tensors: the tensors of the checkpoint. Those that the tree does not name are of no concern here.

    Raises:
        ManifestError: the tree is not what `flatten` gives, or names a tensor that there is not.
    """
    parsing = _Parsing(tensors)
    root = parsing.node(tree, None, 0)
    return ParsedTree(root, parsing.leaves, parsing.branches, tuple(parsing.leaves))


class _Parsing:
    def __init__(self, tensors: Mapping[str, TensorSpec]) -> None:
        self.leaves: dict[str, Leaf] = {}
        self.branches: dict[str, BranchNode] = {}
        self._tensors = tensors
        self._left = dict(tensors)  # what the tree has not named yet

    def node(self, node: Node, name: str | None, depth: int) -> TreeNode:
        if not isinstance(node, dict):
            if node is not None and type(node) not in (bool, int, float, str):
                raise _damaged(name, f"a {type(node).__name__} is no node")
            return self._leaf(ValueNode(name or BARE_NAME, node))
        if depth > MAX_DEPTH:
            raise _damaged(name, f"nested more than {MAX_DEPTH} deep")
        if len(node) == 1 and type(plain := node.get("tensor")) is str:  # most nodes, and matching takes a while
            return self._tensor(name, plain, "numpy")
        match node:
            case {"tensor": str(tensor), **rest} if _is_text(rest, "kind"):
                return self._tensor(name, tensor, rest.get("kind", "numpy"))
            case {"blob": str(tensor), **rest} if not rest:
                return self._tensor(name, tensor, "bytes")
            case {"object": state, **rest} if _is_text(rest, "type"):
                start = len(self.leaves)
                child = self.node(state, name, depth + 1)
                return self._branch(name, "object", (), (child,), start)
            case {"list": list(nodes), **rest} | {"tuple": list(nodes), **rest} if not rest:
                return self._children(name, next(iter(node)), enumerate(nodes), depth)
            case {"dict": dict(pairs), **rest} if not rest:
                return self._children(name, "dict", pairs.items(), depth)
            case {"namedtuple": dict(pairs), **rest} | {"dataclass": dict(pairs), **rest} if _is_text(rest, "type"):
                kind = "namedtuple" if "namedtuple" in node else "dataclass"
                return self._children(name, kind, pairs.items(), depth)
            case {"items": list(pairs), **rest} | {"ordereddict": list(pairs), **rest} if not rest:
                return self._children(name, "dict", _pairs(pairs, name), depth)
            case {"defaultdict": list(pairs), **rest} if not rest:
                return self._children(name, "dict", _pairs(pairs, name), depth)
        return self._value(node, name)

    def _value(self, node: dict[Any, Any], name: str | None) -> TreeNode:
        if len(node) != 1:
            raise _damaged(name, f"unknown node with keys {_shortened(list(node))}")
        [(tag, content)] = node.items()
        try:
            value = decode_value(tag, content)
        except LookupError:
            raise _damaged(name, f"unknown kind of node {_shortened(tag)}") from None
        except ValueError as exc:
            raise _damaged(name, str(exc)) from exc
        return self._leaf(ValueNode(name or BARE_NAME, value))

    def _children(self, name: str | None, kind: str, pairs: Iterable[tuple[Any, Node]], depth: int) -> TreeNode:
        start = len(self.leaves)
        children: dict[str | int, TreeNode] = {}
        count = 0
        for key, node in pairs:
            if type(key) is not str and type(key) is not int:
                raise _damaged(name, f"a key is a {type(key).__name__}")
            try:
                full_name = str(key) if name is None else f"{name}.{key}"
            except ValueError as exc:  # Python limits how long a number it writes out
                raise _damaged(name, "a key is a number that is too long to be named") from exc
            children[key] = self.node(node, full_name, depth + 1)
            count += 1
        if len(children) != count:
            raise _damaged(name, "two entries have one key")
        return self._branch(name, kind, tuple(children), tuple(children.values()), start)

    def _branch(
        self, name: str | None, kind: str, keys: tuple[str | int, ...], children: tuple[TreeNode, ...], start: int
    ) -> BranchNode:
        branch = BranchNode(name, kind, keys, children, slice(start, len(self.leaves)))
        if name is not None:
            self.branches[name] = branch  # of an object and its state, the object comes last and stays
        return branch

    def _tensor(self, name: str | None, tensor: str, kind: str) -> TreeNode:
        spec = self._left.pop(tensor, None)
        if spec is None:
            known = tensor in self._tensors
            problem = (
                f"the tensor {_shortened(tensor)} is named twice"
                if known
                else f"no tensor is named {_shortened(tensor)}"
            )
            raise _damaged(name, problem)
        if kind == "bytes" and (spec.dtype.name != "uint8" or len(spec.shape) != 1):
            raise _damaged(name, f"bytes cannot be stored as {spec}")
        return self._leaf(TensorNode(name or BARE_NAME, tensor, kind, spec))

    def _leaf(self, leaf: Leaf) -> Leaf:
        if self.leaves.setdefault(leaf.name, leaf) is not leaf:
            raise _damaged(leaf.name, "two leaves have this name")
        return leaf


def _pairs(pairs: list[Any], name: str | None) -> list[tuple[Any, Node]]:
    found: list[tuple[Any, Node]] = []
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise _damaged(name, "an entry is not a pair of key and node")
        key, node = pair
        if isinstance(key, dict):
            key = _large_key(key, name)
        found.append((key, node))
    return found


def _large_key(key: dict[Any, Any], name: str | None) -> int:
    if list(key) == ["int"]:
        try:
            value: int = decode_value("int", key["int"])
        except ValueError as exc:
            raise _damaged(name, str(exc)) from exc
        return value
    raise _damaged(name, "a key is a dict")


def _is_text(rest: Mapping[Any, Any], allowed: str) -> bool:
    """Whether nothing but possibly the one key ``allowed`` is left, with a string."""
    return not rest or (list(rest) == [allowed] and isinstance(rest[allowed], str))


def _damaged(name: str | None, problem: str) -> ManifestError:
    return ManifestError(f"the tree is damaged at {_shortened(name or BARE_NAME)}: {problem}")


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
