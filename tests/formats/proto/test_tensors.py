"""Tensors as columns: any number of them comes back, and columns that do not fit together are damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError
from asyncsaver.formats.batches import BATCH
from asyncsaver.formats.proto import encode
from asyncsaver.formats.proto.tensors import decode_tensors, encode_tensors
from asyncsaver.model.manifest import Chunk, FileEntry, TensorEntry
from asyncsaver.proto.manifest_pb2 import TensorBatch

from ..test_native import FILE, HASH, MANIFEST  # noqa: TID252 - test folders are no packages
from .messages import read, with_batch

sizes = st.integers(0, 2**64 - 1)
shapes = st.lists(sizes, max_size=3).map(tuple)
digests = st.binary(min_size=16, max_size=16).map(bytes.hex)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@st.composite
def entries(draw: st.DrawFn) -> TensorEntry:
    """Tensors of any form: whole, cut into slices, without chunks; whether it is possible is not looked at here."""
    shape = draw(shapes)
    whole = ((0,) * len(shape), shape)
    chunks = []
    for _ in range(draw(st.sampled_from([1, 1, 0, 2, 3]))):
        offset, extent = draw(st.just(whole) | st.tuples(shapes, shapes))
        start = draw(st.integers(0, 2**63))
        chunks.append(Chunk(offset, extent, draw(sizes), start, start + draw(st.integers(0, 2**63)), draw(digests)))
    return TensorEntry(draw(st.sampled_from(["float32", "int4", "<U3", ""])), shape, tuple(chunks))


@given(st.dictionaries(names, entries(), max_size=6))
def test_any_tensors_come_back(tensors: dict[str, TensorEntry]) -> None:
    encoded = encode_tensors(tensors)
    decoded = decode_tensors(encoded, "here")
    assert decoded == tensors
    assert list(decoded) == list(tensors)
    assert encode_tensors(decoded) == encoded


def tensors_of(count: int) -> dict[str, TensorEntry]:
    """Of two kinds, every third one in two slices."""
    made = {}
    for number in range(count):
        at = 8 * number
        if number % 3:
            chunks: tuple[Chunk, ...] = (Chunk((0,), (8,), 0, at, at + 8, f"{number:032x}"),)
            made[f"é{number}"] = TensorEntry("uint8", (8,), chunks)
        else:
            chunks = tuple(Chunk((row, 0), (1, 2), 0, at + 4 * row, at + 4 * row + 4, HASH) for row in range(2))
            made[f"é{number}"] = TensorEntry("int16", (2, 2), chunks)
    return made


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1])
def test_many_come_back_in_batches(count: int) -> None:
    tensors = tensors_of(count)
    manifest = msgspec.structs.replace(MANIFEST, tensors=tensors, files=[FileEntry(FILE, 8 * count, "01234567")])
    decoded = read(encode(manifest))
    assert decoded == manifest
    assert list(decoded.tensors) == list(tensors)
    batches = [TensorBatch.FromString(data) for data in encode_tensors(tensors)]
    assert sum(len(batch.names) for batch in batches) == count
    assert max((len(batch.names) for batch in batches), default=0) <= BATCH


def test_the_same_kinds_and_slices_are_written_once() -> None:
    [data] = encode_tensors(tensors_of(3000))
    batch = TensorBatch.FromString(data)
    assert (len(batch.kinds), len(batch.slices)) == (2, 2)
    assert {*batch.slice} == {0, 1, 2}


def test_whole_tensors_have_neither_counts_nor_slices() -> None:
    whole = {name: entry for name, entry in tensors_of(300).items() if len(entry.chunks) == 1}
    [data] = encode_tensors(whole)
    batch = TensorBatch.FromString(data)
    assert (len(batch.slices), len(batch.slice), len(batch.chunks)) == (0, 0, 0)
    assert len(data) / len(whole) < 32  # of which 16 are the checksum


def put(column: str, *values: int) -> Callable[[Any], None]:
    def change(batch: Any) -> None:
        batch.ClearField(column)
        getattr(batch, column).extend(values)

    return change


# In the example, the first tensor has two chunks, both slices, and the second has one.
@pytest.mark.parametrize(
    "change",
    [
        put("kind", 0),
        put("kind", 0, 1, 1),
        put("kind"),
        put("kind", 0, 2),
        put("kind", 0, 2**32 - 1),
        lambda batch: batch.ClearField("kinds"),
        lambda batch: batch.ClearField("names"),
        lambda batch: batch.names.append("more"),
        put("chunks"),
        put("chunks", 3),
        put("chunks", 2, 1, 0),
        put("chunks", 2, 2),
        put("chunks", 2**32 - 1, 2**32 - 1),
        put("slice", 1, 2),
        put("slice", 1, 2, 0, 0),
        put("slice", 1, 3, 0),
        put("slice", 1, 2**32 - 1, 0),
        lambda batch: batch.ClearField("slices"),
        put("file", 0, 0),
        put("file"),
        put("start", 64, 76),
        put("start", 64, 76, 88, 88),
        put("size", 12, 12),
        put("size"),
        lambda batch: setattr(batch, "xxh3_128", batch.xxh3_128[:-1]),
        lambda batch: setattr(batch, "xxh3_128", batch.xxh3_128[:-16]),
        lambda batch: setattr(batch, "xxh3_128", batch.xxh3_128 + b"0"),
        lambda batch: batch.ClearField("xxh3_128"),
    ],
)
def test_columns_that_do_not_fit_together_are_damage(change: Callable[[Any], None]) -> None:
    with pytest.raises(ManifestError, match="columns of a batch of tensors do not fit together"):
        read(with_batch(change))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda batch: batch.names.__setitem__(1, "w"), "two tensors have one name"),
        (lambda batch: setattr(batch.kinds[0], "dtype", "object"), "unknown dtype"),
        (lambda batch: setattr(batch.kinds[0], "dtype", "float64"), "12 bytes cannot be"),
        (lambda batch: batch.kinds[0].shape.append(2**64 - 1), "impossible shape"),
        (lambda batch: batch.kinds[0].shape.extend([1] * 100_000), "impossible shape"),
        (put("slice", 1, 1, 0), "overlap"),
        (put("slice", 0, 1, 0), "12 bytes cannot be"),
        (put("slice"), "12 bytes cannot be"),
        (lambda batch: batch.slices[0].offset.append(0), "outside"),
        (lambda batch: batch.slices[0].shape.append(2**64 - 1), "12 bytes cannot be"),
        (put("file", 0, 1, 0), "file 1 of 1"),
        (put("start", 64, 2**64 - 1, 88), "not within"),
        (put("size", 12, 2**64 - 1, 0), "not within"),
        (put("chunks", 1, 2), "cannot be"),
        (put("chunks", 0, 3), "cannot be"),
    ],
)
def test_columns_that_say_the_impossible_are_damage(change: Callable[[Any], None], problem: str) -> None:
    with pytest.raises(ManifestError, match=problem):
        read(with_batch(change))
