"""What JSON carries, messages carry too; and what is refused there is refused here, for the same reason."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats import native
from asyncsaver.formats.proto import encode
from asyncsaver.formats.proto.envelope import Kind, seal
from asyncsaver.formats.proto.values import decode_time, encode_time
from asyncsaver.model.manifest import FileEntry, Manifest
from asyncsaver.model.statefile import StateFile, entry_of

from .. import test_native as of_json  # noqa: TID252 - test folders are no packages
from ..test_native import DOCUMENT, HASH, MANIFEST, PART, manifests, put, text  # noqa: TID252 - likewise
from .messages import KINDS, WHERE, changed, message, read, read_part, read_state

# --- whole ones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_each_comes_back(kind: Kind) -> None:
    _, value, decode = KINDS[kind]
    data = encode(value)
    assert decode(data) == value
    assert encode(decode(data)) == data
    assert len(data) < len(native.encode(value))


def test_an_empty_state_file_comes_back() -> None:
    assert read_state(encode(StateFile())) == StateFile()


@pytest.mark.parametrize("step", [None, 0, 7])
@pytest.mark.parametrize("etag", [None, "", "x"])
@pytest.mark.parametrize("world_size", [0, 1, 9])
def test_nothing_is_not_zero(step: int | None, etag: str | None, world_size: int) -> None:
    entry = msgspec.structs.replace(entry_of(MANIFEST, etag), step=step, world_size=world_size, pinned=True, since=None)
    assert read_state(encode(StateFile(entries=[entry]))) == StateFile(entries=[entry])
    assert read_state(encode(StateFile(entries=[entry]))).last_preserved is None


@given(manifests())
def test_every_manifest_comes_back_as_from_json(manifest: Manifest) -> None:
    decoded = read(encode(manifest))
    assert decoded == manifest == of_json.read(native.encode(manifest))
    assert native.encode(decoded) == native.encode(manifest)  # the order of names, and the kinds of numbers, too
    entry = entry_of(manifest, "e")
    assert read_state(encode(StateFile(entries=[entry]))).entries == [entry]
    part = msgspec.structs.replace(PART, tensors=manifest.tensors, files=manifest.files)
    assert read_part(encode(part)) == part


@given(st.datetimes(), st.integers(-1439, 1439))
def test_every_time_comes_back(naive: datetime, minutes: int) -> None:
    time = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    decoded = decode_time(encode_time(time), "here")
    assert (decoded, decoded.utcoffset()) == (time, time.utcoffset())


@pytest.mark.parametrize("naive", [datetime.min, datetime.max])  # noqa: DTZ901 - they get a zone
@pytest.mark.parametrize("minutes", [-1439, 0, 1439])
def test_the_ends_of_the_calendar_come_back(naive: datetime, minutes: int) -> None:
    time = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert decode_time(encode_time(time), "here") == time


@pytest.mark.parametrize("kind", Kind)
def test_unknown_fields_are_kept_out_of_the_way(kind: Kind) -> None:
    _, value, decode = KINDS[kind]
    later = b"\xfa\x7f\x03abc" + b"\xf0\x7f\x96\x01"  # field 2047, a string; field 2046, an integer
    assert decode(seal(kind, encode(value)[24:] + later)) == value


def test_unknown_fields_of_what_is_inside_too() -> None:
    later = type(message(Kind.MANIFEST).files[0]).FromString(b"\xfa\x7f\x03abc")
    data = changed(Kind.MANIFEST, lambda manifest: manifest.files[0].MergeFrom(later))
    assert b"\xfa\x7f\x03abc" in data
    assert read(data) == MANIFEST


def test_what_was_told_in_utc_is_told_in_utc() -> None:
    assert read(encode(MANIFEST)).created.tzinfo is UTC


# --- what cannot be ----------------------------------------------------------------------------------------------

# Those of the JSON tests that put a value of the right type in the wrong place. The fields format and version are of JSON.
EDITS: list[tuple[Any, str]] = next(
    mark.args[1] for mark in of_json.test_what_is_wrong_is_named.pytestmark if mark.args[0] == ("edit", "problem")
)


def as_models() -> tuple[list[tuple[Manifest, str]], list[Manifest]]:
    """Manifests that messages can hold, with what is wrong about them; and those that they cannot."""
    held: list[tuple[Manifest, str]] = []
    not_held: list[Manifest] = []
    for edit, problem in EDITS:
        try:
            manifest = msgspec.json.decode(text(edit(DOCUMENT)), type=Manifest)
        except msgspec.DecodeError:
            continue
        if (manifest.format, manifest.version) != (MANIFEST.format, MANIFEST.version):
            continue
        try:
            encode(manifest)
        except (ValueError, OverflowError):
            not_held.append(manifest)
        else:
            held.append((manifest, problem))
    return held, not_held


HELD, NOT_HELD = as_models()


def test_most_of_what_can_be_wrong_in_json_can_be_wrong_here() -> None:
    assert len(HELD) >= 25
    assert len(NOT_HELD) >= 10


@pytest.mark.parametrize(("manifest", "problem"), HELD)
def test_what_is_wrong_is_named(manifest: Manifest, problem: str) -> None:
    with pytest.raises(ManifestError, match=problem) as caught:
        read(encode(manifest))
    assert caught.value.path == WHERE
    assert str(caught.value).startswith(WHERE)


def test_a_wrong_tensor_is_on_the_error() -> None:
    manifest = msgspec.json.decode(text(put(*of_json.CHUNK, 0, value=[1, 0])(DOCUMENT)), type=Manifest)
    with pytest.raises(ManifestError) as caught:
        read(encode(manifest))
    assert caught.value.tensors == ("w",)


def clear(*fields: str) -> Any:
    return lambda example: [example.ClearField(field) for field in fields]


def put_field(field: str, value: object) -> Any:
    return lambda example: setattr(example, field, value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (clear("created"), "created is missing"),
        (clear("name"), "is the record of ''"),
        (clear("slot"), "at slot 0"),
        (clear("save_id"), "'' is no save id"),
        (clear("tree"), "damaged: the tree"),
        (clear("files"), "a chunk is in file 0 of 0"),
        (put_field("tree", b"{"), "damaged: the tree"),
        (put_field("tree", b"[" * 100_000), "damaged: the tree"),
        (put_field("tree", b'"\xff"'), "damaged: the tree"),
        (put_field("metrics", b"[]"), "damaged: Expected `object`"),
        (put_field("metrics", b'{"loss":null}'), "damaged"),
        (put_field("metrics", b'{"loss":"low"}'), "could not convert"),
        (put_field("metrics", b'{"loss":' + b"9" * 4000 + b"}"), "too large"),
        (put_field("metadata", b"9" * 4000), "64 bits"),
        (put_field("metadata", b"[" * 100_000), "damaged"),
        (put_field("metadata", b"[" * 200 + b"]" * 200), "nested deeper"),
        (put_field("metadata", b"null null"), "damaged"),
        (put_field("saver", b"1"), "damaged"),
        (put_field("sequence", 2**63), "sequence cannot be"),
        (put_field("step", 8), "record of step 8"),
        (lambda manifest: setattr(manifest.created, "microseconds", 2**62), "no time"),
        (lambda manifest: setattr(manifest.created, "offset_minutes", 2**31 - 1), "no time"),
        (lambda manifest: setattr(manifest.created, "offset_minutes", 1440), "no time"),
        (lambda manifest: setattr(manifest.files[0], "path", "../x"), "does not stay under the root"),
        (lambda manifest: setattr(manifest.files[0], "size", 2**64 - 1), "cannot have"),
        (lambda manifest: manifest.tensors.append(b"\xff"), "damaged"),
        (lambda manifest: manifest.tensors.append(manifest.tensors[0]), "two tensors have one name"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_the_wire_is_named(change: Any, problem: str) -> None:
    with pytest.raises(ManifestError, match=problem) as caught:
        read(changed(Kind.MANIFEST, change))
    assert caught.value.path == WHERE
    assert isinstance(caught.value, CheckpointCorruptError)
    assert len(str(caught.value)) < 10_000


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (put_field("state", 0), "no state that is known"),
        (put_field("state", 4), "no state that is known"),
        (clear("created"), "was not created"),
        (put_field("name", "../other"), "does not stay"),
        (put_field("name", "a/b"), "no record can stand"),
        (clear("name"), "does not stay"),
        (put_field("slot", 2**63), "no record can stand"),
        (put_field("step", 2**63), "cannot be step"),
        (put_field("sequence", 2**63), "sequence cannot be"),
        (put_field("world_size", 2**64 - 1), "world_size cannot be"),
        (put_field("metrics", b'{"a":"b"}'), "could not convert"),
        (put_field("metadata", b"x"), "damaged"),
        (lambda entry: setattr(entry.since, "microseconds", -(2**63)), "no time"),
    ],
)  # fmt: skip
def test_a_damaged_entry_is_refused(change: Any, problem: str) -> None:
    data = changed(Kind.STATE, lambda state: change(state.entries[0]))
    with pytest.raises(ManifestError, match=problem):
        read_state(data)


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", ""])
def test_a_part_may_not_point_outside_its_root(path: str) -> None:
    data = changed(Kind.PART, lambda part: setattr(part.files[0], "path", path))
    with pytest.raises(ManifestError, match="does not stay under the root"):
        read_part(data)


@pytest.mark.parametrize(
    "crc", ["", "0123456", "0123456789", "0123456g", "0123456A", " 1234567", "0x234567", "1_234567"]
)
def test_a_file_without_a_checksum_is_not_written(crc: str) -> None:
    with pytest.raises(ManifestError, match="no CRC-32C"):
        encode(msgspec.structs.replace(PART, files=[FileEntry("a", 1, crc)]))


@pytest.mark.parametrize(
    "digest", ["", HASH[:-1], HASH[:-2], HASH + "00", HASH.upper(), "crc32c:01234567", HASH[:-1] + "g"]
)
def test_a_chunk_without_a_checksum_is_not_written(digest: str) -> None:
    [first, second] = MANIFEST.tensors["w"].chunks
    # Where two are together as long as they should be, each is not.
    chunks = (
        msgspec.structs.replace(first, xxh3_128=digest),
        msgspec.structs.replace(second, xxh3_128=HASH + HASH[len(digest) :]),
    )
    entry = msgspec.structs.replace(MANIFEST.tensors["w"], chunks=chunks)
    with pytest.raises(ManifestError, match="32 hexadecimal digits"):
        encode(msgspec.structs.replace(MANIFEST, tensors={"w": entry}))


# --- without protobuf ----------------------------------------------------------------------------------------------


def test_where_protobuf_is_missing_the_extra_is_named() -> None:
    program = """
import sys
sys.modules["google.protobuf"] = None
import asyncsaver
try:
    import asyncsaver.formats.proto
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "asyncsaver[proto]"' in done.stdout


def test_the_library_does_not_import_protobuf_by_itself() -> None:
    program = (
        "import sys, asyncsaver, json; print(json.dumps([n for n in sys.modules if n.startswith('google.protobuf')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
