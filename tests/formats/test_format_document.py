"""docs/format.md is precise enough: a reader written from it alone restores what a saver has saved."""

from __future__ import annotations

import base64
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import ml_dtypes
import numpy as np
import pytest
import xxhash

from asyncsaver import Saver
from asyncsaver.formats import native
from asyncsaver.model.manifest import Aborted, Deleted, Manifest
from asyncsaver.model.statefile import entry_of
from asyncsaver.proto import manifest_pb2

from ..golden.describe import describe  # noqa: TID252 - test folders are no packages
from ..golden.states import EXTENDED, PLAIN, mixed, small  # noqa: TID252 - likewise

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
BLOCK = re.compile(r"^```json (?P<path>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
Array = np.ndarray[Any, np.dtype[Any]]
Json = Any


class Message:
    """A protobuf message as the bytes on storage have it: the number of a field → its values, in order."""

    def __init__(self, data: bytes) -> None:
        self.fields: dict[int, list[Any]] = {}
        at = 0
        while at < len(data):
            tag, at = self.varint(data, at)
            value: Any
            if tag & 7 == 0:
                value, at = self.varint(data, at)
            elif tag & 7 == 5:
                value, at = int.from_bytes(data[at : at + 4], "little"), at + 4
            else:
                assert tag & 7 == 2
                size, at = self.varint(data, at)
                value, at = data[at : at + size], at + size
            self.fields.setdefault(tag >> 3, []).append(value)

    def varint(self, data: bytes, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value, at

    def number(self, field: int, absent: Any = 0) -> Any:
        return self.fields.get(field, [absent])[-1]

    def text(self, field: int) -> str:
        return str(self.fields.get(field, [b""])[-1], "utf-8")

    def messages(self, field: int) -> list[Message]:
        return [Message(data) for data in self.fields.get(field, [])]

    def numbers(self, field: int) -> list[int]:
        """Those of a repeated field, packed or not."""
        found: list[int] = []
        for value in self.fields.get(field, []):
            if isinstance(value, int):
                found.append(value)
                continue
            at = 0
            while at < len(value):
                number, at = self.varint(value, at)
                found.append(number)
        return found


class DocumentReader:
    """Reads a root on a local disk, by docs/format.md and nothing else: no import of asyncsaver is used here."""

    def __init__(self, root: Path, prefix: str = "ckpt") -> None:
        self.root = root
        self.name = re.compile(re.escape(prefix) + r"(?:-(?P<step>[0-9]+))?")

    def newest(self) -> Json:
        found = [self.checkpoint(folder.name) for folder in self.root.iterdir() if self.is_name(folder.name)]
        standing = [record for record in found if record is not None]

        def order(record: Json) -> tuple[int, int, int, str]:
            step = -1 if record["step"] is None else record["step"]
            return record["sequence"], step, record["slot"], record["save_id"]

        return max(standing, key=order, default=None)

    def of_step(self, step: int) -> Json:
        for name in self.root.iterdir():
            match = self.name.fullmatch(name.name)
            if match and self.is_name(name.name) and match["step"] and int(match["step"]) == step:
                return self.checkpoint(name.name)
        return None

    def is_name(self, name: str) -> bool:
        match = self.name.fullmatch(name)
        if match is None:
            return False
        digits = match["step"]
        return digits is None or (int(digits) < 2**63 and digits in {str(int(digits)), f"{int(digits):08d}"})

    def checkpoint(self, name: str) -> Json:
        records = {}
        for file in (self.root / name).iterdir():
            match = re.fullmatch(r"manifest(?:-([0-9]{4,}))?\.json", file.name)
            if match is None:
                continue
            slot = int(match[1] or 0)
            record = self.document(file.read_bytes())
            assert (record["format"], record["version"] in {1, 2}) == ("asyncsaver", True)
            assert (record["name"], record["slot"]) == (name, slot)
            records[slot] = record
        committed = [slot for slot, record in records.items() if record["state"] == "committed"]
        if not committed:
            return None
        record = records[max(committed)]
        return record if record["version"] == 1 else self.with_body(record)

    def with_body(self, record: Json) -> Json:
        data = (self.root / record["body"]["path"]).read_bytes()
        assert len(data) == record["body"]["size"]
        assert xxhash.xxh3_128_hexdigest(data) == record["body"]["xxh3_128"]
        assert data[:8] == b"\x89asvpb\x01\x01"
        assert data[8:24] == xxhash.xxh3_128_digest(data[:8] + data[24:])
        message = Message(data[24:])
        for number, field in ((1, "name"), (6, "save_id")):
            assert message.text(number) == record[field]
        assert message.number(2, None) == record["step"]
        assert message.number(3) <= record["slot"]
        files = [
            {"path": file.text(1), "size": file.number(2), "crc32c": f"{file.number(3):08x}"}
            for file in message.messages(11)
        ]
        tensors = {name: entry for batch in message.messages(10) for name, entry in self.batch(batch)}
        return {**record, "tree": json.loads(message.fields[9][0]), "tensors": tensors, "files": files}

    def batch(self, batch: Message) -> list[tuple[str, Json]]:
        names = [name.decode() for name in batch.fields[1]]
        kinds = [(kind.text(1), kind.numbers(2)) for kind in batch.messages(2)]
        slices = [(part.numbers(1), part.numbers(2)) for part in batch.messages(5)]
        counts = batch.numbers(4) or [1] * len(names)
        placed = iter(batch.numbers(6) or [0] * sum(counts))
        files, starts, sizes = (iter(batch.numbers(number)) for number in (7, 8, 9))
        digests = batch.fields[10][0] if sum(counts) else b""
        hashes = iter([digests[at : at + 16].hex() for at in range(0, len(digests), 16)])
        found = []
        for name, number, count in zip(names, batch.numbers(3), counts, strict=True):
            dtype, shape = kinds[number]
            chunks = []
            for _ in range(count):
                which, start = next(placed), next(starts)
                offset, of_chunk = slices[which - 1] if which else ([0] * len(shape), shape)
                chunks.append([offset, of_chunk, next(files), start, start + next(sizes), next(hashes)])
            found.append((name, {"dtype": dtype, "shape": shape, "chunks": chunks}))
        return found

    def document(self, data: bytes) -> Json:
        assert data[:46] == b'{"checksum":"' + xxhash.xxh3_128_hexdigest(data[46:]).encode() + b'"'
        return json.loads(data)

    def restore(self, manifest: Json) -> Any:
        for file in manifest["files"]:
            data = (self.root / file["path"]).read_bytes()
            assert len(data) == file["size"]
            assert f"{google_crc32c.value(data):08x}" == file["crc32c"]
        assert sum(file["size"] for file in manifest["files"]) == manifest["total_bytes"]
        return self.value(manifest["tree"], manifest)

    def tensor(self, name: str, manifest: Json) -> Array:
        entry = manifest["tensors"][name]
        dtype = self.dtype(entry["dtype"])
        tensor = np.zeros(entry["shape"], dtype)
        covered = np.zeros(entry["shape"], int)
        for offset, shape, file, start, stop, xxh3_128 in entry["chunks"]:
            data = (self.root / manifest["files"][file]["path"]).read_bytes()[start:stop]
            assert xxhash.xxh3_128_hexdigest(data) == xxh3_128
            assert len(data) == math.prod(shape) * dtype.itemsize
            box = tuple(slice(at, at + length) for at, length in zip(offset, shape, strict=True))
            if data:
                tensor[box] = np.frombuffer(data, dtype).reshape(shape)
            covered[box] += 1
        assert (covered == 1).all()
        return tensor

    def dtype(self, name: str) -> np.dtype[Any]:
        if name[0] in "<|":
            return np.dtype(name)
        return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name).newbyteorder("<")

    def value(self, node: Json, manifest: Json) -> Any:
        if not isinstance(node, dict):
            return node
        match node:
            case {"tensor": name}:
                return self.tensor(name, manifest)
            case {"blob": name}:
                return self.tensor(name, manifest).tobytes()
            case {"bytes": text}:
                return base64.b64decode(text)
            case {"int": text}:
                return self.integer(text)
            case {"float": text}:
                return float(text)
            case {"str": text}:
                return base64.b64decode(text).decode("utf-8", "surrogatepass")
            case {"scalar": {"dtype": name, "data": text}}:
                return self.scalar(name, base64.b64decode(text))
            case {"dict": fields} | {"dataclass": fields}:
                return {key: self.value(child, manifest) for key, child in fields.items()}
            case {"items": pairs} | {"ordereddict": pairs} | {"defaultdict": pairs}:
                return {
                    self.integer(key["int"]) if isinstance(key, dict) else key: self.value(child, manifest)
                    for key, child in pairs
                }
            case {"list": nodes}:
                return [self.value(child, manifest) for child in nodes]
            case {"tuple": nodes}:
                return tuple(self.value(child, manifest) for child in nodes)
            case {"namedtuple": fields}:
                return tuple(self.value(child, manifest) for child in fields.values())
            case {"object": state}:
                return self.value(state, manifest)
        raise AssertionError(f"docs/format.md has no node {node}")

    def integer(self, text: str) -> int:
        return int(text, 16) if "x" in text else int(text)

    def scalar(self, name: str, data: bytes) -> Any:
        if name.startswith("<U"):
            return np.str_(data.decode("utf-32-le", "surrogatepass"))
        if name.startswith("|S"):
            return np.bytes_(data)
        return np.frombuffer(data, self.dtype(name))[0]


@pytest.mark.parametrize("manifest_format", ["json", "proto"])
async def test_a_reader_written_from_the_document_restores_everything(tmp_path: Path, manifest_format: str) -> None:
    async with Saver(tmp_path, shard_bytes=700, manifest_format=manifest_format) as saver:
        await saver.save(mixed(), step=1)
    reader = DocumentReader(tmp_path)
    manifest = reader.of_step(1)
    assert len(manifest["files"]) > 2
    assert describe(reader.restore(manifest)) == describe(mixed())


async def test_it_finds_the_newest_and_each_step(tmp_path: Path) -> None:
    async with Saver(tmp_path, max_to_keep=3) as saver:
        await saver.save(small(1))
        for step in (5, 9, 7, 8):
            await saver.save(small(step), step=step)
        await saver.save(small(3), step=7, overwrite=True)
        await saver.delete(8)
    reader = DocumentReader(tmp_path)
    newest = reader.newest()
    assert (newest["step"], newest["slot"]) == (7, 1)
    assert describe(reader.restore(newest)) == describe(small(3))
    assert describe(reader.restore(reader.of_step(9))) == describe(small(9))
    assert [reader.of_step(step) for step in (1, 5, 8)] == [None] * 3


@pytest.mark.parametrize(
    ("root", "prefix"),
    [
        ("v1/mixed", "ckpt"),
        ("v1/history", "ckpt"),
        ("v1/overwritten", "ckpt"),
        ("v1/unpadded", "run_1"),
        ("v2/mixed", "ckpt"),
        ("v2/history", "ckpt"),
        ("v2/both", "ckpt"),
    ],
)
def test_it_reads_the_golden_checkpoints(root: str, prefix: str) -> None:
    reader = DocumentReader(GOLDEN / root, prefix)
    expected = json.loads((GOLDEN / f"{root}.expected.json").read_text(encoding="utf-8"))["checkpoints"]
    for checkpoint in expected:
        manifest = reader.checkpoint(checkpoint["name"])
        assert (manifest["save_id"], manifest["slot"]) == (checkpoint["save_id"], checkpoint["slot"])
        assert describe(reader.restore(manifest)) == checkpoint["state"]
    assert reader.newest()["name"] == expected[-1]["name"]


def test_the_reader_uses_nothing_of_asyncsaver() -> None:
    module = vars(sys.modules[__name__])
    classes = (DocumentReader, Message)
    methods = [method.__code__ for one in classes for method in vars(one).values() if hasattr(method, "__code__")]
    used = {name: module[name] for method in methods for name in method.co_names if name in module.keys() - {"Message"}}
    assert {"json", "np", "base64", "xxhash"} <= used.keys()
    origins = {getattr(value, "__module__", None) or getattr(value, "__name__", "") for value in used.values()}
    assert not [origin for origin in origins if origin.startswith("asyncsaver")]


# --- the example -----------------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str]]:
    return [(block["path"], block["text"]) for block in BLOCK.finditer(DOCUMENT.read_text(encoding="utf-8"))]


def example(ending: str) -> tuple[str, bytes]:
    """The first JSON block whose path ends so."""
    return next((path, text.encode()) for path, text in examples() if path.endswith(ending))


def files_of(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def test_the_records_in_the_document_are_records() -> None:
    kinds = []
    for path, text in examples():
        name, _, filename = path.partition("/")
        if filename == "manifest.json":
            kinds.append(type(native.decode_record(text.encode(), name=name, slot=0)))
    assert kinds == [Manifest, Deleted, Aborted]


def test_the_other_files_in_the_document_fit_its_manifest() -> None:
    path, data = example("/manifest.json")
    manifest = native.decode_record(data, name=path.partition("/")[0], slot=0)
    assert isinstance(manifest, Manifest)
    part = native.decode_part(example("part-00000.json")[1], "part")
    assert (part.save_id, part.files, part.tensors) == (manifest.save_id, manifest.files, manifest.tensors)
    [entry] = native.decode_state(example("checkpoint.json")[1], "state").entries
    assert entry == entry_of(manifest, entry.etag)
    index = json.loads(example("model.safetensors.index.json")[1])
    assert index["weight_map"] == dict.fromkeys(manifest.tensors, manifest.files[0].path.rpartition("/")[2])


async def test_the_example_is_what_a_saver_writes(tmp_path: Path) -> None:
    weight, phase = np.array([[1.5, 2.5]], np.float32), np.array([1 + 2j])
    state = {"weight": weight, "phase": phase, "step": 1000, "shape": (1, 2)}
    async with Saver(tmp_path, clock=lambda: 1767225600.0) as saver:
        saved = await saver.save(state, step=1000, metrics={"loss": 0.25}, metadata={"git": "4f2a9c1"})
    random = {saved.save_id: "20260101T000000Z-00c0ffee00c0ffee"}
    files = files_of(tmp_path)
    etag = json.loads(files["checkpoint.json"])["entries"][0]["etag"]
    random[json.dumps(etag)] = json.dumps('"9b2cf535f27731c974343645a3985328"')
    shown = {path: json.loads(text) for path, text in reversed(examples())}
    for path in [path for path in files if path.endswith(".json")]:
        text, shown_path = files.pop(path).decode(), path
        for drawn, instead in random.items():
            text, shown_path = text.replace(drawn, instead), shown_path.replace(drawn, instead)
        written, expected = json.loads(text), shown.pop(shown_path)
        for varies in {
            "writer",
            "checksum",
        } & expected.keys():  # one names the version; one covers what was drawn at random
            written.pop(varies)
            expected.pop(varies)
        assert written == expected
    assert shown.keys() == {"header", "ckpt-00002000/manifest.json"}
    [data] = [data for path, data in files.items() if path.endswith(".safetensors")]
    assert json.loads(data[8:192]) == shown["header"]
    document = DOCUMENT.read_text(encoding="utf-8")
    assert f"has {len(data)} bytes: `{data[:8].hex()}`" in document
    assert f"`{data[192:208].hex()}` (`phase`) and `{data[208:].hex()}` (`weight`)" in document
    assert len(data) == 216


async def test_parts_and_state_files_begin_with_their_checksums(tmp_path: Path) -> None:
    async with Saver(tmp_path) as saver:
        await saver.save(small(1), step=1)
    files = files_of(tmp_path).items()
    reader = DocumentReader(tmp_path)
    documents = [reader.document(data) for path, data in files if path.endswith(".json") and "index" not in path]
    assert sorted(one["format"] for one in documents) == ["asyncsaver", "asyncsaver-part", "asyncsaver-state"]


def test_the_messages_in_the_document_are_those_that_are_written() -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("```proto\n")[2].partition("```\n")[0]
    definition = Path(manifest_pb2.__file__).with_name("manifest.proto")
    assert text == definition.read_text(encoding="utf-8")


def test_the_document_names_every_dtype() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert [name for name in [*PLAIN, *EXTENDED] if f"`{name}`" not in document] == []
