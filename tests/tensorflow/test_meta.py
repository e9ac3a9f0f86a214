"""The sidecar: items 58, 59, 101, 132 and 133, with files that TensorFlow wrote."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsaver.errors import CheckpointNotFoundError, ManifestError, StoreError
from asyncsaver.formats.tensorflow import meta_graph
from asyncsaver.formats.tensorflow.meta_graph import Meta, decode_meta, encode_meta
from asyncsaver.formats.tensorflow.saver_def import SaverDef
from asyncsaver.proto.tensorflow_checkpoint_pb2 import MetaGraphDef
from asyncsaver.proto.tensorflow_checkpoint_pb2 import SaverDef as Message
from asyncsaver.tensorflow import export_meta, import_meta, meta_graph_filename
from asyncsaver.tensorflow.definition import make_saver_def, to_proto
from asyncsaver.tensorflow.meta import check_meta_suffix, make_meta

from .golden import GOLDEN, PROBES

ROUNDTRIP = PROBES["graph.meta_roundtrip"]
SIDECARS: dict[str, Any] = json.loads((GOLDEN / "sidecars/golden.json").read_text())
PROGRAM = bytes(range(256)) * 3
WHOLE = Meta(
    program=PROGRAM,
    definition=make_saver_def(name="run", max_to_keep=3, keep_checkpoint_every_n_hours=0.5),
    collections={"words": (b"a", b"", b"\xff"), "numbers": (3, -1, 2**63 - 1), "floats": (0.5, -2.0, float("inf"))},
    nodes={"train_op": ("train", "train_1")},
    graph=b"\x0a\x03\x0a\x01x",
)


async def test_item_132_a_sidecar_of_tensorflow() -> None:
    for name, expected in SIDECARS.items():
        meta = await import_meta(GOLDEN / f"sidecars/{name}.meta")
        values = {
            one: tuple(value.encode("latin-1") if isinstance(value, str) else value for value in found["values"])
            for one, found in expected["collections"].items()
            if found["kind"] not in {"node_list", "any_list"}
        }
        nodes = {
            one: tuple(found["values"])
            for one, found in expected["collections"].items()
            if found["kind"] == "node_list"
        }
        assert (meta.collections, meta.nodes) == (values, nodes)
        assert meta.program == b""
        assert meta.graph is not None
        assert len(meta.graph) == expected["graph_size"]
        assert all(node.encode() in meta.graph for node in expected["nodes"])
        if expected["saver_def"] is None:
            assert meta.definition is None
        else:
            assert meta.definition is not None
            message = text_format.Parse(expected["saver_def"], Message())
            assert to_proto(meta.definition) == message.SerializeToString()


async def test_item_132_a_sidecar_beside_a_checkpoint_of_tensorflow() -> None:
    golden = json.loads((GOLDEN / "meta/golden.json").read_text())
    meta = await import_meta(meta_graph_filename(str(GOLDEN / "meta/model-1000")))
    assert meta.definition == make_saver_def(keep_checkpoint_every_n_hours=10_000)
    kinds = {"bytes_list": bytes, "int64_list": int}
    found = {name: type(next(iter(values))) for name, values in meta.collections.items()}
    expected = {name: kinds[kind] for name, [kind] in golden["collections"].items() if kind != "node_list"}
    assert found == expected
    assert list(meta.nodes) == ["train_op"]
    assert meta.graph is not None
    assert meta.graph in (GOLDEN / "meta/model-1000.meta").read_bytes()


async def test_item_132_a_collection_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    meta = await import_meta(GOLDEN / "sidecars/collections.meta")
    assert meta.unreadable == ("messages",)
    assert "messages" not in meta.collections
    [record] = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.getMessage().endswith(
        "sidecars/collections.meta: Cannot identify data type for collection messages. Skipping."
    )


async def test_item_133_none_where_there_are_no_variables() -> None:
    assert ROUNDTRIP["import_no_vars"] == {"ok": None}
    assert not (await import_meta(GOLDEN / "sidecars/no_variables.meta")).has_variables
    assert (await import_meta(GOLDEN / "sidecars/collections.meta")).has_variables
    assert not make_meta(PROGRAM, collections={"numbers": [1]}).has_variables
    assert make_meta(collections={"variables": [b"w"]}).has_variables
    assert make_meta(saver_def=make_saver_def()).has_variables


@pytest.mark.parametrize("remote", [True, False])
async def test_item_132_any_bytes_beside_a_checkpoint(memory_root: Any, tmp_path: Path, remote: bool) -> None:
    folder = memory_root.url if remote else str(tmp_path / "not/there/yet")
    path = meta_graph_filename(f"{folder}/m-12-?????-of-00002")
    assert path == f"{folder}/m-12.meta"  # 101: one for all shards
    written = await export_meta(path, PROGRAM, saver_def=WHOLE.definition, collections={"words": ["é", b"\xff"]})
    meta = await import_meta(path)
    assert (meta.program, meta.definition) == (PROGRAM, WHOLE.definition)
    assert meta.collections == {"words": ("é".encode(), b"\xff")}
    assert written.collections == {"words": ["é", b"\xff"]}
    await export_meta(path)  # 58: replaced; nothing in it is fine
    assert await import_meta(path) == Meta()
    if not remote:
        assert [one.name for one in (tmp_path / "not/there/yet").glob("[!.]*")] == ["m-12.meta"]


async def test_item_132_in_a_ready_filesystem() -> None:
    filesystem = fsspec.filesystem("memory")
    await export_meta("sidecars/one.meta", PROGRAM, filesystem=filesystem)
    assert (await import_meta("sidecars/one.meta", filesystem=filesystem)).program == PROGRAM


def test_item_059_another_suffix() -> None:
    for suffix in ("meta", "mg", "meta.v2", "Index", "*"):
        assert meta_graph_filename("m-1", check_meta_suffix(suffix)) == f"m-1.{suffix}"
    for suffix in ("", "a/b", "/", "index", "data-00000-of-00001", "a\0"):
        with pytest.raises(ValueError, match="meta_suffix="):
            check_meta_suffix(suffix)
    for wrong in (None, 3, b"meta"):
        with pytest.raises(TypeError, match="meta_suffix must be a str"):
            check_meta_suffix(wrong)


def test_item_132_what_is_written_is_read() -> None:
    assert decode_meta(encode_meta(WHOLE), "m.meta") == WHOLE
    assert decode_meta(encode_meta(Meta()), "m.meta") == Meta()


def test_item_132_the_same_content_gives_the_same_bytes() -> None:
    backwards = Meta(
        PROGRAM,
        WHOLE.definition,
        dict(reversed(WHOLE.collections.items())),  # type: ignore[call-overload]
        WHOLE.nodes,
        WHOLE.graph,
    )
    assert list(backwards.collections) != list(WHOLE.collections)
    assert encode_meta(backwards) == encode_meta(WHOLE)
    small = encode_meta(Meta(b"p", collections={"c": [1]}))
    assert small == b'\xd5\xf3\x18\xad\xc6\xec1"\n\n\x01c\x12\x05\x1a\x03\n\x01\x01\xca\xf3\x18\x01p'


def test_item_132_tensorflow_reads_ours_as_its_own() -> None:
    """Without the fields that it does not know, which it keeps: also when it writes the file again, in its own order."""
    data = encode_meta(WHOLE)
    message = MetaGraphDef.FromString(data)
    again = message.SerializeToString()
    assert again != data  # the checksum is last
    assert decode_meta(again, "m.meta") == WHOLE
    theirs = MetaGraphDef.FromString(data)
    theirs.ClearField("program")
    theirs.ClearField("crc32c")
    assert [field.number for field, _ in theirs.ListFields()] == [2, 3, 4]
    read = decode_meta(theirs.SerializeToString(), "m.meta")
    assert (read.definition, read.collections, read.nodes) == (WHOLE.definition, WHOLE.collections, WHOLE.nodes)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", b"b"], (b"a", b"b")),
        ([1, np.int8(-2)], (1, -2)),
        ([1.5, 2, np.float32(0.25), np.int64(3)], (1.5, 2.0, 0.25, 3.0)),
        ([0.1], (float(np.float32(0.1)),)),
        (np.arange(3), (0, 1, 2)),
        ([float("-inf")], (float("-inf"),)),
    ],
)
def test_item_132_values_of_collections(values: list[Any], expected: tuple[Any, ...]) -> None:
    meta = decode_meta(encode_meta(make_meta(collections={"c": values})), "m.meta")
    assert meta.collections == {"c": expected}
    assert [type(one) for one in meta.collections["c"]] == [type(one) for one in expected]


def test_item_132_empty_collections_are_not_kept() -> None:
    """Nor are they by TensorFlow."""
    assert decode_meta(encode_meta(Meta(collections={"c": []}, nodes={"d": []})), "m.meta") == Meta()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([True], TypeError, "'c' has values of bool"),
        ([1.5, True], TypeError, "'c' has values of bool, float"),
        (["a", 1], TypeError, "'c' has values of int, str"),
        ([None], TypeError, "'c' has values of NoneType"),
        ([[1]], TypeError, "'c' has values of list"),
        ([1j], TypeError, "'c' has values of complex"),
        ("text", TypeError, "'c' must be a list of values, not str"),
        (b"text", TypeError, "'c' must be a list of values, not bytes"),
        ([2**63], ValueError, "'c' has an integer that is no int64"),
        ([-(2**63) - 1], ValueError, "'c' has an integer that is no int64"),
        ([1e39, 1.0], ValueError, "'c' has a number that is no float32"),
    ],
)
async def test_item_132_what_no_collection_can_hold(
    memory_root: Any, values: Any, error: type[Exception], message: str
) -> None:
    """TensorFlow leaves such a collection out, with a warning."""
    with pytest.raises(error, match=message):
        await export_meta(f"{memory_root.url}/m.meta", PROGRAM, collections={"c": values})
    with pytest.raises(CheckpointNotFoundError):
        await import_meta(f"{memory_root.url}/m.meta")


def test_item_132_other_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="program must be bytes, not str"):
        make_meta("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="graph must be bytes, not dict"):
        make_meta(graph={})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="saver_def must specify the save_tensor_name"):
        make_meta(saver_def=SaverDef())
    with pytest.raises(ValueError, match="'c' has both values and nodes"):
        encode_meta(make_meta(collections={"c": [1]}, nodes={"c": ["x"]}))


def test_item_132_more_than_a_message_can_hold() -> None:
    with pytest.raises(ValueError, match="at most 2 GiB"):
        encode_meta(Meta(program=bytes(2**31)))  # zeros take no memory until they are touched


async def test_item_132_a_file_that_is_too_large_is_not_read(memory_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await export_meta(f"{memory_root.url}/m.meta", PROGRAM)
    monkeypatch.setattr("asyncsaver.tensorflow.meta.LARGEST", 500)
    with pytest.raises(ManifestError, match=r"m\.meta: not a MetaGraphDef: 7\d\d bytes are too many"):
        await import_meta(f"{memory_root.url}/m.meta")
    assert meta_graph.LARGEST == 2**31 - 1


@pytest.mark.parametrize("remote", [True, False])
async def test_item_133_a_missing_file(memory_root: Any, tmp_path: Path, remote: bool) -> None:
    folder = memory_root.url if remote else str(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"File does not exist. Received: .*{Path(folder).name}/none\.meta\."):
        await import_meta(f"{folder}/none.meta")
    assert ROUNDTRIP["import_missing_file"]["message"].startswith("File does not exist. Received: ")


async def test_item_133_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.meta").mkdir()
    with pytest.raises((CheckpointNotFoundError, StoreError), match=r"folder\.meta"):
        await import_meta(tmp_path / "folder.meta")
    for path in ("", f"{tmp_path}/", "memory://bucket", f"{tmp_path}/.."):
        with pytest.raises(ValueError, match=r"path of the checkpoint is empty|not the path of a file|is a bucket"):
            await import_meta(path)
        with pytest.raises(ValueError, match=r"path of the checkpoint is empty|not the path of a file|is a bucket"):
            await export_meta(path)
    with pytest.raises(ValueError, match="'s3://bucket/run/' is not the path of a file"):
        await export_meta("s3://key:secret@bucket/run/")


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"\x00\x01 garbage", b"\xff" * 20, b"\x1a\x02", b"\x08\x01", b"\x12\x05abc"]
)
async def test_item_133_garbage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.meta").write_bytes(data)
    with pytest.raises(ManifestError, match=r"bad\.meta: not a MetaGraphDef") as error:
        await import_meta(tmp_path / "bad.meta")
    assert str(tmp_path) in str(error.value)


def test_item_133_a_definition_of_an_unknown_version() -> None:
    with pytest.raises(ManifestError, match=r"m\.meta: a saver of the unknown version 9"):
        decode_meta(b"\x1a\x02\x38\x09", "m.meta")


def test_item_133_ours_cut_anywhere_is_damaged() -> None:
    data = encode_meta(WHOLE)
    for size in range(len(data)):
        with pytest.raises(ManifestError, match=r"m\.meta: "):
            decode_meta(data[:size], "m.meta")


def test_item_133_ours_with_a_bit_that_flipped() -> None:
    """The checksum finds it, or that there is none."""
    for meta in (WHOLE, Meta(definition=WHOLE.definition), Meta()):
        data = encode_meta(meta)
        for bit in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ManifestError, match=r"m\.meta: "):
                decode_meta(bytes(flipped), "m.meta")


async def test_item_132_scopes() -> None:
    definition = make_saver_def(name="model/mine")
    meta = make_meta(
        saver_def=definition,
        collections={"words": ["other", "model/word"]},
        nodes={"train_op": ["model/train", "other/train"], "losses": ["other/loss"]},
        export_scope="model",
    )
    assert meta.definition == make_saver_def(name="mine")
    assert meta.nodes == {"train_op": ("train",), "losses": ()}
    assert meta.collections == {"words": ["other", "model/word"]}  # fixed: in TensorFlow the first is lost
    elsewhere = make_meta(saver_def=definition, export_scope="other")
    assert elsewhere.definition is None
    with pytest.raises(ValueError, match="graph and export_scope cannot both be specified"):
        make_meta(graph=b"", export_scope="model")


async def test_item_132_an_import_scope(memory_root: Any) -> None:
    path = f"{memory_root.url}/m.meta"
    await export_meta(path, saver_def=make_saver_def(), collections={"words": [b"\xff"]}, nodes={"train_op": ["train"]})
    meta = await import_meta(path, "S/")
    assert meta.definition is not None
    expected = text_format.Parse(ROUNDTRIP["scoped_def"], Message())
    assert meta.definition.save_tensor_name == expected.save_tensor_name
    assert meta.definition.filename_tensor_name == expected.filename_tensor_name
    assert meta.definition.restore_op_name == expected.restore_op_name
    assert meta.nodes == {"train_op": ("S/train",)}
    assert meta.collections == {
        "words": (b"\xff",)
    }  # fixed: TensorFlow puts the scope before text, and fails at such bytes
    assert await import_meta(path, "") == await import_meta(path)


async def test_item_132_a_reader_sees_a_whole_sidecar(tmp_path: Path) -> None:
    """Written while it is read, it is the one or the other."""
    path = tmp_path / "m.meta"
    programs = [b"a" * 300_000, b"b" * 10]
    await export_meta(path, programs[0])

    async def write() -> None:
        for number in range(20):
            await export_meta(path, programs[number % 2])

    writing = asyncio.create_task(write())
    while not writing.done():
        assert (await import_meta(path)).program in programs
    await writing


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
values = (
    st.lists(st.binary(max_size=4), min_size=1, max_size=3)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3)
    | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3)
).map(tuple)
metas = st.builds(
    Meta,
    program=st.binary(max_size=50),
    definition=st.none() | st.builds(make_saver_def, max_to_keep=st.integers(0, 100), sharded=st.booleans()),
    collections=st.dictionaries(texts.map("c{}".format), values, max_size=3),
    nodes=st.dictionaries(texts.map("n{}".format), st.lists(texts, min_size=1, max_size=3).map(tuple), max_size=2),
    graph=st.none() | st.binary(max_size=20),
)


@given(metas)
def test_item_132_whatever_it_holds_is_read_as_it_was_written(meta: Meta) -> None:
    data = encode_meta(meta)
    assert decode_meta(data, "m.meta") == meta
    assert encode_meta(decode_meta(data, "m.meta")) == data


@settings(max_examples=300)
@given(metas, st.data())
def test_spoiled_sidecars(meta: Meta, draw: st.DataObject) -> None:
    """Without the checksum, as TensorFlow's are: our error, or something that can be written again."""
    theirs = (GOLDEN / "sidecars/no_variables.meta").read_bytes()
    whole = draw.draw(st.sampled_from([encode_meta(meta)[7:], theirs]))
    at = draw.draw(st.integers(0, len(whole)))
    gone = draw.draw(st.sampled_from([0, 1, 1, 8]))
    data = whole[:at] + draw.draw(st.binary(max_size=4)) + whole[at + gone :]
    try:
        read = decode_meta(data, "m.meta")
    except ManifestError as error:
        assert re.fullmatch(r"m\.meta: .{10,200}", str(error))  # noqa: PT017 - either outcome is fine
    else:
        again = decode_meta(encode_meta(read), "m.meta")
        assert again.program == read.program
        assert again.graph == read.graph
        assert repr(again.collections) == repr({name: one for name, one in read.collections.items() if one})
