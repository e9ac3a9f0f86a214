"""Comparing a target with a checkpoint: every difference is found before anything is read or touched.

Leaves are matched by name, so a list goes with a tuple, and ``{"a.b": x}`` with ``{"a": {"b": x}}``. The result keeps
the target's containers. What is inside an object with ``load_state_dict`` is that object's business, unless an
adapter knows better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from asyncsaver.errors import InvalidStateError, StructureMismatchError, UnsupportedLeafError
from asyncsaver.model.containers import OpenContainers, child_name, contents, is_stateful
from asyncsaver.model.fit import DtypePolicy, array_problem, fit_value, is_plain
from asyncsaver.model.flatten import BARE_NAME
from asyncsaver.model.leaves import Adapters, Differences, LeafAdapter, TensorSpec
from asyncsaver.model.materialise import materialise
from asyncsaver.model.parse import BranchNode, Leaf, ParsedTree, TensorNode, TreeNode, ValueNode

_SHOWN = 20


class Given(msgspec.Struct, frozen=True, gc=False):
    """A part of the result that is known already: a plain value, or what the target holds."""

    value: Any


class Bytes(msgspec.Struct, frozen=True, gc=False):
    """A part of the result that is a long bytes value."""

    node: TensorNode


class Fill(msgspec.Struct, frozen=True, gc=False):
    """A part of the result that is an array of the target, with new data of its own dtype and shape."""

    node: TensorNode
    target: Any
    adapter: LeafAdapter
    spec: TensorSpec


class Remake(msgspec.Struct, frozen=True, gc=False):
    """A part of the result that is a container like one of the target's.

    Attributes:
        like: the target's.
        steps: by key, in order. Who carries them out may take them from here.
    """

    like: Any
    steps: dict[str | int, Step]


Step = Given | Bytes | Fill | Remake


@dataclass(frozen=True, slots=True)
class Load:
    """An object of the target whose ``load_state_dict`` is to be called.

    Attributes:
        state: the saved state.
        differences: what to leave out and what to take from the object itself, with ``strict=False``.
    """

    name: str
    obj: Any
    state: TreeNode
    differences: Differences


@dataclass(frozen=True, slots=True)
class Match:
    """How the result comes about: objects first, then the rest.

    Attributes:
        step: the whole result.
        reads: those steps in it that need a tensor, in the order of the target.
        loads: objects.
    """

    step: Step
    reads: Sequence[Fill | Bytes]
    loads: Sequence[Load]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a caller of restore asked for; `asyncsaver.model.rebuild.plan_restore` explains."""

    selected: Callable[[str], bool]
    dtype: DtypePolicy = None
    strict: bool = True
    reshape: bool = False


def match(tree: ParsedTree, target: object, adapters: Adapters, rules: Rules) -> Match:
    """Find what of the checkpoint goes where in the target. Changes nothing.

    Raises:
        StructureMismatchError: with every difference there is.
        InvalidStateError: the target has a cycle, or two leaves with one name.
        UnsupportedLeafError: a dict of the target has keys that no checkpoint can hold.
    """
    matching = _Matching(tree, adapters, rules)
    step = matching.step(target, None)
    matching.raise_differences()
    return Match(step, matching.reads, matching.loads)


@dataclass(slots=True)
class _Matching:
    tree: ParsedTree
    adapters: Adapters
    rules: Rules
    reads: list[Fill | Bytes] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    _missing: list[str] = field(default_factory=list)
    _unexpected: list[str] = field(default_factory=list)
    _mismatched: list[str] = field(default_factory=list)
    _left: dict[str, Leaf] = field(init=False)  # what nothing in the target has claimed
    _open: OpenContainers = field(default_factory=OpenContainers)

    def __post_init__(self) -> None:
        self._left = dict(self.tree.leaves)

    def step(self, target: Any, name: str | None) -> Step:
        adapter = self.adapters.find(target)
        if adapter is not None or is_plain(target):
            return self._leaf(target, name or BARE_NAME, adapter)
        stateful = is_stateful(target)
        found = None if stateful else contents(target)
        if not stateful and found is None:
            return self._leaf(target, name or BARE_NAME, None)
        self._open.enter(target, name)
        if found is None:
            self._load(target, name)
            made: Step = Given(target)
        else:
            steps: dict[str | int, Step] = {}
            for key, child in found[1]:
                steps[key] = self.step(child, child_name(name, key))
            made = Remake(target, steps)
        self._open.leave(target)
        return made

    def raise_differences(self) -> None:
        if self.rules.strict:
            self._unexpected.extend(filter(self.rules.selected, self._left))
        if not (self._missing or self._unexpected or self._mismatched):
            return
        lines = ["the target does not fit the checkpoint, and nothing was changed"]
        for names, meaning in (
            (self._missing, "missing, only in the target"),
            (self._unexpected, "unexpected, only in the checkpoint"),
            (self._mismatched, "mismatched"),
        ):
            if names:
                lines.append(f"{len(names)} {meaning}:")
                lines.extend(f"  {name}" for name in names[:_SHOWN])
                if len(names) > _SHOWN:
                    lines.append(f"  ... and {len(names) - _SHOWN} more")
        raise StructureMismatchError(
            "\n".join(lines), missing=self._missing, unexpected=self._unexpected, mismatched=self._mismatched
        )

    def _leaf(self, target: Any, name: str, adapter: LeafAdapter | None) -> Step:
        if not self.rules.selected(name):
            return Given(target)
        node = self._left.pop(name, None)
        if node is None:
            if name in self.tree.leaves:
                raise InvalidStateError(f"two leaves of the target are named {name!r}: rename one of them")
            if self.rules.strict:
                self._missing.append(name)
            return Given(target)
        if adapter is not None:
            return self._array(target, node, adapter)
        if isinstance(node, TensorNode):
            if node.kind == "bytes" and (target is None or isinstance(target, bytes)):
                read = Bytes(node)
                self.reads.append(read)
                return read
            return self._mismatch(target, name, f"{_shown(node)} in the checkpoint, {_kind(target)} in the target")
        fitted = fit_value(target, node.value)
        if fitted is None:
            return self._mismatch(target, name, f"{_shown(node)} in the checkpoint, {_kind(target)} in the target")
        return Given(fitted.value)

    def _array(self, target: Any, node: Leaf, adapter: LeafAdapter) -> Step:
        try:
            spec = adapter.describe(target)
        except UnsupportedLeafError as exc:
            return self._mismatch(target, node.name, str(exc))
        if not isinstance(node, TensorNode) or node.kind == "bytes":
            return self._mismatch(target, node.name, f"{_shown(node)} in the checkpoint, {spec} in the target")
        problem = array_problem(node.spec, spec, self.rules.dtype, reshape=self.rules.reshape)
        if problem is not None:
            return self._mismatch(target, node.name, problem)
        read = Fill(node, target, adapter, node.spec if spec == node.spec else spec)  # one of them can be freed
        self.reads.append(read)
        return read

    def _load(self, obj: Any, name: str | None) -> None:
        shown = name or BARE_NAME
        branch = self.tree.root if name is None else self.tree.branches.get(name)
        if not isinstance(branch, BranchNode):
            if not self.rules.selected(shown):
                return
            if shown in self.tree.leaves:
                self._left.pop(shown, None)
                self._mismatch(obj, shown, f"a single leaf in the checkpoint, {_kind(obj)} in the target")
            elif self.rules.strict:
                self._missing.append(shown)
            return
        names = self.tree.names[branch.leaves]
        wanted = [below for below in names if self.rules.selected(below)]
        if not wanted and (names or not self.rules.selected(shown)):
            return
        for below in names:
            self._left.pop(below, None)
        if len(wanted) < len(names):
            self._mismatch(obj, shown, f"only a part of it is selected, but {_kind(obj)} is loaded as a whole")
            return
        state = branch.children[0] if branch.kind == "object" else branch
        differences = self.adapters.check_object(obj, materialise(state, lambda node: node.spec)) or Differences()
        self._mismatched.extend(f"{shown}.{line}" for line in differences.mismatched)
        if self.rules.strict:
            self._missing.extend(f"{shown}.{key}" for key in differences.missing)
            self._unexpected.extend(f"{shown}.{key}" for key in differences.unexpected)
        self.loads.append(Load(shown, obj, state, differences))

    def _mismatch(self, target: Any, name: str, problem: str) -> Given:
        self._mismatched.append(f"{name}: {problem}")
        return Given(target)


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"


def _shown(node: TreeNode) -> str:
    if isinstance(node, ValueNode):
        return _kind(node.value)
    return "bytes" if isinstance(node, TensorNode) and node.kind == "bytes" else str(getattr(node, "spec", node.name))
