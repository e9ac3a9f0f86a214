"""From typed nodes to plain containers: dicts, lists and tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asyncsaver.model.flatten import BARE_NAME
from asyncsaver.model.parse import BranchNode, TensorNode, TreeNode, ValueNode

_NOTHING = object()


def materialise(
    node: TreeNode, tensor: Callable[[TensorNode], Any], selected: Callable[[str], bool] | None = None
) -> Any:
    """What was saved, without the types that only a target can give.

    All dicts and dataclasses become dicts, named tuples become tuples, and an object becomes its state. Of a
    selection, dicts hold only what was selected; in lists and tuples, None stands in for what was not.

    Args:
        node: a checked tree, or a part of one.
        tensor: makes the value of a tensor.
        selected: which names are wanted; None for all. Empty containers go by their own name.
    """
    value = _value(node, tensor, selected)
    return None if value is _NOTHING else value


def _value(node: TreeNode, tensor: Callable[[TensorNode], Any], selected: Callable[[str], bool] | None) -> Any:
    if not isinstance(node, BranchNode):
        if selected is not None and not selected(node.name):
            return _NOTHING
        return node.value if isinstance(node, ValueNode) else tensor(node)
    if node.kind == "object":
        return _value(node.children[0], tensor, selected)
    if selected is not None and not node.children and not selected(node.name or BARE_NAME):
        return _NOTHING
    values = []
    for child in node.children:
        values.append(_value(child, tensor, selected))  # noqa: PERF401 - a comprehension takes a frame more a level
    if node.children and all(value is _NOTHING for value in values):
        return _NOTHING
    if node.kind in ("dict", "dataclass"):
        return {key: value for key, value in zip(node.keys, values, strict=True) if value is not _NOTHING}
    filled = [None if value is _NOTHING else value for value in values]
    return filled if node.kind == "list" else tuple(filled)
