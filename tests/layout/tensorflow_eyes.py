"""What TensorFlow sees in a folder: its index files, and what they name, byte by byte. It knows nothing of our records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncsaver import Saver
from asyncsaver.formats.tensorflow.bundle import Entry, Index, data_path, decode_index
from asyncsaver.formats.tensorflow.checksum import crc32c
from asyncsaver.formats.tensorflow.dtypes import STRING, type_of
from asyncsaver.formats.tensorflow.naming import RECORDS
from asyncsaver.formats.tensorflow.strings import StringEncoding
from asyncsaver.layout.tensorflow import TensorFlowLayout
from asyncsaver.store import Store
from asyncsaver.store.below import Below
from asyncsaver_backends.memory import MemoryStore


class TornError(AssertionError):
    """There is an index whose data are not what it says."""


def seen(objects: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Prefix → name → array, of every checkpoint that TensorFlow finds; each must be whole."""
    found: dict[str, dict[str, Any]] = {}
    for path, data in objects.items():
        if path.endswith(".index") and "/" not in path:
            prefix = path.removesuffix(".index")
            index = decode_index(data, path)
            found[prefix] = {name: _whole(objects, prefix, index, name, entry) for name, entry in index.entries.items()}
    return found


def numbers_seen(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Prefix → number of the state (`tests.doubles.world.state_of`) of every checkpoint that TensorFlow finds, bit for bit."""
    numbers: dict[str, int] = {}
    for prefix, tensors in seen(objects).items():
        number = numbers[prefix] = int(tensors["number"])
        expected = np.arange(12, dtype=np.float32).reshape(3, 4) + number
        if not np.array_equal(tensors["weights"], expected) or tensors["rng.key"].tolist() != [number, 1]:
            raise TornError(f"{prefix} has tensors of different saves")
    return numbers


def in_memory(url: str) -> dict[str, bytes]:
    """Everything under a root in memory, without a wait."""
    store = MemoryStore(url)
    return {
        key.removeprefix(store._prefix): bytes(version.content)
        for key, version in store._bucket.objects.items()
        if key.startswith(store._prefix)
    }


def unretried(saver: Saver, store: Store) -> Saver:
    """The same saver on another store, whose every call reaches it as the protocol makes it: nothing is sent twice."""
    layout = saver._layout
    assert isinstance(layout, TensorFlowLayout)
    layout.root.store = store
    layout.root.__post_init__()
    layout.records.store = Below(store, RECORDS)
    layout.records.__post_init__()
    return saver


def _whole(objects: Mapping[str, bytes], prefix: str, index: Index, name: str, entry: Entry) -> Any:
    if not entry.slices:
        return _read(objects, prefix, index, name, entry)
    whole = np.empty(entry.shape, type_of(entry.dtype).dtype)
    for extents in entry.slices:
        box = tuple(slice(start, None if length < 0 else start + length) for start, length in extents)
        whole[box] = _read(objects, prefix, index, name, index.slices[name, extents])
    return whole


def _read(objects: Mapping[str, bytes], prefix: str, index: Index, name: str, entry: Entry) -> Any:
    path = data_path(prefix, entry.shard, index.shards)
    data = objects.get(path)
    if data is None:
        raise TornError(f"{prefix}.index names {path}, which is not there")
    piece = data[entry.offset : entry.offset + entry.size]
    if entry.dtype == STRING:
        return StringEncoding(entry.crc32c).decode(memoryview(piece), np.dtype(object), entry.shape)
    if len(piece) != entry.size or crc32c(piece) != entry.crc32c:
        raise TornError(f"{prefix}.index: {name} in {path} is not what was written")
    return np.frombuffer(piece, type_of(entry.dtype).dtype).reshape(entry.shape)
