"""A manifest as a protobuf body beside its summary: read only as it was written, and as what the summary says it is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import xxhash

from asyncsaver import Saver
from asyncsaver.errors import ManifestError
from asyncsaver.formats import native, proto
from asyncsaver.formats.encodings import STATE_FILES, decode_body, decode_state, encode_body, encode_state
from asyncsaver.model.manifest import Body, Manifest, Record, Summary, summary_of
from asyncsaver.model.statefile import entry_of

from .test_native import ABORTED, DELETED, MANIFEST, NAME, SAVE_ID, STATE, text

DATA, BODY = encode_body(MANIFEST)
SUMMARY = summary_of(MANIFEST, BODY)
WHERE = f"{NAME}/{SAVE_ID}/manifest.pb"


def read(document: bytes) -> Record:
    return native.decode_record(document, name=NAME, slot=2)


def test_a_summary_comes_back_and_with_its_body_makes_the_manifest() -> None:
    document = native.encode(SUMMARY)
    summary = read(document)
    assert isinstance(summary, Summary)
    assert summary == SUMMARY
    assert (json.loads(document)["state"], json.loads(document)["version"]) == ("committed", 2)
    assert summary.body == Body(WHERE, len(DATA), BODY.xxh3_128)
    assert decode_body(DATA, summary) == MANIFEST
    assert not {"tree", "tensors", "files"} & json.loads(document).keys()


def test_it_is_listed_as_the_manifest_would_be() -> None:
    assert entry_of(SUMMARY, '"etag"') == entry_of(MANIFEST, '"etag"')


def test_who_knows_version_1_only_says_that_this_is_unknown() -> None:
    with pytest.raises(
        ManifestError, match="format version 2 is unknown, this asyncsaver reads version 1; a newer one"
    ):
        native._decode(native.encode(SUMMARY), "here", "asyncsaver", {1: Manifest})


@pytest.mark.parametrize("record", [DELETED, ABORTED])
def test_tombstones_and_fences_are_of_version_1_only(record: Record) -> None:
    with pytest.raises(ManifestError, match="damaged"):
        read(text({**json.loads(native.encode(record)), "version": 2}))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"save_id": "../../etc"}, "no save id"), ({"sequence": -1}, "sequence cannot be"), ({"slot": 1}, "at slot 1"),
        ({"metadata": 2**70}, "64 bits"), ({"body": None}, "damaged"), ({"body": {"path": WHERE, "size": 1}}, "xxh3_128"),
        ({"body": {"path": "../x", "size": 1, "xxh3_128": ""}}, "does not stay under the root"),
        ({"body": {"path": f"{NAME}/manifest.pb", "size": 1, "xxh3_128": ""}}, "not in the folder of its save"),
        ({"body": {"path": f"other/{SAVE_ID}/manifest.pb", "size": 1, "xxh3_128": ""}}, "not in the folder of its save"),
        ({"body": {"path": WHERE, "size": -1, "xxh3_128": ""}}, "cannot have -1 bytes"),
        ({"body": {"path": WHERE, "size": 2**63, "xxh3_128": ""}}, "cannot have"),
    ],
)  # fmt: skip
def test_a_summary_that_cannot_be_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ManifestError, match=problem) as caught:
        read(text({**json.loads(native.encode(SUMMARY)), **fields}))
    assert caught.value.path == f"{NAME}/manifest-0002.json"


def test_every_flipped_byte_of_a_body_is_found() -> None:
    for at in range(len(DATA)):
        for bit in (0, 7):
            damaged = DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :]
            with pytest.raises(ManifestError, match="checksum is not the one in its record") as caught:
                decode_body(damaged, SUMMARY)
            assert caught.value.path == WHERE


def test_every_cut_of_a_body_is_found() -> None:
    for data in (*(DATA[:at] for at in range(len(DATA))), DATA + b"\0", DATA * 2):
        with pytest.raises(ManifestError, match=f"has {len(data)} bytes, its record says {len(DATA)}"):
            decode_body(data, SUMMARY)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "ckpt-00000008"}, "record of 'ckpt-00000008'"), ({"step": None}, "is the manifest of save"),
        ({"save_id": f"{SAVE_ID[:-1]}2"}, "is the manifest of save"), ({"slot": 3}, "at slot 3"),
    ],
)  # fmt: skip
def test_the_body_of_another_save_is_not_taken(fields: dict[str, Any], problem: str) -> None:
    data = proto.encode(msgspec.structs.replace(MANIFEST, **fields))
    body = Body(WHERE, len(data), xxhash.xxh3_128_hexdigest(data))
    with pytest.raises(ManifestError, match=problem):
        decode_body(data, msgspec.structs.replace(SUMMARY, body=body))


def test_who_had_to_go_past_a_fence_has_a_body_that_names_the_lower_slot() -> None:
    summary = msgspec.structs.replace(SUMMARY, slot=5)
    assert decode_body(DATA, summary) == msgspec.structs.replace(MANIFEST, slot=5)


def test_anything_else_that_was_committed_as_a_body_is_refused() -> None:
    for data in (b"", b"{}", native.encode(MANIFEST), proto.encode(STATE), DATA[:-1]):
        body = Body(WHERE, len(data), xxhash.xxh3_128_hexdigest(data))
        with pytest.raises(ManifestError):
            decode_body(data, msgspec.structs.replace(SUMMARY, body=body))


def test_a_state_file_comes_back_under_either_name() -> None:
    assert {path: decode_state(encode_state(STATE, path), path) for path in STATE_FILES.values()} == {
        "checkpoint.json": STATE,
        "checkpoint.pb": STATE,
    }
    with pytest.raises(ManifestError):
        decode_state(encode_state(STATE, "checkpoint.json"), "checkpoint.pb")


WITHOUT_PROTOBUF = """
import asyncio, logging, sys
sys.modules["google.protobuf"] = None
from asyncsaver import Saver
try:
    Saver("memory://x", manifest_format="proto")
except ModuleNotFoundError as error:
    assert "asyncsaver[proto]" in str(error), error
else:
    raise AssertionError("constructed")
async def main():
    async with Saver(sys.argv[1], max_to_keep=1) as saver:
        assert [one.step for one in await saver.checkpoints()] == [1]
        try:
            await saver.restore()
        except ModuleNotFoundError as error:
            assert "asyncsaver[proto]" in str(error), error
        else:
            raise AssertionError("restored")
        await saver.save({"n": 2}, step=2)
        assert await saver.restore() == {"n": 2}
        assert [one.step for one in await saver.checkpoints()] == [2]
asyncio.run(main())
"""


def test_without_the_package_only_the_manifest_cannot_be_read(tmp_path: Path) -> None:
    async def save() -> None:
        async with Saver(tmp_path, manifest_format="proto") as saver:
            await saver.save({"n": 1}, step=1)

    asyncio.run(save())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PROTOBUF, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
