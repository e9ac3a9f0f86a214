"""The index of a V2 checkpoint: a table of where each tensor is, or each slice of one. Pure, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.block import Entries
from asyncsaver.formats.tensorflow.checksum import mask, unmask
from asyncsaver.formats.tensorflow.messages import Shape, check_versions, parse, shape_message, slice_message, slice_of
from asyncsaver.formats.tensorflow.ordered_code import Slice, parse_slice_key, slice_key
from asyncsaver.formats.tensorflow.table import read_block, read_footer, read_index, read_table, write_table
from asyncsaver.proto.tensorflow_checkpoint_pb2 import BundleEntryProto, BundleHeaderProto, TensorShapeProto, VersionDef

_MOST_SHARDS = 99_999  # five digits in the names of the files


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Where the bytes of a tensor, or of one slice of it, are.

    Attributes:
        dtype: TensorFlow's number of it.
        shape: of the tensor or the slice.
        shard: which data file.
        offset: first byte in that file.
        size: in bytes.
        crc32c: of those bytes, not masked.
        slices: of a tensor that is stored in slices, which. Only dtype and shape mean something then.
        unknown_rank: whether it says that it has no shape.
    """

    dtype: int
    shape: Shape
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc32c: int = 0
    slices: tuple[Slice, ...] = ()
    unknown_rank: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says.

    Attributes:
        shards: how many data files there are.
        entries: by name of the tensor.
        slices: by name and slice, of the tensors that are stored so.
        big_endian: how the data are stored.
        damaged: names whose entries cannot be read, and why.
    """

    shards: int
    entries: dict[str, Entry]
    slices: dict[tuple[str, Slice], Entry] = field(default_factory=dict)
    big_endian: bool = False
    damaged: dict[str, str] = field(default_factory=dict)


def data_path(prefix: str, shard: int, shards: int) -> str:
    """Where a data file of a checkpoint is."""
    return f"{prefix}.data-{shard:05d}-of-{shards:05d}"


def index_path(prefix: str) -> str:
    """Where the index of a checkpoint is."""
    return f"{prefix}.index"


def decode_index(data: bytes, where: str) -> Index:
    """Read an index.

    Args:
        data: the file.
        where: its path, for messages.

    Raises:
        ManifestError: it is damaged as a whole, or not for this reader. An entry damaged by itself is in `Index.damaged`.
    """
    table = read_table(data, where)
    if not table.keys or table.keys[0]:
        raise ManifestError(f"{where}: the index has no header", path=where)
    try:
        index = _decode_header(table.values[0])
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}: {error}", path=where) from error
    decode = _EntryDecoder().decode
    for position in range(1, len(table.keys)):
        key = table.keys[position]
        try:
            name, extents = (key.decode(), None) if key[0] else _slice_name(key)
        except (CheckpointCorruptError, UnicodeDecodeError) as error:
            raise ManifestError(f"{where}: the name {key[:100]!r} cannot be read: {error}", path=where) from error
        try:
            entry = decode(table.values[position])
        except CheckpointCorruptError as error:
            index.damaged[name] = str(error)
            continue
        if extents is None:
            index.entries[name] = entry
        else:
            index.slices[name, extents] = entry
    return index


def decode_shards(data: bytes, where: str) -> int:
    """How many data files an index says that there are; reads no more of it. Raises `ManifestError` as `decode_index`."""
    start, stop = read_footer(data, len(data), where)
    entries = Entries()
    for first, end in read_index(data[start:stop], start, where).ranges[:1]:
        read_block(data[first:end], first, where, entries)
    if not entries.keys or entries.keys[0]:
        raise ManifestError(f"{where}: the index has no header", path=where)
    try:
        return _decode_header(entries.values[0]).shards
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}: {error}", path=where) from error


def data_sizes(index: Index, prefix: str) -> dict[str, int]:
    """Path → size in bytes of the data files, if nothing stands in them but what the index says, and no gap is at the end."""
    sizes: dict[str, int] = {}
    for entry in (*index.entries.values(), *index.slices.values()):
        if not entry.slices:
            path = data_path(prefix, entry.shard, index.shards)
            sizes[path] = max(sizes.get(path, 0), entry.offset + entry.size)
    return sizes


def encode_index(index: Index) -> bytes:
    """The file of an index, byte for byte as TensorFlow writes it."""
    return b"".join(write_table(_entries(index)))


def _slice_name(key: bytes) -> tuple[str, Slice]:
    name, extents = parse_slice_key(key)
    return name.decode(), extents


def _decode_header(data: bytes) -> Index:
    header = parse(BundleHeaderProto, data)
    check_versions(header.version)
    if not 1 <= header.num_shards <= _MOST_SHARDS:
        raise CheckpointCorruptError(f"it says that there are {header.num_shards} data files")
    if header.endianness not in {0, 1}:
        raise CheckpointCorruptError(f"its data are in an unknown byte order ({header.endianness})")
    return Index(header.num_shards, {}, big_endian=bool(header.endianness))


class _EntryDecoder:
    """Decodes the entries of one index, whose shapes repeat."""

    def __init__(self) -> None:
        self._shapes: dict[bytes, tuple[Shape, bool]] = {}

    def decode(self, data: bytes) -> Entry:
        message = parse(BundleEntryProto, data)
        stored = message.shape
        known = self._shapes.get(stored) or self._decode_shape(stored)
        slices = message.slices
        return Entry(
            message.dtype,
            known[0],
            message.shard_id,
            message.offset,
            message.size,
            unmask(message.crc32c),
            tuple([slice_of(one) for one in slices]) if slices else (),
            known[1],
        )

    def _decode_shape(self, stored: bytes) -> tuple[Shape, bool]:
        message = parse(TensorShapeProto, stored)
        shape = self._shapes[stored] = tuple([dim.size for dim in message.dim]), message.unknown_rank
        return shape


def _entries(index: Index) -> Iterator[tuple[bytes, bytes]]:
    header = BundleHeaderProto(
        num_shards=index.shards, endianness=int(index.big_endian), version=VersionDef(producer=1)
    )
    yield b"", header.SerializeToString()
    keyed = [(name.encode(), entry) for name, entry in index.entries.items()]
    keyed += [(slice_key(name.encode(), extents), entry) for (name, extents), entry in index.slices.items()]
    keyed.sort(key=lambda pair: pair[0])
    for key, entry in keyed:
        message = BundleEntryProto(
            dtype=entry.dtype,
            shape=shape_message(entry.shape, unknown_rank=entry.unknown_rank).SerializeToString(),
            shard_id=entry.shard,
            offset=entry.offset,
            size=entry.size,
            crc32c=0 if entry.slices else mask(entry.crc32c),
            slices=[slice_message(one) for one in entry.slices],
        )
        yield key, message.SerializeToString()
