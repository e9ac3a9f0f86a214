"""Whole documents: from the model to bytes and back.

Whatever these functions are given to decode, they raise `ManifestError` and nothing else. The fields ``format`` and ``version``
of the model belong to its JSON: they are not written, and are those of this version in what is read.
"""

from __future__ import annotations

import msgspec

from asyncsaver.errors import ManifestError
from asyncsaver.formats.batches import UNREADABLE, decode_tree
from asyncsaver.formats.proto.envelope import Kind, parse, seal, unseal
from asyncsaver.formats.proto.state import decode_entries, encode_state
from asyncsaver.formats.proto.tensors import decode_tensors, encode_tensors
from asyncsaver.formats.proto.values import (
    Metrics,
    decode_files,
    decode_json,
    decode_time,
    encode_files,
    encode_json,
    encode_time,
)
from asyncsaver.formats.record_checks import check_part, check_record, check_state
from asyncsaver.model.manifest import Json, Manifest, Part
from asyncsaver.model.statefile import StateFile
from asyncsaver.proto import manifest_pb2 as pb


def encode(value: Manifest | Part | StateFile) -> bytes:
    """Any of them as protobuf, sealed.

    Raises:
        ManifestError: a checksum in it is not what such a checksum looks like.
        ValueError, OverflowError: some number is negative, or too large.
    """
    match value:
        case Manifest():
            return seal(Kind.MANIFEST, _manifest(value).SerializeToString())
        case Part():
            return seal(Kind.PART, _part(value).SerializeToString())
        case StateFile():
            return seal(Kind.STATE, encode_state(value))


def decode_manifest(data: bytes, where: str, *, name: str, slot: int | None) -> Manifest:
    """Read a manifest.

    Args:
        data: the document.
        where: it was read from.
        name: of the checkpoint that it must be of.
        slot: at which that stands; None where the document need not say the same.

    Raises:
        ManifestError: its checksum differs; or it is of an unknown version, incomplete, points outside its root, or
            contradicts itself.
    """
    message = parse(pb.Manifest, unseal(data, where, Kind.MANIFEST), where)
    if not message.HasField("created"):
        raise ManifestError(f"{where}: damaged: the field created is missing", path=where)
    manifest = Manifest(
        name=message.name,
        step=message.step if message.HasField("step") else None,
        slot=message.slot,
        created=decode_time(message.created, where),
        writer=message.writer,
        save_id=message.save_id,
        sequence=message.sequence,
        world_size=message.world_size,
        tree=_decode_tree(message.tree, where),
        tensors=decode_tensors(message.tensors, where),
        files=decode_files(message.files),
        total_bytes=message.total_bytes,
        metrics=decode_json(message.metrics or b"{}", where, Metrics),
        metadata=decode_json(message.metadata or b"null", where),
        saver=decode_json(message.saver or b"{}", where, dict[str, Json]),
    )
    check_record(manifest, where, name=name, slot=manifest.slot if slot is None else slot)
    return manifest


def decode_part(data: bytes, where: str) -> Part:
    """Read a rank's part, found at the path ``where``."""
    message = parse(pb.Part, unseal(data, where, Kind.PART), where)
    part = Part(
        save_id=message.save_id,
        rank=message.rank,
        world_size=message.world_size,
        files=decode_files(message.files),
        tensors=decode_tensors(message.tensors, where),
    )
    check_part(part, where)
    return part


def decode_state(data: bytes, where: str) -> StateFile:
    """Read a state file."""
    message = parse(pb.StateFile, unseal(data, where, Kind.STATE), where)
    state = StateFile(
        entries=decode_entries(message.entries, where),
        last_preserved=decode_time(message.last_preserved, where) if message.HasField("last_preserved") else None,
    )
    check_state(state, where)
    return state


def _manifest(manifest: Manifest) -> pb.Manifest:
    return pb.Manifest(
        name=manifest.name,
        step=manifest.step,
        slot=manifest.slot,
        created=encode_time(manifest.created),
        writer=manifest.writer,
        save_id=manifest.save_id,
        sequence=manifest.sequence,
        world_size=manifest.world_size,
        tree=msgspec.json.encode(manifest.tree),
        tensors=encode_tensors(manifest.tensors),
        files=encode_files(manifest.files),
        total_bytes=manifest.total_bytes,
        metrics=encode_json(manifest.metrics, {}),
        metadata=encode_json(manifest.metadata, None),
        saver=encode_json(manifest.saver, {}),
    )


def _part(part: Part) -> pb.Part:
    return pb.Part(
        save_id=part.save_id,
        rank=part.rank,
        world_size=part.world_size,
        files=encode_files(part.files),
        tensors=encode_tensors(part.tensors),
    )


def _decode_tree(text: bytes, where: str) -> Json:
    try:
        return decode_tree(text)
    except UNREADABLE as error:
        raise ManifestError(f"{where}: damaged: the tree: {error}", path=where) from error
