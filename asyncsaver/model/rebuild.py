"""Restoring a state: first a plan of what to read and where to, then the state itself from what was read.

Both steps are pure: between them, somebody else reads and verifies the tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from asyncsaver.errors import ManifestError, StructureMismatchError, UnsupportedLeafError
from asyncsaver.model.containers import remade
from asyncsaver.model.dtypes import Array, DType, cast, storage_order
from asyncsaver.model.fit import DtypePolicy, cast_dtype, dtype_policy
from asyncsaver.model.leaves import Adapters, TensorSpec
from asyncsaver.model.match import Bytes, Fill, Given, Load, Match, Rules, Step, match
from asyncsaver.model.materialise import materialise
from asyncsaver.model.nodes import Node
from asyncsaver.model.parse import BranchNode, ParsedTree, TensorNode, TreeNode, parse_tree
from asyncsaver.model.select import Select, selector

MISSING: Final = object()
"""No target: the state is restored as plain containers. (None is a state, too.)"""


class TensorRead(msgspec.Struct, frozen=True, gc=False):
    """One tensor to read, whole.

    Attributes:
        name: of the tensor in the checkpoint.
        dtype: as stored, little-endian.
        shape: as stored.
        destination: memory of the target with this dtype (byte order aside) and this shape; None where there is none, or where
            the state is to be read whole first.
        passing: the data are copied from where they are read to, so that may be memory that several tensors share.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    destination: Array | None = None
    passing: bool = False

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def direct(self) -> bool:
        """Whether the stored bytes can be read straight into `destination`."""
        return (
            self.destination is not None
            and self.destination.flags.c_contiguous
            and self.destination.dtype == self.dtype
        )


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What to read, and how the state comes about from it.

    Attributes:
        reads: each tensor once, in the order of the tree.
        nbytes: of all reads.
    """

    reads: Sequence[TensorRead]
    nbytes: int
    _build: Callable[[dict[str, Array]], Any]

    def build(self, arrays: dict[str, Array]) -> Any:
        """Make the state. To be called once, when everything is read and verified; may block, so call it in a thread.

        First all objects load their states, then the arrays of the target get theirs, then the containers are made.

        Args:
            arrays: for each read its data: an array of `TensorRead.dtype` and `TensorRead.shape` that is handed over,
                or `TensorRead.destination` itself where that was filled directly. Those that were copied are taken out, so
                that their memory comes back.

        Raises:
            StructureMismatchError: an object's ``load_state_dict`` failed (that error is the cause). No array outside
                of objects was assigned by then; the message names the objects that had loaded their states.
            ManifestError: a tensor of an object is of a kind and a dtype that do not go together.
        """
        return self._build(arrays)


def plan_restore(
    tree: Node,
    tensors: Mapping[str, TensorSpec],
    adapters: Adapters,
    *,
    target: Any = MISSING,
    select: Select | None = None,
    dtype: object = None,
    strict: bool = True,
    reshape: bool = False,
    held: int = 0,
) -> RestorePlan:
    """Plan a restore, and check all that can be checked before anything is read or touched.

    Without a target, the state is made of dicts, lists and tuples, NumPy arrays and plain values; see `materialise`.
    With one, the result has the target's containers (new ones) and leaves: arrays are filled in place where their
    memory can be written, objects load their state in place, and everything else is new. Plain values are the
    checkpoint's.

    Args:
        tree: the tree of the manifest.
        tensors: what the manifest says of its tensors.
        adapters: for the arrays of the target and of objects' states.
        target: what to restore into.
        select: which leaves; see `asyncsaver.model.select`. Those of a target that are not selected keep their value.
            An object of the target is loaded as a whole: selecting a part of it is a mismatch.
        dtype: a floating dtype casts all floating tensors; ``"target"`` casts each tensor to the dtype of its target,
            as far as NumPy's ``same_kind`` rule goes. Otherwise dtypes have to agree.
        strict: False keeps the target's value for what the checkpoint lacks and ignores what the target lacks. Shapes
            and dtypes have to agree all the same.
        reshape: also accept another shape with as many elements, filled in C order.
        held: a state of up to this many bytes is read whole before the target is touched: no read has a destination.

    Raises:
        StructureMismatchError: the target does not fit, or the selection selects nothing.
        ManifestError: the tree is damaged.
        InvalidStateError: the target has a cycle, two leaves with one name, or unsupported keys.
        TypeError, ValueError: a wrong ``dtype`` or ``select``.
    """
    policy = dtype_policy(dtype, has_target=target is not MISSING)
    parsed = parse_tree(tree, tensors)
    empty = [name for name, branch in parsed.branches.items() if branch.leaves.start == branch.leaves.stop]
    selected = selector(select, [*parsed.names, *empty])
    if target is MISSING:
        return _plan_without_target(parsed, None if select is None else selected, policy)
    matched = match(parsed, target, adapters, Rules(selected, policy, strict, reshape))
    return _plan_with_target(matched, adapters, policy, held)


def _plan_without_target(tree: ParsedTree, selected: Callable[[str], bool] | None, policy: DtypePolicy) -> RestorePlan:
    wanted = [leaf for leaf in tree.leaves.values() if selected is None or selected(leaf.name)]
    reads = [_read(leaf) for leaf in wanted if isinstance(leaf, TensorNode)]

    def build(arrays: Mapping[str, Array]) -> Any:
        return materialise(tree.root, lambda node: _value(node, arrays, policy, None), selected)

    return RestorePlan(reads, _nbytes(reads), build)


def _plan_with_target(matched: Match, adapters: Adapters, policy: DtypePolicy, held: int) -> RestorePlan:
    reads = [_read(node) for load in matched.loads for node in _tensor_nodes(load.state)]
    nbytes = _nbytes(reads) + sum([step.node.spec.nbytes for step in matched.reads])
    step, loads = matched.step, matched.loads
    destinations: dict[str, Array] = {}
    if nbytes <= held:
        reads.extend(map(_held, matched.reads))
    else:
        reads = _without_overlaps([*reads, *map(_straight, matched.reads)])
        destinations = {read.name: read.destination for read in reads if read.destination is not None}

    def build(arrays: dict[str, Array]) -> Any:
        def tensor(node: TensorNode) -> Any:
            return _value(node, arrays, policy, adapters)

        states = [materialise(load.state, tensor) for load in loads]
        for index, (load, state) in enumerate(zip(loads, states, strict=True)):
            _load(load, state, [earlier.name for earlier in loads[:index]])
        return _assemble(step, arrays, destinations)

    return RestorePlan(reads, nbytes, build)


def _nbytes(reads: Sequence[TensorRead]) -> int:
    return sum([read.nbytes for read in reads])


def _read(node: TensorNode, destination: Array | None = None) -> TensorRead:
    return TensorRead(node.tensor, node.spec.dtype, node.spec.shape, destination)


def _value(node: TensorNode, arrays: Mapping[str, Array], policy: DtypePolicy, adapters: Adapters | None) -> Any:
    """A tensor as a new leaf: of the kind that was saved where adapters are given, else a NumPy array."""
    array = arrays[node.tensor]
    if node.kind == "bytes":
        return array.tobytes()
    array = cast(array, cast_dtype(node.spec.dtype, policy))
    adapter = adapters.by_kind(node.kind) if adapters is not None else None
    if adapter is None:
        return array
    try:
        return adapter.from_numpy(array)
    except UnsupportedLeafError as exc:
        raise ManifestError(f"the tree is damaged at {node.name!r}: {exc}") from exc


def _tensor_nodes(node: TreeNode) -> list[TensorNode]:
    found: list[TensorNode] = []
    rest = [node]
    while rest:
        current = rest.pop()
        if isinstance(current, BranchNode):
            rest.extend(reversed(current.children))
        elif isinstance(current, TensorNode):
            found.append(current)
    return found


def _held(step: Fill | Bytes) -> TensorRead:
    """Read it whole before the target is touched."""
    node = step.node
    passing = isinstance(step, Fill) and step.adapter.writable_view(step.target) is not None
    return TensorRead(node.tensor, node.spec.dtype, node.spec.shape, None, passing)


def _straight(step: Fill | Bytes) -> TensorRead:
    """Read it into the target where that can be."""
    return _read(step.node, _destination(step) if isinstance(step, Fill) else None)


def _destination(fill: Fill) -> Array | None:
    stored = fill.node.spec
    if fill.spec.dtype != stored.dtype and storage_order(fill.spec.dtype) != stored.dtype:
        return None
    view = fill.adapter.writable_view(fill.target)
    if view is None or view.shape == stored.shape:
        return view
    return view.reshape(stored.shape) if view.flags.c_contiguous else None


def _without_overlaps(reads: Sequence[TensorRead]) -> list[TensorRead]:
    """Let no two reads write the same memory directly, as tied weights would: each could see the other's bytes."""
    kept = list(reads)
    starts = [
        (read.destination.__array_interface__["data"][0], index)
        for index, read in enumerate(reads)
        if read.destination is not None and read.direct and read.destination.nbytes
    ]
    end = 0
    for start, index in sorted(starts):
        destination = reads[index].destination
        if start < end or destination is None:
            kept[index] = msgspec.structs.replace(reads[index], destination=None)
        else:
            end = start + destination.nbytes
    return kept


def _load(load: Load, state: Any, loaded: Sequence[str]) -> None:
    left_out, kept = load.differences.unexpected, load.differences.missing
    if left_out or kept:
        own = load.obj.state_dict()
        state = {key: value for key, value in state.items() if key not in left_out} | {key: own[key] for key in kept}
    try:
        load.obj.load_state_dict(state)
    except Exception as exc:  # whatever a foreign method raises means that the state does not fit
        line = f"{load.name}: {type(load.obj).__name__}.load_state_dict failed: {exc}"
        before = f"; already loaded: {', '.join(loaded)}" if loaded else ""
        raise StructureMismatchError(line + before, mismatched=[line]) from exc


def _assemble(step: Step, arrays: dict[str, Array], destinations: Mapping[str, Array]) -> Any:
    if isinstance(step, Fill):  # rather than by patterns, which take as long as copying a small array
        return _filled(step, arrays.pop(step.node.tensor), destinations)
    if isinstance(step, Given):
        return step.value
    if isinstance(step, Bytes):
        return arrays.pop(step.node.tensor).tobytes()
    items: dict[str | int, Any] = {}
    # Steps are let go one by one, with what they hold: freeing them all at once would hold the GIL for long.
    for key in list(step.steps):
        items[key] = _assemble(step.steps.pop(key), arrays, destinations)
    return items if type(step.like) is dict else remade(step.like, list(items.items()))


def _filled(fill: Fill, array: Array, destinations: Mapping[str, Array]) -> Any:
    if destinations and array is destinations.get(fill.node.tensor):
        return fill.target
    if fill.spec != fill.node.spec:
        array = cast(array, storage_order(fill.spec.dtype)).reshape(fill.spec.shape)
    return fill.adapter.fill(fill.target, array)
