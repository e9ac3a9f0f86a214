"""Tensors as columns: a call for each column of thousands of tensors, in place of several for each tensor."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from asyncsaver.errors import ManifestError
from asyncsaver.formats.batches import batches
from asyncsaver.formats.proto.envelope import parse
from asyncsaver.model.manifest import Chunk, TensorEntry
from asyncsaver.proto.manifest_pb2 import Kind, Slice, TensorBatch

_DIGEST = 32  # hex digits

_Whole = tuple[str, tuple[int, ...]]
_Sliced = tuple[tuple[int, ...], tuple[int, ...]]


def encode_tensors(tensors: Mapping[str, TensorEntry]) -> list[bytes]:
    """The tensors of a manifest or part, batch by batch. Raises `ManifestError` for a chunk's checksum that is none."""
    return [_encode(batch) for batch in batches(tensors)]


def decode_tensors(encoded: Iterable[bytes], where: str) -> dict[str, TensorEntry]:
    """The inverse of `encode_tensors`. Raises `ManifestError`."""
    tensors: dict[str, TensorEntry] = {}
    count = 0
    for data in encoded:
        batch = _decode(parse(TensorBatch, data, where), where)
        count += len(batch)
        tensors.update(batch)
    if len(tensors) != count:
        raise ManifestError(f"{where}: damaged: two tensors have one name", path=where)
    return tensors


def _encode(tensors: Mapping[str, TensorEntry]) -> bytes:
    entries = list(tensors.values())
    kinds = [(entry.dtype, entry.shape) for entry in entries]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    whole = {kind: ((0,) * len(kind[1]), kind[1]) for kind in numbers}
    counts = [len(entry.chunks) for entry in entries]
    chunks = [chunk for entry in entries for chunk in entry.chunks]
    slices: dict[_Sliced, int] = {}
    slice_numbers = [
        0 if (where := (chunk.offset, chunk.shape)) == whole[kind] else slices.setdefault(where, len(slices) + 1)
        for kind, entry in zip(kinds, entries, strict=True)
        for chunk in entry.chunks
    ]
    batch = TensorBatch(
        names=list(tensors),
        kinds=[Kind(dtype=dtype, shape=shape) for dtype, shape in numbers],
        kind=[numbers[kind] for kind in kinds],
        chunks=[] if counts == [1] * len(counts) else counts,
        slices=[Slice(offset=offset, shape=shape) for offset, shape in slices],
        slice=slice_numbers if slices else [],
        file=[chunk.file for chunk in chunks],
        start=[chunk.start for chunk in chunks],
        size=[chunk.stop - chunk.start for chunk in chunks],
        xxh3_128=_encode_digests([chunk.xxh3_128 for chunk in chunks]),
    )
    return batch.SerializeToString()


def _decode(batch: TensorBatch, where: str) -> dict[str, TensorEntry]:
    names, kind_numbers, counts = list(batch.names), list(batch.kind), list(batch.chunks)
    starts, sizes, slice_numbers = list(batch.start), list(batch.size), list(batch.slice)
    kinds: list[_Whole] = [(kind.dtype, tuple(kind.shape)) for kind in batch.kinds]
    slices: list[_Sliced] = [(tuple(part.offset), tuple(part.shape)) for part in batch.slices]
    expected = sum(counts) if counts else len(names)
    if (
        len(kind_numbers) != len(names)
        or len(counts) not in {0, len(names)}
        or {len(starts), len(sizes), len(batch.file)} != {expected}
        or len(slice_numbers) not in {0, expected}
        or 2 * len(batch.xxh3_128) != _DIGEST * expected
        or max(kind_numbers, default=-1) >= len(kinds)
        or max(slice_numbers, default=0) > len(slices)
    ):
        raise ManifestError(f"{where}: damaged: the columns of a batch of tensors do not fit together", path=where)

    whole = [((0,) * len(shape), shape) for _, shape in kinds]
    placed = [whole[number] for number in _per_chunk(kind_numbers, counts)]
    if slice_numbers:
        placed = [slices[n - 1] if n else default for n, default in zip(slice_numbers, placed, strict=True)]
    digests = batch.xxh3_128.hex()
    chunks = map(
        Chunk,
        [offset for offset, _ in placed],
        [shape for _, shape in placed],
        batch.file,
        starts,
        map(int.__add__, starts, sizes),
        [digests[at : at + _DIGEST] for at in range(0, len(digests), _DIGEST)],
    )
    together: Iterable[tuple[Chunk, ...]] = zip(chunks)
    if counts:
        together = [tuple(itertools.islice(chunks, count)) for count in counts]
    dtypes, shapes = [kinds[n][0] for n in kind_numbers], [kinds[n][1] for n in kind_numbers]
    tensors = dict(zip(names, map(TensorEntry, dtypes, shapes, together), strict=True))
    if len(tensors) != len(names):
        raise ManifestError(f"{where}: damaged: two tensors have one name", path=where)
    return tensors


def _per_chunk(of_tensors: Sequence[int], counts: Sequence[int]) -> Sequence[int]:
    if not counts:
        return of_tensors
    return [number for number, count in zip(of_tensors, counts, strict=True) for _ in range(count)]


def _encode_digests(digests: Sequence[str]) -> bytes:
    text = "".join(digests)
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if raw.hex() != text or {*map(len, digests)} - {_DIGEST}:
        raise ManifestError("a chunk's checksum is not 32 hexadecimal digits, and cannot be written in protobuf")
    return raw
