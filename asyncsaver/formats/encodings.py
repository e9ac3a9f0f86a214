"""What can be protobuf as well as JSON: the state file, and a manifest, as a body beside the record that is its summary.

Protobuf is an extra: it is imported only where it is asked for, or met. Where it is missing then, these functions raise a
`ModuleNotFoundError` that names the extra.
"""

from __future__ import annotations

from types import MappingProxyType, ModuleType

import xxhash

from asyncsaver.errors import ManifestError
from asyncsaver.formats import native
from asyncsaver.model.manifest import Body, Manifest, ManifestFormat, Summary, whole
from asyncsaver.model.names import PROTO_STATE_FILE, STATE_FILE, body_path
from asyncsaver.model.statefile import StateFile

STATE_FILES: MappingProxyType[ManifestFormat, str] = MappingProxyType({"json": STATE_FILE, "proto": PROTO_STATE_FILE})
"""Where the state file of a saver stands."""


def require(manifest_format: ManifestFormat) -> None:
    """Raise `ModuleNotFoundError` if that format cannot be written here."""
    if manifest_format == "proto":
        _proto()


def encode_state(state: StateFile, path: str) -> bytes:
    """A state file, for one of `STATE_FILES`."""
    data: bytes = _proto().encode(state) if path == PROTO_STATE_FILE else native.encode(state)
    return data


def decode_state(data: bytes, path: str) -> StateFile:
    """The inverse of `encode_state`. Raises `ManifestError`."""
    state: StateFile = (_proto() if path == PROTO_STATE_FILE else native).decode_state(data, path)
    return state


def encode_body(manifest: Manifest) -> tuple[bytes, Body]:
    """A manifest as the body of a record, and what that record says of it."""
    data: bytes = _proto().encode(manifest)
    path = body_path(manifest.name, manifest.save_id)
    return data, Body(path, len(data), xxhash.xxh3_128_hexdigest(data))


def decode_body(data: bytes, summary: Summary) -> Manifest:
    """The manifest of which that is the summary.

    The slot of the body is that at which its save wanted to commit; it has committed at a higher one if fences stood there.

    Raises:
        ManifestError: these are not the bytes that the summary is of; or they are damaged, or of another save.
    """
    where = summary.body.path
    if len(data) != summary.body.size:
        raise ManifestError(f"{where}: damaged: has {len(data)} bytes, its record says {summary.body.size}", path=where)
    if xxhash.xxh3_128_hexdigest(data) != summary.body.xxh3_128:
        raise ManifestError(f"{where}: damaged: its checksum is not the one in its record", path=where)
    body: Manifest = _proto().decode_manifest(data, where, name=summary.name, slot=None)
    if (body.save_id, body.step) != (summary.save_id, summary.step) or body.slot > summary.slot:
        raise ManifestError(f"{where}: is the manifest of save {body.save_id[:100]} at slot {body.slot}", path=where)
    return whole(summary, body)


def _proto() -> ModuleType:
    from asyncsaver.formats import proto  # noqa: PLC0415 - an extra

    return proto
