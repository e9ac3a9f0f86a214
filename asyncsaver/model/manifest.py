"""The records that can stand at a slot, and the parts they are merged from. Data only; `formats` puts them into bytes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

Utc = Annotated[datetime, msgspec.Meta(tz=True)]
VERSION = 1
SUMMARY_VERSION = 2
"""Of the records whose tree, tensors and files stand elsewhere."""
FORMAT = "asyncsaver"
LARGEST = 2**63 - 1
"""No count, size or number of bytes in a record is larger: NumPy takes no more, and not every JSON encoder does."""
ManifestFormat = Literal["json", "proto"]
"""How a manifest is written: as the record itself, or as a protobuf body beside a record that is its summary."""
Json = Any
"""A JSON value as `msgspec` decodes it: None, bool, int, float, str, list or dict with str keys."""


class FileEntry(msgspec.Struct, frozen=True, gc=False):
    """One file of a checkpoint.

    Attributes:
        path: relative to the root.
        size: in bytes.
        crc32c: of the whole file, eight hex digits.
    """

    path: str
    size: int
    crc32c: str


class Chunk(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A rectangular slice of a tensor, contiguous in one file. Written as a JSON array in this order.

    Attributes:
        offset: of its first element in the tensor, per axis.
        shape: elements per axis.
        file: position in the list of files of the manifest or part.
        start: first byte in that file.
        stop: one past the last byte.
        xxh3_128: of those bytes, 32 hex digits.
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    file: int
    start: int
    stop: int
    xxh3_128: str


class TensorEntry(msgspec.Struct, frozen=True, gc=False):
    """A tensor: its true dtype (a name that `model.dtypes` knows), its shape, and the chunks that cover it once.

    The chunks are a tuple because the garbage collector, other than with a list, soon need not look at it any more.
    """

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank has written in one save."""

    format: str = "asyncsaver-part"
    version: int = VERSION
    save_id: str
    rank: int
    world_size: int
    files: list[FileEntry]
    tensors: dict[str, TensorEntry]


class _Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="state"):
    format: str = FORMAT
    version: int = VERSION
    name: str
    step: int | None
    slot: int
    created: Utc
    writer: str


class Manifest(_Record, frozen=True, kw_only=True, tag="committed"):
    """A committed checkpoint.

    Attributes:
        name: the checkpoint's name, which is also its folder.
        step: None where it was saved without one.
        slot: the slot it was committed at.
        save_id: the attempt that wrote it.
        sequence: grows with every commit under the root, so that "newest" needs no clock.
        created: when the attempt began to commit, UTC.
        tree: the nested structure with its plain values (see `model.flatten`).
        total_bytes: the sum of the sizes of its files.
        metrics: finite numbers as such, others as "nan", "inf", "-inf".
        metadata: the user's JSON.
        saver: the arguments of the saver that matter for reading on.
    """

    save_id: str
    sequence: int
    world_size: int
    tree: Json
    tensors: dict[str, TensorEntry]
    files: list[FileEntry]
    total_bytes: int
    metrics: dict[str, int | float | str] = {}
    metadata: Json = None
    saver: dict[str, Json] = {}


class Body(msgspec.Struct, frozen=True):
    """The object that holds a manifest, where the record at the slot is but its summary.

    Attributes:
        path: relative to the root, under the save id.
        size: in bytes.
        xxh3_128: of these bytes, 32 hex digits.
    """

    path: str
    size: int
    xxh3_128: str


class Summary(_Record, frozen=True, kw_only=True, tag="committed"):
    """A committed checkpoint, whose tree, tensors and files stand in a body of their own; the other fields are a `Manifest`'s."""

    version: int = SUMMARY_VERSION
    save_id: str
    sequence: int
    world_size: int
    total_bytes: int
    body: Body
    metrics: dict[str, int | float | str] = {}
    metadata: Json = None
    saver: dict[str, Json] = {}


class Deleted(_Record, frozen=True, kw_only=True, tag="deleted"):
    """A tombstone: stands where a manifest stood, and lists what is to be deleted."""

    save_id: str
    files: list[str]


class Aborted(_Record, frozen=True, kw_only=True, tag="aborted"):
    """A fence: the attempts it condemns can never commit."""

    condemned: list[str]


CommitRecord = Manifest | Summary
"""What stands at a slot when a checkpoint is committed there."""
Record = CommitRecord | Deleted | Aborted


def summary_of(manifest: Manifest, body: Body) -> Summary:
    """What is to stand at the slot for a manifest that has been written as a body."""
    shared = {name: getattr(manifest, name) for name in _SHARED}
    return Summary(body=body, **shared)


def whole(summary: Summary, body: Manifest) -> Manifest:
    """The manifest of a checkpoint: what its summary says, and the tree, the tensors and the files of its body."""
    shared = {name: getattr(summary, name) for name in _SHARED}
    return Manifest(tree=body.tree, tensors=body.tensors, files=body.files, **shared)


_SHARED = tuple(sorted({*Summary.__struct_fields__} - {"version", "body"}))
