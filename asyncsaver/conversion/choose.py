"""Which leaves of a checkpoint are converted, and the tree that is left of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from asyncsaver.model.flatten import BARE_NAME
from asyncsaver.model.nodes import Node, decode_value
from asyncsaver.model.parse import TensorNode, parse_tree
from asyncsaver.model.select import Select, selector
from asyncsaver.restore.source import Source

_NOTHING = object()
_BRANCHES = ("dict", "namedtuple", "dataclass", "list", "tuple", "items", "ordereddict", "defaultdict")
_POSITIONAL = ("list", "tuple", "namedtuple")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What of a checkpoint is converted.

    Attributes:
        tree: with the leaves that were chosen; in lists, tuples and named tuples, None stands in for the others.
        tensors: names of those that were chosen, in the order of the checkpoint.
        values: names of the leaves that were chosen and are no tensors.
    """

    tree: Node
    tensors: Sequence[str]
    values: Sequence[str]


def choose(source: Source, select: Select | None) -> Chosen:
    """Choose. Blocking.

    Args:
        source: the checkpoint.
        select: see `model.select`; None for everything, tensors that its tree does not name included.

    Raises:
        StructureMismatchError: the selection selects nothing.
        ManifestError: the tree is damaged.
        TypeError: no selection.
    """
    parsed = parse_tree(source.tree, source.specs())
    empty = [name for name, branch in parsed.branches.items() if branch.leaves.start == branch.leaves.stop]
    selected = selector(select, [*parsed.names, *empty])
    leaves = [leaf for name, leaf in parsed.leaves.items() if select is None or selected(name)]
    values = [leaf.name for leaf in leaves if not isinstance(leaf, TensorNode)]
    if select is None:
        repeated = {*source.repeated}
        return Chosen(source.tree, [name for name in source.tensors if name not in repeated], values)
    wanted = {leaf.tensor for leaf in leaves if isinstance(leaf, TensorNode)}
    tree = _pruned(source.tree, None, selected)
    return Chosen(None if tree is _NOTHING else tree, [name for name in source.tensors if name in wanted], values)


def _pruned(node: Node, name: str | None, selected: Callable[[str], bool]) -> Any:
    """What is left of a node that `parse_tree` has found good."""
    if isinstance(node, dict):
        if "object" in node:
            state = _pruned(node["object"], name, selected)
            return _NOTHING if state is _NOTHING else {**node, "object": state}
        for kind in _BRANCHES:
            if kind in node:
                return _pruned_branch(node, kind, name, selected)
    return node if selected(name or BARE_NAME) else _NOTHING


def _pruned_branch(node: dict[str, Any], kind: str, name: str | None, selected: Callable[[str], bool]) -> Any:
    content = node[kind]
    if not content:
        return node if selected(name or BARE_NAME) else _NOTHING
    if isinstance(content, dict):
        pairs = list(content.items())
    elif kind in _POSITIONAL:
        pairs = list(enumerate(content))
    else:
        pairs = [(key, child) for key, child in content]
    kept: list[tuple[Any, Any]] = []
    for key, child in pairs:
        shown = decode_value("int", key["int"]) if isinstance(key, dict) else key  # too large for JSON
        kept.append((key, _pruned(child, str(shown) if name is None else f"{name}.{shown}", selected)))
    if all(child is _NOTHING for _, child in kept):
        return _NOTHING
    if kind in _POSITIONAL:
        kept = [(key, None if child is _NOTHING else child) for key, child in kept]
    left = [(key, child) for key, child in kept if child is not _NOTHING]
    if isinstance(content, dict):
        return {**node, kind: dict(left)}
    return {**node, kind: [child for _, child in left] if kind in _POSITIONAL else [list(pair) for pair in left]}
