"""The examples of the JSON tests as messages, and ways to change one on its way to a reader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from asyncsaver.formats.proto import decode_manifest, decode_part, decode_state, encode
from asyncsaver.formats.proto.envelope import Kind, seal
from asyncsaver.model.manifest import Manifest
from asyncsaver.proto import manifest_pb2 as pb

from ..test_native import MANIFEST, NAME, PART, STATE  # noqa: TID252 - test folders are no packages

WHERE = f"{NAME}/body"
M = TypeVar("M", bound=Message)


def read(data: bytes) -> Manifest:
    return decode_manifest(data, WHERE, name=NAME, slot=2)


def read_part(data: bytes) -> Any:
    return decode_part(data, "part")


def read_state(data: bytes) -> Any:
    return decode_state(data, "state")


KINDS: dict[Kind, tuple[type[Message], Any, Callable[[bytes], Any]]] = {
    Kind.MANIFEST: (pb.Manifest, MANIFEST, read),
    Kind.PART: (pb.Part, PART, read_part),
    Kind.STATE: (pb.StateFile, STATE, read_state),
}


def message(kind: Kind) -> Any:
    """The example of a kind."""
    return KINDS[kind][0].FromString(encode(KINDS[kind][1])[24:])


def changed(kind: Kind, change: Callable[[Any], object]) -> bytes:
    """The example, changed as a writer would write it: its checksum is right."""
    example = message(kind)
    change(example)
    return seal(kind, example.SerializeToString())


def with_batch(change: Callable[[Any], object]) -> bytes:
    """The manifest with another batch of tensors."""

    def edit(manifest: Any) -> None:
        batch = pb.TensorBatch.FromString(manifest.tensors[0])
        change(batch)
        manifest.tensors[0] = batch.SerializeToString()

    return changed(Kind.MANIFEST, edit)
