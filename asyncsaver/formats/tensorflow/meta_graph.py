"""The sidecar of a checkpoint, ``.meta``: a program, the definition of the saver, and collections. Pure, both ways.

It is a ``MetaGraphDef``, so that TensorFlow reads what it knows of ours, and the other way round. What TensorFlow has no
field for, a program that is no graph of its own, is in a field that it keeps without knowing it. Ours begins with a
checksum: nothing else would tell a file that was cut between two fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.checksum import crc32c, mask
from asyncsaver.formats.tensorflow.messages import parse
from asyncsaver.formats.tensorflow.saver_def import SaverDef, saver_def_message, saver_def_of
from asyncsaver.proto.tensorflow_checkpoint_pb2 import CollectionDef, MetaGraphDef

Values = Sequence[str | bytes] | Sequence[float]
"""Of a collection: text, integers or floats. Text comes back as bytes (UTF-8), floats with the precision of a float32."""

LARGEST = 2**31 - 1
"""Protobuf has no larger messages."""
_TAG = MetaGraphDef(crc32c=0).SerializeToString()[:-4]
_SEALED = len(_TAG) + 4
_VARIABLES = ("variables", "saveable_objects")


@dataclass(frozen=True, slots=True)
class Meta:
    """What stands beside a checkpoint.

    Attributes:
        program: what the tensors are for: an exported model, source code, any bytes. TensorFlow writes none.
        definition: of the saver.
        collections: values by the name of their collection. Empty ones are not kept.
        nodes: collections of parts of TensorFlow's graph (``train_op``), by their names in it.
        graph: TensorFlow's graph, the bytes of a ``GraphDef``.
        unreadable: collections that the file has, and whose values are of a kind that is not known here.
    """

    program: bytes = b""
    definition: SaverDef | None = None
    collections: Mapping[str, Values] = field(default_factory=dict)
    nodes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    graph: bytes | None = None
    unreadable: Sequence[str] = ()

    @property
    def has_variables(self) -> bool:
        """Whether there is something to restore: a definition, or a collection of variables."""
        return self.definition is not None or any(self.collections.get(name) for name in _VARIABLES)


def decode_meta(data: bytes, where: str) -> Meta:
    """Read a sidecar, ours or TensorFlow's.

    Args:
        data: the file.
        where: its path, for messages.

    Raises:
        ManifestError: it is none, or damaged.
    """
    if data.startswith(_TAG) and data[:_SEALED] != _seal(memoryview(data)[_SEALED:]):
        raise _damaged(where)
    try:
        message = parse(MetaGraphDef, data)
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}: {error}, or one written as text", path=where) from error
    if message.HasField("program") and not message.HasField("crc32c"):  # who writes the one writes the other
        raise _damaged(where)
    if not message.ListFields():
        raise ManifestError(f"{where}: not a MetaGraphDef: {len(data)} bytes, and no field of one in them", path=where)
    collections: dict[str, Values] = {}
    nodes: dict[str, Sequence[str]] = {}
    unreadable: list[str] = []
    for name, found in sorted(message.collection_def.items()):
        match found.WhichOneof("kind"):
            case "bytes_list":
                collections[name] = tuple(found.bytes_list.value)
            case "int64_list":
                collections[name] = tuple(found.int64_list.value)
            case "float_list":
                collections[name] = tuple(found.float_list.value)
            case "node_list":
                nodes[name] = tuple(found.node_list.value)
            case _:
                unreadable.append(name)
    return Meta(
        program=message.program,
        definition=saver_def_of(message.saver_def, where) if message.HasField("saver_def") else None,
        collections=collections,
        nodes=nodes,
        graph=b"".join(message.graph_def) if message.graph_def else None,
        unreadable=tuple(unreadable),
    )


def encode_meta(meta: Meta) -> bytes:
    """The file of a sidecar; always the same bytes for the same content.

    Raises:
        TypeError: a collection has values of several kinds, or of one that no sidecar can hold.
        ValueError: a number is too large, a collection is given twice, or all is larger than 2 GiB.
    """
    if len(meta.program) + len(meta.graph or b"") > LARGEST - 2**20:
        raise ValueError("a sidecar holds at most 2 GiB; a larger program is better kept in a file of its own")
    message = MetaGraphDef(program=meta.program, graph_def=[] if meta.graph is None else [meta.graph])
    if meta.definition is not None:
        message.saver_def.CopyFrom(saver_def_message(meta.definition))
    for name, values in meta.collections.items():
        if len(values) > 0:
            message.collection_def[name].CopyFrom(_collection(name, values))
    for name, names in meta.nodes.items():
        if name in message.collection_def:
            raise ValueError(f"the collection {name!r} has both values and nodes; it can have one of them")
        if names:
            message.collection_def[name].CopyFrom(CollectionDef(node_list=CollectionDef.NodeList(value=names)))
    body = message.SerializeToString(deterministic=True)
    return _seal(memoryview(body)) + body


def _seal(body: memoryview) -> bytes:
    """The field that a file begins with whose rest is this."""
    return MetaGraphDef(crc32c=mask(crc32c(body))).SerializeToString()


def _damaged(where: str) -> ManifestError:
    return ManifestError(f"{where}: the sidecar is damaged or cut short: its checksum does not fit", path=where)


def _collection(name: str, values: Sequence[Any]) -> CollectionDef:
    """Values as a message, of the kind that TensorFlow would give them."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"the collection {name!r} must be a list of values, not {type(values).__name__}")
    texts = [one.encode() if isinstance(one, str) else one for one in values if isinstance(one, (str, bytes))]
    if len(texts) == len(values):
        return CollectionDef(bytes_list=CollectionDef.BytesList(value=texts))
    plain = [one for one in values if type(one) is not bool]  # TensorFlow keeps none either: it drops the collection
    integers = [int(one) for one in plain if isinstance(one, Integral)]
    if len(integers) == len(values):
        if not all(-(2**63) <= one < 2**63 for one in integers):
            raise ValueError(f"the collection {name!r} has an integer that is no int64")
        return CollectionDef(int64_list=CollectionDef.Int64List(value=integers))
    numbers = [float(one) for one in plain if isinstance(one, Real)]
    if len(numbers) == len(values):
        largest = float(np.finfo(np.float32).max)
        if any(math.isfinite(one) and abs(one) > largest for one in numbers):
            raise ValueError(f"the collection {name!r} has a number that is no float32")
        return CollectionDef(float_list=CollectionDef.FloatList(value=numbers))
    kinds = ", ".join(sorted({type(one).__name__ for one in values}))
    raise TypeError(
        f"the collection {name!r} has values of {kinds}; a sidecar holds collections of text or bytes, of integers, or of floats"
    )
