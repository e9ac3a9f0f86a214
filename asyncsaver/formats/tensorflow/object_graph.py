"""The object graph of an object-based checkpoint (`tf.train.Checkpoint`): which object has which tensor. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.messages import parse
from asyncsaver.proto.tensorflow_checkpoint_pb2 import TrackableObjectGraph

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The name of the tensor, a string, that holds the graph."""


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
