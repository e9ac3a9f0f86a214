"""Records, parts and the state file as bytes: whole ones come back, anything else is a `ManifestError`."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.batches import LARGE
from asyncsaver.formats.native import decode_part, decode_record, decode_state, encode, seal
from asyncsaver.model.checkpoint import checkpoint_of
from asyncsaver.model.dtypes import dtype_from_name
from asyncsaver.model.manifest import Aborted, Chunk, Deleted, FileEntry, Manifest, Part, Record, TensorEntry
from asyncsaver.model.statefile import Entry, StateFile, entry_of

NAME = "ckpt-00000007"
SAVE_ID = "20260101T000000Z-0000000000000001"
CREATED = datetime(2026, 1, 1, 12, 30, 15, 123456, UTC)
FILE = f"{NAME}/{SAVE_ID}/model-00001-of-00001.safetensors"
COMMON: dict[str, Any] = {"name": NAME, "step": 7, "slot": 2, "created": CREATED, "writer": "asyncsaver 0.1.0"}
HASH = "0123456789abcdef0123456789abcdef"
MANIFEST = Manifest(
    **COMMON, save_id=SAVE_ID, sequence=3, world_size=1, total_bytes=100,
    tree={"dict": {"w": {"tensor": "w"}, "e": {"tensor": "e"}, "n": 5}},
    tensors={
        "w": TensorEntry("float32", (2, 3), (Chunk((0, 0), (1, 3), 0, 64, 76, HASH), Chunk((1, 0), (1, 3), 0, 76, 88, HASH))),
        "e": TensorEntry("<U5", (0,), (Chunk((0,), (0,), 0, 88, 88, HASH),)),
    },
    files=[FileEntry(FILE, 100, "01234567")], metrics={"loss": 0.5, "bad": "nan", "count": 3}, metadata={"git": ["é", None]},
    saver={"prefix": "ckpt"},
)  # fmt: skip
DELETED = Deleted(**COMMON, save_id=SAVE_ID, files=[FILE])
ABORTED = Aborted(**COMMON, condemned=[SAVE_ID])
PART = Part(save_id=SAVE_ID, rank=0, world_size=1, files=MANIFEST.files, tensors=MANIFEST.tensors)
STATE = StateFile(
    entries=[entry_of(MANIFEST, '"etag"'), entry_of(ABORTED, None), entry_of(DELETED, "x")], last_preserved=CREATED
)
Json = Any
Edit = Callable[[Json], Json]


def read(data: bytes) -> Record:
    return decode_record(data, name=NAME, slot=2)


def text(document: Json) -> bytes:
    """A document that is wrong only in what it says: its checksum is right."""
    fields = {key: value for key, value in document.items() if key != "checksum"}
    return seal(json.dumps(fields, separators=(",", ":")).encode())


DOCUMENT: Json = json.loads(encode(MANIFEST))
DOCUMENT.pop("checksum")
DECODERS: list[Callable[[bytes], object]] = [
    read, lambda data: decode_part(data, "c/x/part-00000.json"), lambda data: decode_state(data, "checkpoint.json")
]  # fmt: skip


# --- whole ones ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [MANIFEST, DELETED, ABORTED], ids=["committed", "deleted", "aborted"])
def test_a_record_comes_back(record: Record) -> None:
    data = encode(record)
    assert read(data) == record
    assert json.loads(data)["state"] in {"committed", "deleted", "aborted"}
    assert encode(read(data)) == data


def test_parts_and_state_files_come_back() -> None:
    assert decode_part(encode(PART), "part") == PART
    assert decode_state(encode(STATE), "state") == STATE
    assert decode_state(encode(StateFile()), "state") == StateFile()


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
dtypes = st.sampled_from(["float32", "bfloat16", "complex128", "int4", "<U3", "<M8[ns]", "bool"])


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    tensors, position = {}, 8
    for name in draw(st.lists(texts, max_size=4, unique=True)):
        dtype, shape = draw(dtypes), tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        stop = position + math.prod(shape) * dtype_from_name(dtype).itemsize
        tensors[name] = TensorEntry(dtype, shape, (Chunk((0,) * len(shape), shape, 0, position, stop, HASH),))
        position = stop
    zone = timezone(timedelta(minutes=draw(st.integers(-1439, 1439))))
    return Manifest(
        **{**COMMON, "created": draw(st.datetimes(timezones=st.just(zone)))}, save_id=SAVE_ID,
        sequence=draw(st.integers(0, 2**63 - 1)), world_size=draw(st.integers(1, 9)), tree=draw(texts), tensors=tensors,
        files=[FileEntry(FILE, position, "0" * 8)], total_bytes=position,
        metrics=draw(st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False) | st.just("inf"))),
        metadata=draw(st.lists(st.none() | texts | st.integers(-(2**63), 2**64 - 1), max_size=3)),
        saver=draw(st.dictionaries(texts, st.booleans())),
    )  # fmt: skip


@given(manifests())
def test_every_manifest_comes_back(manifest: Manifest) -> None:
    assert read(encode(manifest)) == manifest
    entry = entry_of(manifest, "e")
    assert decode_state(encode(StateFile(entries=[entry])), "state").entries == [entry]


def test_unknown_fields_are_kept_out_of_the_way() -> None:
    document = {**DOCUMENT, "later": {"deep": [1, 2]}}
    document["files"] = [{**file, "sha256": "x"} for file in document["files"]]
    assert read(text(document)) == MANIFEST


# --- damaged ones ----------------------------------------------------------------------------------------------


def put(*path: str | int, value: Json) -> Edit:
    """An edit that sets one place of the document."""

    def edit(document: Json) -> Json:
        document = json.loads(json.dumps(document))
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return document

    return edit


CHUNK = ("tensors", "w", "chunks", 0)
HUGE = 10**4000


def with_much_more(document: Json) -> Json:
    """The document with so many tensors, and so large a tree, that it is decoded in batches."""
    one = {"dtype": "uint8", "shape": [1], "chunks": [[[0], [1], 0, 64, 65, HASH]]}
    more = {f"more.{number}": one for number in range(8_000)}
    document = copy.deepcopy(document)
    if "tensors" in document:
        document["tensors"] |= more
    if "tree" in document:
        document["tree"] = {
            "dict": {"more": {"dict": {name: {"tensor": name} for name in more}}, "rest": document["tree"]}
        }
    return document


def as_it_is(document: Json) -> Json:
    return document


@pytest.mark.parametrize("size", [as_it_is, with_much_more])
@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (put("format", value="other"), "format is 'other'"),
        (put("format", value="asyncsaver-part"), "format is"),
        (put("format", value=1), "damaged"),
        (put("version", value=3), "version 3 is unknown.*newer"),
        (put("version", value=2), "damaged.*body"),
        (put("version", value=0), "version 0 is unknown"),
        (put("version", value="1"), "damaged"),
        (put("version", value=HUGE), "is unknown"),
        (put("state", value="pending"), "damaged"),
        (put("state", value=None), "damaged"),
        (put("name", value="ckpt-00000008"), "record of 'ckpt-00000008' at slot 2"),
        (put("slot", value=0), "at slot 0"),
        (put("slot", value=HUGE), "at slot 1000"),
        (put("step", value=8), "record of step 8"),
        (put("step", value=-7), "record of step -7"),
        (put("step", value=HUGE), "record of step"),
        (put("step", value=7.5), "damaged"),
        (put("created", value="yesterday"), "damaged"),
        (put("created", value="2026-01-01T00:00:00"), "damaged"),
        (put("save_id", value="../../etc"), "no save id"),
        (put("save_id", value=None), "damaged"),
        (put("sequence", value=-1), "sequence cannot be"),
        (put("sequence", value=2**63), "sequence cannot be"),
        (put("world_size", value=HUGE), "world_size cannot be"),
        (put("total_bytes", value=-5), "total_bytes cannot be"),
        (put("metrics", value={"loss": "low"}), "could not convert"),
        (put("metrics", value={"loss": HUGE}), "too large"),
        (put("metrics", value={"loss": None}), "damaged"),
        (put("metadata", value=HUGE), "64 bits"),
        (put("files", 0, "path", value="../escape"), "does not stay under the root"),
        (put("files", 0, "path", value="/etc/passwd"), "does not stay under the root"),
        (put("files", 0, "path", value="a/../../b"), "does not stay under the root"),
        (put("files", 0, "path", value="a\\..\\b"), "does not stay under the root"),
        (put("files", 0, "size", value=-1), "cannot have -1 bytes"),
        (put("files", 0, "size", value=2**63), "cannot have"),
        (put("files", 0, "size", value=80), "not within"),
        (put("files", value=[]), "a chunk is in file 0 of 0"),
        (put("tensors", "w", "dtype", value="object"), "unknown dtype"),
        (put("tensors", "w", "dtype", value="<U99999999999"), "unknown dtype"),
        (put("tensors", "w", "dtype", value="float64"), "12 bytes cannot be"),
        (put("tensors", "w", "shape", value=[2, -3]), "impossible shape"),
        (put("tensors", "w", "shape", value=[1] * 65), "impossible shape"),
        (put("tensors", "w", "shape", value=[HUGE] * 64), "impossible shape"),
        (put("tensors", "e", "shape", value=[0, 2**62]), "impossible shape"),
        (put("tensors", "w", "shape", value=[3, 3]), "hold 6 of its 9"),
        (put("tensors", "w", "shape", value=[6]), "outside"),
        (put("tensors", "w", "chunks", value=[]), "hold 0 of its 6"),
        (put(*CHUNK, 0, value=[1, 0]), "overlap"),
        (put(*CHUNK, 0, value=[0]), "outside"),
        (put(*CHUNK, 0, value=[0, HUGE]), "outside"),
        (put(*CHUNK, 1, value=[HUGE, HUGE]), "12 bytes cannot be"),
        (put(*CHUNK, 1, value=[-1, -3]), "cannot be"),
        (put(*CHUNK, 2, value=1), "file 1 of 1"),
        (put(*CHUNK, 2, value=-1), "file -1 of 1"),
        (put(*CHUNK, 3, value=-12), "not within"),
        (put(*CHUNK, 4, value=101), "not within"),
        (put(*CHUNK, 4, value=63), "not within"),
        (put(*CHUNK, value=[[0, 0], [1, 3], 0, 64]), "damaged"),
        (put("tensors", "e", "chunks", 0, 0, value=[]), "outside"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(edit: Edit, problem: str, size: Edit) -> None:
    with pytest.raises(ManifestError, match=problem) as caught:
        read(text(size(edit(DOCUMENT))))
    assert caught.value.path == f"{NAME}/manifest-0002.json"
    assert str(caught.value).startswith(caught.value.path)
    assert isinstance(caught.value, CheckpointCorruptError)


def test_a_wrong_tensor_is_on_the_error() -> None:
    with pytest.raises(ManifestError) as caught:
        read(text(put(*CHUNK, 0, value=[1, 0])(DOCUMENT)))
    assert caught.value.tensors == ("w",)


@pytest.mark.parametrize("size", [as_it_is, with_much_more])
@pytest.mark.parametrize(
    "field", [*COMMON, "save_id", "sequence", "world_size", "tree", "tensors", "files", "total_bytes"]
)
def test_a_missing_field_is_damage(field: str, size: Edit) -> None:
    with pytest.raises(ManifestError, match=field):
        read(text(size({key: value for key, value in DOCUMENT.items() if key != field})))


def test_a_large_document_is_read_as_a_small_one() -> None:
    document = with_much_more(DOCUMENT)
    assert len(json.dumps(document["tree"])) > LARGE
    large = read(text(document))
    assert isinstance(large, Manifest)
    assert large == msgspec.json.decode(text(document), type=Manifest)
    part = text(with_much_more(json.loads(encode(PART))))
    assert decode_part(part, "here") == msgspec.json.decode(part, type=Part)
    unknown = {**document, "state": "aborted", "condemned": [SAVE_ID]}  # an aborted record has neither
    assert read(text(unknown)) == ABORTED


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "", "a/./b", "a\nb"])
def test_a_tombstone_may_not_point_outside_its_root(path: str) -> None:
    document = {**json.loads(encode(DELETED)), "files": [path]}
    with pytest.raises(ManifestError, match="does not stay under the root"):
        read(text(document))


@pytest.mark.parametrize(
    "edit",
    [put("files", 0, "path", value="../x"), put("files", 0, "size", value=50), put("tensors", "w", "dtype", value="x"),
     put("version", value=3), put("format", value="asyncsaver")],
)  # fmt: skip
def test_a_damaged_part_is_refused(edit: Edit) -> None:
    with pytest.raises(ManifestError, match=r"^here: "):
        decode_part(text(edit(json.loads(encode(PART)))), "here")


@pytest.mark.parametrize(
    "edit",
    [put("version", value=2), put("format", value="asyncsaver"), put("entries", 0, "name", value="../other"),
     put("entries", 0, "name", value="a/b"), put("entries", 0, "name", value=""), put("entries", 0, "slot", value=-1),
     put("entries", 0, "state", value="kept"), put("entries", 0, "step", value=-1), put("entries", 0, "step", value=2**63),
     put("entries", 0, "sequence", value=HUGE), put("entries", 0, "metrics", value={"a": "x"}),
     put("entries", 0, "created", value="2026-01-01"), put("last_preserved", value="2026-01-01T00:00:00"),
     put("entries", 0, "metadata", value=HUGE), put("entries", value={})],
)  # fmt: skip
def test_a_damaged_state_file_is_refused(edit: Edit) -> None:
    with pytest.raises(ManifestError, match=r"^here: "):
        decode_state(text(edit(json.loads(encode(STATE)))), "here")


HEAD = b'{"format":"asyncsaver","version":1,'
DEEP = 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"null", b"[]", b"5", b'"x"', b"{}", b"{", b"\xff\xfe", b"\x00" * 100, b"PK\x03\x04", HEAD + b'"state":',
        encode(MANIFEST)[:-1], encode(MANIFEST)[: len(encode(MANIFEST)) // 2], encode(MANIFEST) + b"x", encode(MANIFEST) * 2,
        b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, HEAD + b'"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
        HEAD + b'"x":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", b'{"format":' + b'{"a":' * DEEP,
        encode(MANIFEST).replace(b'"tree":', b'"tree":' + b"[" * DEEP), b'{"format":"\\ud800","version":1}',
        encode(MANIFEST).replace(b"git", b"\xc3"), HEAD + b'"slot":' + b"9" * 10_000 + b"}", HEAD + b'"slot":1e999}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("decode", DECODERS, ids=["record", "part", "state"])
def test_what_is_not_one_at_all_is_refused(decode: Callable[[bytes], object], data: bytes) -> None:
    for content in (data, seal(data)):
        with pytest.raises(ManifestError) as caught:
            decode(content)
        assert len(str(caught.value)) < 10_000


# --- anything --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: seal(HEAD + data)))
def test_any_bytes_are_refused_properly(data: bytes) -> None:
    for decode in DECODERS:
        with contextlib.suppress(ManifestError):
            decode(data)


words = st.sampled_from(
    ["", "w", "committed", "deleted", "<U5", "float32", "../x", FILE, SAVE_ID, NAME, HASH, "nan", "\ud7ff"]
)
numbers = st.sampled_from([0, 1, -1, 7, 12, 64, 100, 2**53, 2**63 - 1, 2**63, 2**64, 10**300, -(2**63), 0.5, 1e300])
json_values = st.recursive(
    st.none() | st.booleans() | words | numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def places(document: Json, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for key, value in items for place in [(*at, key), *places(value, (*at, key))]]


@pytest.mark.parametrize(
    ("value", "decode"), [*zip([MANIFEST, PART, STATE], DECODERS, strict=True)], ids=["record", "part", "state"]
)
def test_any_mutation_is_refused_or_harmless(value: Any, decode: Callable[[bytes], Any]) -> None:
    document = json.loads(encode(value))
    document.pop("checksum")

    @given(st.lists(st.tuples(st.sampled_from(places(document)), json_values), min_size=1, max_size=3))
    def mutate(changes: list[tuple[tuple[str | int, ...], Json]]) -> None:
        changed = document
        for place, new in changes:
            with contextlib.suppress(LookupError, TypeError):  # a place that an earlier change has removed
                changed = put(*place, value=new)(changed)
        try:
            decoded = decode(text(changed))
        except ManifestError:
            return
        # What is accepted can be worked with, and written again.
        assert decode(encode(decoded)) == decoded
        if isinstance(decoded, Manifest):
            state = StateFile(entries=[entry_of(decoded, "e")])
            assert decode_state(encode(state), "state") == state
            checkpoint_of(decoded, "s3://x", pinned=False)
            for entry in decoded.tensors.values():
                for chunk in entry.chunks:
                    assert 0 <= chunk.start <= chunk.stop <= decoded.files[chunk.file].size
        elif isinstance(decoded, StateFile):
            state = decoded.with_entries([])
            assert all(isinstance(entry, Entry) and entry.order for entry in state.entries)

    mutate()


def test_a_version_that_was_changed_by_hand_is_named_too() -> None:
    document = seal(b'{"format":"asyncsaver-state","version":1,"entries":[]}').replace(b'"version":1', b'"version":77')
    with pytest.raises(ManifestError, match=r"checksum differs.*version 77, which is unknown"):
        decode_state(document, "checkpoint.json")


def test_a_large_manifest_is_encoded_in_pieces_that_make_up_the_same_bytes() -> None:
    tensors = {
        f'"]]}},{{{number}é': TensorEntry("uint8", (1,), (Chunk((0,), (1,), 0, number, number + 1, HASH),))
        for number in range(10_001)
    }
    for count in (0, 1, 5_000, 5_001, 10_000, 10_001):
        some = dict(list(tensors.items())[:count])
        large = msgspec.structs.replace(MANIFEST, tensors=some, files=[FileEntry(FILE, 20_000, "01234567")])
        assert encode(large) == seal(msgspec.json.encode(large))
        assert read(encode(large)) == large
