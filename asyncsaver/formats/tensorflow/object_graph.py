"""The object graph of an object-based checkpoint (`tf.train.Checkpoint`): which object has which tensor. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from asyncsaver.errors import CheckpointCorruptError, ManifestError, StructureMismatchError
from asyncsaver.formats.tensorflow.messages import parse
from asyncsaver.model.dtypes import Array
from asyncsaver.model.foreign import GRAPH_KEY
from asyncsaver.proto.tensorflow_checkpoint_pb2 import TrackableObjectGraph

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Attribute:
    """A tensor of an object.

    Attributes:
        name: of the attribute: ``VARIABLE_VALUE``.
        full_name: what the variable is called in a graph, and in a name-based checkpoint; may be empty.
        key: what the tensor is called in this checkpoint.
    """

    name: str
    full_name: str
    key: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A variable that an optimizer keeps for another one; both by the positions of their nodes."""

    original: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Node:
    """An object.

    Attributes:
        children: local name → position of its node.
        attributes: its tensors.
        slots: of an optimizer.
    """

    children: Mapping[str, int] = field(default_factory=dict)
    attributes: Sequence[Attribute] = ()
    slots: Sequence[Slot] = ()


def decode_graph_tensor(tensor: Array, where: str) -> list[Node]:
    """Read a graph from the tensor that holds it; raises as `decode_graph`."""
    data = tensor.item() if tensor.shape == () else None
    if not isinstance(data, bytes):
        raise ManifestError(f"{where}: {GRAPH_KEY} is not a string", path=where)
    return decode_graph(data, where)


def decode_graph(data: bytes, where: str) -> list[Node]:
    """Read a graph, whose first node is the root.

    Args:
        data: the string that `GRAPH_KEY` is.
        where: path of the checkpoint, for messages.

    Raises:
        ManifestError: it is none, or a node refers to one that there is not.
    """
    try:
        graph = parse(TrackableObjectGraph, data)
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}: {GRAPH_KEY}: {error}", path=where) from error
    nodes = [
        Node(
            {child.local_name: child.node_id for child in node.children},
            [Attribute(one.name, one.full_name, one.checkpoint_key) for one in node.attributes],
            [
                Slot(one.original_variable_node_id, one.slot_name, one.slot_variable_node_id)
                for one in node.slot_variables
            ],
        )
        for node in graph.nodes
    ]
    for node in nodes:
        named = [*node.children.values(), *(number for slot in node.slots for number in (slot.original, slot.node))]
        if not all(0 <= number < len(nodes) for number in named):
            raise ManifestError(f"{where}: {GRAPH_KEY}: a node refers to one that there is not", path=where)
    return nodes


def keys_by_full_name(nodes: Sequence[Node]) -> dict[str, str]:
    """Full name → key: what a name-based saver calls a tensor → what this checkpoint calls it.

    Tensors without a full name (a counter of Python's, say) are not in it: nothing name-based refers to them. Of several with
    one full name the last counts, as in TensorFlow.
    """
    return {one.full_name: one.key for node in nodes for one in node.attributes if one.full_name}


def ambiguous_names(nodes: Sequence[Node]) -> dict[str, list[str]]:
    """Full name → the keys of all tensors that it is the full name of, where these are several; see `keys_by_full_name`."""
    found: dict[str, dict[str, None]] = {}
    for node in nodes:
        for one in node.attributes:
            if one.full_name:
                found.setdefault(one.full_name, {})[one.key] = None
    return {name: list(keys) for name, keys in found.items() if len(keys) > 1}


def checkpoint_keys(names: Iterable[str], names_to_keys: Mapping[str, str]) -> dict[str, str]:
    """What an object-based checkpoint calls the tensors that a program calls so.

    Args:
        names: full names, all of which have to be there.
        names_to_keys: full name → key, of the checkpoint.

    Raises:
        StructureMismatchError: some are not in the checkpoint; lists them, those that only the checkpoint has, and how many did
            match.
    """
    wanted = list(dict.fromkeys(names))
    if missing := sorted(name for name in wanted if name not in names_to_keys):
        raise names_mismatch(missing, sorted(names_to_keys.keys() - set(wanted)), len(wanted) - len(missing))
    return {name: names_to_keys[name] for name in wanted}


def names_mismatch(missing: Sequence[str], unexpected: Sequence[str], matched: int) -> StructureMismatchError:
    """The error for full names that a checkpoint lacks, with the words that TensorFlow has for it.

    Args:
        missing: that are wanted and not in the checkpoint.
        unexpected: in the checkpoint and not wanted.
        matched: how many are in both.
    """
    return StructureMismatchError(
        f"Existing variables not in the checkpoint: {_shown(missing)}\n\n"
        f"Variables names when this checkpoint was written which don't exist now: {_shown(unexpected)}\n\n"
        f"({matched} variable name(s) did match)\n\n"
        "Could not find some variables in the checkpoint (see names above), and nothing was changed. It is an object-based "
        "checkpoint (tf.train.Checkpoint, tf.keras.Model.save_weights), whose variables are looked up by the names that they "
        "had when it was written; these may have changed since (a missing '_1' suffix, for example). Restore only those that "
        "it has, call them as they were called then, or call them by its keys, as object_graph_key_mapping tells them.",
        missing=missing,
        unexpected=unexpected,
    )


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
