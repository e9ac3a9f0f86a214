"""Describe one of TensorFlow's checkpoints: V2 by its index, V1 by the ends and beginnings of its files."""

from __future__ import annotations

from collections.abc import Mapping

from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import CheckpointNotFoundError, ManifestError
from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.formats.tensorflow.naming import shard_paths
from asyncsaver.formats.tensorflow.table import read_footer, read_index
from asyncsaver.formats.tensorflow.v1 import V1File, describe_v1
from asyncsaver.formats.tensorflow.v2 import describe_v2
from asyncsaver.model.foreign import Foreign
from asyncsaver.store.contract import Store
from asyncsaver.store.paths import check_path

_TAIL = 64 * 1024
"""Read from the end of a V1 file: mostly the footer and all of the table's index."""
_LARGEST = 2**30
"""What lists tensors is refused where it has more bytes: that would be ten million of them, or a file with a hole in it."""


async def describe(store: Store, threads: Threads, path: str) -> Foreign:
    """Describe the checkpoint at a path; takes a LIST of its folder and a GET of the index, or of V1 two or three of each file.

    Args:
        store: where it is.
        threads: to decode in.
        path: the prefix of a V2 checkpoint (``run/model.ckpt-12``), a V1 file, or the pattern of a sharded V1 checkpoint
            (``run/model.ckpt-12-?????-of-00002``), which TensorFlow returned when it saved it.

    Raises:
        CheckpointNotFoundError: there is none.
        ManifestError: it is damaged as a whole. Of a tensor damaged by itself, `Foreign.unreadable` says so.
        StoreError: the store failed.
    """
    check_path(path)
    folder, slash, _ = path.rpartition("/")
    listing = await store.list(folder + slash, delimiter=True)
    sizes = {info.path: info.size for info in listing.objects}
    if index_path(path) in sizes:
        _check_size(sizes[index_path(path)], index_path(path))
        index = await store.get(index_path(path))
        return await threads.run(describe_v2, index.data, path, sizes)
    shards = [path] if path in sizes else shard_paths(path) or []
    missing = [shard for shard in shards if shard not in sizes]
    if len(missing) == len(shards):
        raise CheckpointNotFoundError(f"{store.url}/{path} is not a valid checkpoint: no index, and no such file")
    if missing:
        raise ManifestError(
            f"{store.url}/{path}: {len(missing)} of its files are missing, {missing[0]} first", path=missing[0]
        )
    files = await run_all(_read_v1(store, threads, shard, sizes) for shard in shards)
    return await threads.run(describe_v1, files, path)


async def _read_v1(store: Store, threads: Threads, path: str, sizes: Mapping[str, int]) -> V1File:
    size = sizes[path]
    tail_start = max(0, size - _TAIL)
    tail = await _read(store, path, tail_start, size)
    start, stop = read_footer(tail, size, path)
    _check_size(stop - start, path)
    index = (
        tail[start - tail_start : stop - tail_start] if start >= tail_start else await _read(store, path, start, stop)
    )
    blocks = await threads.run(read_index, index, start, path)
    if not blocks.ranges:
        raise ManifestError(f"{path}: the table is empty", path=path)
    first, end = blocks.ranges[0]
    _check_size(end - first, path)
    return V1File(path, size, blocks, await _read(store, path, first, end))


def _check_size(size: int, path: str) -> None:
    if size > _LARGEST:
        raise ManifestError(f"{path}: {size} bytes are too many for a list of tensors", path=path)


async def _read(store: Store, path: str, start: int, stop: int) -> bytes:
    buffer = bytearray(stop - start)
    await store.get_into(path, [(start, stop)], [memoryview(buffer)])
    return bytes(buffer)
