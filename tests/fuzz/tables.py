"""TensorFlow's documents as a fuzzer changes them: whole ones to start from, and all that is done with one once it was read."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path

import numpy as np

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.block import BlockWriter, Entries, close_block, find_entry, open_block
from asyncsaver.formats.tensorflow.bundle import decode_index, encode_index
from asyncsaver.formats.tensorflow.checksum import crc32c, mask
from asyncsaver.formats.tensorflow.dtypes import TYPES
from asyncsaver.formats.tensorflow.messages import parse
from asyncsaver.formats.tensorflow.meta_graph import Meta, decode_meta, encode_meta
from asyncsaver.formats.tensorflow.object_graph import GRAPH_KEY, decode_graph, keys_by_full_name
from asyncsaver.formats.tensorflow.ordered_code import FULL, parse_slice_key, slice_key
from asyncsaver.formats.tensorflow.saver_def import SaverDef, decode_saver_def, encode_saver_def
from asyncsaver.formats.tensorflow.snappy import EXPANSION, decompress
from asyncsaver.formats.tensorflow.state_text import decode_state, encode_state
from asyncsaver.formats.tensorflow.strings import StringEncoding, encode_strings
from asyncsaver.formats.tensorflow.table import read_footer, read_index, read_table, write_table
from asyncsaver.formats.tensorflow.v1 import V1File, describe_v1
from asyncsaver.formats.tensorflow.v1_values import FIELDS, decode_values
from asyncsaver.formats.tensorflow.v2 import describe_v2
from asyncsaver.formats.tensorflow.varint import read_varint, unpack_varints
from asyncsaver.model.dtypes import dtype_from_name
from asyncsaver.model.foreign import Foreign
from asyncsaver.proto.tensorflow_checkpoint_pb2 import (
    MetaGraphDef,
    SavedTensorSliceMeta,
    SavedTensorSlices,
    TensorProto,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorflow"
V2 = "v2_single/model.ckpt", "v2_partitioned/model.ckpt", "v2_sharded/model.ckpt-12", "object_based/ckpt-1"
V1 = "v1_single/model.ckpt-v1"
DATA = bytes(range(256)) * 16


def framed(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Entries of a table so that a mutation hits an entry and not its checksum: two lengths before each."""
    return b"".join([struct.pack("<BH", len(key), len(value)) + key + value for key, value in pairs])


def unframed(data: bytes) -> list[tuple[bytes, bytes]]:
    """Whatever entries the data can be taken for."""
    pairs: list[tuple[bytes, bytes]] = []
    position = 0
    while position + 3 <= len(data):
        key, value = struct.unpack_from("<BH", data, position)
        middle = position + 3 + key
        position = middle + value
        pairs.append((data[middle - key : middle], data[middle:position]))
    return pairs


def resealed(data: bytes) -> bytes:
    """The table with the checksums of all blocks made to fit, as far as its footer and its index tell where they are."""
    sealed = bytearray(data)

    def seal(start: int, stop: int) -> None:
        if stop - start >= 5:
            sealed[stop - 4 : stop] = struct.pack("<I", mask(crc32c(bytes(sealed[start : stop - 4]))))

    with contextlib.suppress(ManifestError):
        start, stop = read_footer(data, len(data), "x")
        seal(start, stop)
        for block in read_index(bytes(sealed[start:stop]), start, "x").ranges:
            seal(*block)
    return bytes(sealed)


def use_foreign(foreign: Foreign, data: Callable[[str], bytes]) -> None:
    """Decode every tensor of a description that says it can be read."""
    assert foreign.unreadable.keys() <= foreign.tensors.keys()
    for name, entry in foreign.tensors.items():
        string = entry.dtype == "string"
        dtype = foreign.dtypes[name] if name in foreign.dtypes else None if string else dtype_from_name(entry.dtype)
        assert name in foreign.unreadable or entry.chunks or 0 in entry.shape
        for position, chunk in enumerate(entry.chunks):
            stored = data(foreign.files[chunk.file].path)[chunk.start : chunk.stop]
            assert len(stored) == chunk.stop - chunk.start
            encoding = foreign.encoding(name, position)
            if encoding is None:
                np.frombuffer(stored, dtype).reshape(chunk.shape)
                continue
            with contextlib.suppress(CheckpointCorruptError):
                decoded = encoding.decode(memoryview(stored), dtype or np.dtype(object), chunk.shape)
                assert decoded.shape == chunk.shape


def use_v2(data: bytes) -> None:
    """An index, by its entries."""
    sizes = {"m.data-00000-of-00001": len(DATA), "m.data-00001-of-00002": len(DATA), "m.data-00000-of-00002": 0}
    table = b"".join(write_table(unframed(data)))
    index = decode_index(table, "m.index")
    if not index.damaged:
        again = decode_index(encode_index(index), "m.index")
        assert (again.entries.keys(), again.slices) == (index.entries.keys(), index.slices)
    use_foreign(describe_v2(table, "m", sizes), lambda path: DATA[: sizes[path]])


def use_v1(data: bytes) -> None:
    """A V1 file, by its entries; the first byte chooses how large its blocks are."""
    pairs = unframed(data[1:])
    table = b"".join(write_table(pairs, block_size=1 + 8 * (data[0] if data else 0)))
    start, stop = read_footer(table, len(table), "m")
    blocks = read_index(table[start:stop], start, "m")
    if blocks.ranges:
        first, end = blocks.ranges[0]
        use_foreign(describe_v1([V1File("m", len(table), blocks, table[first:end])], "m"), lambda _: table)


def use_table(data: bytes) -> None:
    """A table as it stands, with checksums that fit."""
    entries = read_table(resealed(data), "m")
    assert entries.keys == sorted(set(entries.keys))
    assert len(entries.keys) == len(entries.values)


def use_block(data: bytes) -> None:
    """A block, read whole and searched. Restart points that lie may lead to what is no entry, but not out of the block."""
    content = open_block(close_block(data))
    entries = Entries()
    entries.read(content)
    for key in entries.keys[:50]:
        with contextlib.suppress(CheckpointCorruptError):
            assert (find_entry(content, key) or b"") in content


def use_snappy(data: bytes) -> None:
    """A compressed block."""
    assert len(decompress(data)) <= EXPANSION * len(data)


def use_state(data: bytes) -> None:
    """The text file of a saver."""
    state = decode_state(data, "checkpoint")
    assert repr(decode_state(encode_state(state), "checkpoint")) == repr(state)  # nan is not itself


def use_saver_def(data: bytes) -> None:
    """The definition of a saver."""
    definition = decode_saver_def(data, "m.meta")
    assert repr(decode_saver_def(encode_saver_def(definition), "m.meta")) == repr(definition)


def use_meta(data: bytes) -> None:
    """A sidecar, whose checksum fits if it has one in the place where we write it."""
    seal = sealed_meta(b"")
    meta = decode_meta(sealed_meta(data[len(seal) :]) if data.startswith(seal[:-4]) else data, "m.meta")
    again = decode_meta(encode_meta(meta), "m.meta")
    kept = {name: values for name, values in meta.collections.items() if values}
    assert (again.program, repr(again.definition), again.graph) == (meta.program, repr(meta.definition), meta.graph)
    assert repr(again.collections) == repr(kept)  # nan is not itself


def sealed_meta(body: bytes) -> bytes:
    """A sidecar as we write it, its checksum first."""
    return MetaGraphDef(crc32c=mask(crc32c(body))).SerializeToString() + body


def use_graph(data: bytes) -> None:
    """An object graph."""
    assert all(keys_by_full_name(decode_graph(data, "m")))


def use_slice_key(data: bytes) -> None:
    """The key of a slice."""
    assert slice_key(*parse_slice_key(data)) == data


def use_varints(data: bytes) -> None:
    """Packed integers: all at once gives what one by one gives."""
    found = unpack_varints(data)
    position = 0
    for value in found.tolist():
        # Of bits beyond the sixty-fourth one says that they are too many, the other drops them, as protobuf does.
        with contextlib.suppress(CheckpointCorruptError):
            assert read_varint(data, position)[0] == value
        position = next(at for at in range(position, len(data)) if data[at] < 0x80) + 1
    assert position == len(data)


def use_strings(data: bytes) -> None:
    """Strings whose lengths have a checksum that fits: the first byte says how many they are, the second in which byte order."""
    count, big = (data[0], bool(data[1] & 1)) if len(data) > 1 else (0, False)
    encoding = StringEncoding(0, big)
    lengths_crc = crc = 0
    with contextlib.suppress(CheckpointCorruptError):
        position, lengths = 2, []
        for _ in range(count):
            length, position = read_varint(data, position)
            lengths.append(length)
        if max(lengths, default=0) < 2**32:
            lengths_crc = crc32c(np.array(lengths, f"{'>' if big else '<'}u4").tobytes())
            stored = struct.pack(f"{'>' if big else '<'}I", mask(lengths_crc))
            data = data[:position] + stored + data[position + 4 :]
            crc = crc32c(data[position + 4 :], crc32c(stored, lengths_crc))
            encoding = StringEncoding(crc, big)
    decoded = encoding.decode(memoryview(data[2:]), np.dtype(object), (count,))
    assert data.endswith(b"".join(decoded))


def use_values(data: bytes) -> None:
    """The elements of a V1 tensor: the first byte is the dtype, the second its only axis."""
    number, size = (sorted(FIELDS)[data[0] % len(FIELDS)], data[1]) if len(data) > 1 else (1, 0)
    message = parse(TensorProto, data[2:])
    decoded = decode_values(message, number, TYPES[number].dtype, (size,))
    assert (decoded.shape, decoded.dtype) == ((size,), TYPES[number].dtype)


USES: Mapping[str, Callable[[bytes], None]] = {
    "v2": use_v2,
    "v1": use_v1,
    "table": use_table,
    "block": use_block,
    "snappy": use_snappy,
    "state": use_state,
    "saver": use_saver_def,
    "meta": use_meta,
    "graph": use_graph,
    "slice-key": use_slice_key,
    "varints": use_varints,
    "strings": use_strings,
    "values": use_values,
}


def whole_documents() -> Iterator[tuple[str, bytes]]:
    """Documents that are well, by kind."""
    for path in V2:
        pairs = entries_of(f"{path}.index")
        yield "v2", framed(pairs[:40])
        table = b"".join(write_table(pairs, block_size=300))
        yield "table", table
        start, stop = read_footer(table, len(table), path)
        yield "block", open_block(table[start:stop])
    for size, pairs in enumerate(v1_files()):
        yield "v1", bytes([size % 40]) + framed(pairs)
    writer = BlockWriter(3)
    for number in range(20):
        writer.add(b"key/%03d" % number, bytes(number))
    yield "block", open_block(writer.finish())
    yield "snappy", b"\x05\x10hello"
    yield "snappy", b"\x41\x00a\xfe\x01\x00"
    yield "state", (GOLDEN / "v2_sharded" / "checkpoint").read_bytes()
    yield "saver", encode_saver_def(SaverDef("save/Const:0", "save/id:0", "save/restore_all", 5, True, 2.5, 2))
    yield "meta", (GOLDEN / "sidecars" / "collections.meta").read_bytes()
    yield (
        "meta",
        encode_meta(Meta(b"program", SaverDef(max_to_keep=5), {"losses": ["a"], "steps": [1], "rates": [0.5]})),
    )
    yield "graph", graph()
    for extents in ((), (FULL,), ((63, 1), FULL), ((-(2**63), 2**63 - 1),)):
        yield "slice-key", slice_key(b"a/\x00\xff", extents)
    yield "varints", b"\x00\x7f\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    yield "strings", b"\x03\x00" + encode_strings([b"", b"one", b"x" * 200])[0]
    yield from (("values", data) for data in v1_values())


def v1_files() -> Iterator[list[tuple[bytes, bytes]]]:
    """The entries of V1 files with a few of the tensors of a golden one."""
    [(_, header), *values] = entries_of(V1)
    whole = SavedTensorSlices.FromString(header)
    listed = {meta.name: meta for meta in whole.meta.tensor}
    small = [(key, value) for key, value in values if len(value) < 500]
    for start in range(0, len(small), 4):
        some = small[start : start + 4]
        names = {SavedTensorSlices.FromString(value).data.name for _, value in some}
        meta = SavedTensorSliceMeta(tensor=[listed[name] for name in sorted(names)], versions=whole.meta.versions)
        yield [(b"", SavedTensorSlices(meta=meta).SerializeToString()), *some]


def v1_values() -> Iterator[bytes]:
    """The elements of the vectors of a golden V1 file, as `use_values` takes them."""
    [(_, header), *values] = entries_of(V1)
    listed = {meta.name: meta for meta in SavedTensorSlices.FromString(header).meta.tensor}
    for _, value in values:
        data = SavedTensorSlices.FromString(value).data
        sizes = [dim.size for dim in listed[data.name].shape.dim]
        if prod(sizes) < 256:
            yield bytes([sorted(FIELDS).index(listed[data.name].type), prod(sizes)]) + data.data.SerializeToString()


def entries_of(path: str) -> list[tuple[bytes, bytes]]:
    """The entries of a golden table."""
    entries = read_table((GOLDEN / path).read_bytes(), path)
    return list(zip(entries.keys, entries.values, strict=True))


def graph() -> bytes:
    """The object graph of a golden checkpoint."""
    prefix = GOLDEN / "object_based" / "ckpt-1"
    index = decode_index(prefix.with_suffix(".index").read_bytes(), "ckpt-1.index")
    entry = index.entries[GRAPH_KEY]
    data = prefix.with_name("ckpt-1.data-00000-of-00001").read_bytes()[entry.offset : entry.offset + entry.size]
    decoded = StringEncoding(entry.crc32c).decode(memoryview(data), np.dtype(object), entry.shape)
    whole: bytes = decoded.reshape(prod(entry.shape))[0]
    return whole
