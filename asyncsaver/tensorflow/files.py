"""The files of one of TensorFlow's checkpoints: whether they are there, since when, and removing them.

Names are taken as they are: ``*``, ``?`` and ``[`` match nothing but themselves, other than in TensorFlow. The one exception is
what saving a sharded V1 checkpoint returns, ``m-?????-of-00002``, which stands for the files that it numbers.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from asyncsaver.aio.tasks import run_all
from asyncsaver.errors import ObjectNotFoundError, StoreError, UnsupportedStoreError
from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.formats.tensorflow.naming import shard_paths
from asyncsaver.store.contract import ObjectInfo, Store
from asyncsaver.store.paths import redact
from asyncsaver.tensorflow.paths import split_prefix
from asyncsaver.tensorflow.retention import CheckpointList
from asyncsaver.tensorflow.stores import Stores

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Path = str | os.PathLike[str]
FormatVersion = Literal["v1", "v2"]

log = logging.getLogger("asyncsaver")
_SHARD = re.compile(r"-[0-9?]+-of-[0-9]+\Z")
_DATA = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}")


def meta_graph_filename(checkpoint_filename: str, meta_graph_suffix: str = "meta") -> str:
    """Where the sidecar of a checkpoint is: of a sharded one there is one for all its files.

    Args:
        checkpoint_filename: what saving the checkpoint returned, or one of the files of a sharded one.
        meta_graph_suffix: what the sidecar's name ends in.
    """
    return f"{_SHARD.sub('', checkpoint_filename)}.{meta_graph_suffix}"


async def checkpoint_exists(
    checkpoint_prefix: Path,
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> bool:
    """Whether there is a checkpoint: the index of a V2 one, or all files of a V1 one.

    Args:
        checkpoint_prefix: what saving it returned.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        StoreError: the store failed.
    """
    async with Stores(storage_options, filesystem) as stores:
        return await find_checkpoint(stores, checkpoint_prefix) is not None


async def get_checkpoint_mtimes(
    checkpoint_prefixes: Iterable[Path],
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> list[float]:
    """When checkpoints were written, in seconds since 1970. Missing ones are left out; `map_checkpoint_mtimes` tells which.

    Args:
        checkpoint_prefixes: what saving them returned.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        UnsupportedStoreError: the store does not say when an object was written.
        StoreError: the store failed.
    """
    prefixes = list(checkpoint_prefixes)
    found = await map_checkpoint_mtimes(prefixes, storage_options=storage_options, filesystem=filesystem)
    return [found[path] for path in _texts(prefixes) if path in found]


async def map_checkpoint_mtimes(
    checkpoint_prefixes: Iterable[Path],
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> dict[str, float]:
    """As `get_checkpoint_mtimes`, by path.

    Args:
        checkpoint_prefixes: what saving them returned.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        UnsupportedStoreError: the store does not say when an object was written.
        StoreError: the store failed.
    """
    paths = list(dict.fromkeys(_texts(checkpoint_prefixes)))
    async with Stores(storage_options, filesystem) as stores:
        found = await run_all([find_checkpoint(stores, path) for path in paths])
    return {path: _written(info, path) for path, info in zip(paths, found, strict=True) if info is not None}


async def remove_checkpoint(
    checkpoint_prefix: Path,
    checkpoint_format_version: FormatVersion = "v2",
    meta_graph_suffix: str = "meta",
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> None:
    """Remove a checkpoint. What is missing is fine, so that an interrupted removal can be repeated.

    The index goes first: without it there is no checkpoint, whatever becomes of the rest.

    Args:
        checkpoint_prefix: what saving it returned.
        checkpoint_format_version: which of both formats it has; nothing of another one is touched.
        meta_graph_suffix: what the name of its sidecar ends in.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        StoreError: something could not be removed.
    """
    if checkpoint_format_version not in {"v1", "v2"}:
        raise ValueError(f"checkpoint_format_version={checkpoint_format_version!r} must be 'v1' or 'v2'")
    if not meta_graph_suffix or "/" in meta_graph_suffix:
        raise ValueError(f"meta_graph_suffix={meta_graph_suffix!r} must be the end of a file's name")
    folder, name = split_prefix(checkpoint_prefix)
    async with Stores(storage_options, filesystem) as stores:
        store = stores.at(folder).store
        sidecar = meta_graph_filename(name, meta_graph_suffix)
        if checkpoint_format_version == "v2":
            await _delete(store, [index_path(name)])
            await _delete(store, [*await _data_files(store, name), sidecar])
        else:
            await _delete(store, [*(shard_paths(name) or _v1_files(name)), sidecar])


async def remove_rotated(
    checkpoints: CheckpointList,
    checkpoint_format_version: FormatVersion = "v2",
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> None:
    """Remove what a list has let go. What cannot be removed is logged, and stays in `CheckpointList.to_delete` for the next time.

    Args:
        checkpoints: the list, after the state file was written that does not name them any more.
        checkpoint_format_version: see `remove_checkpoint`.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.
    """
    for removal in checkpoints.to_delete:
        try:
            await remove_checkpoint(
                removal.path,
                checkpoint_format_version,
                removal.meta_graph_suffix,
                storage_options=storage_options,
                filesystem=filesystem,
            )
        except StoreError as error:
            log.warning(
                "a checkpoint that is over max_to_keep could not be removed, and will be tried again: %s", error
            )
        else:
            checkpoints.deleted(removal.path)


async def find_checkpoint(stores: Stores, prefix: Path) -> ObjectInfo | None:
    """The file that a checkpoint is known by: its index, or in V1 its one or first file; None where there is none.

    Args:
        stores: where to look.
        prefix: what saving it returned.
    """
    folder, name = split_prefix(prefix)
    store = stores.at(folder).store
    index = await _head(store, index_path(name))
    if index is not None:
        return index
    shards = shard_paths(name)
    if shards is None:
        return await _head(store, name) if _v1_files(name) else None
    listing = await store.list(delimiter=True)
    listed = {info.path: info for info in listing.objects}
    return listed[shards[0]] if shards and listed.keys() >= set(shards) else None


def _texts(paths: Iterable[Path]) -> list[str]:
    return [os.fspath(path) for path in paths]


async def _head(store: Store, path: str) -> ObjectInfo | None:
    try:
        return await store.head(path)
    except ObjectNotFoundError:
        return None


async def _data_files(store: Store, name: str) -> list[str]:
    listing = await store.list(delimiter=True)
    paths = (info.path for info in listing.objects)
    return [path for path in paths if path.startswith(name) and _DATA.fullmatch(path, len(name))]


def _v1_files(name: str) -> list[str]:
    """The one file of a V1 checkpoint; none where that is a folder."""
    return [name] if name not in {"", ".", ".."} else []


async def _delete(store: Store, paths: list[str]) -> None:
    failed = await store.delete(paths)
    for error in failed.values():
        raise error


def _written(info: ObjectInfo, path: str) -> float:
    if info.modified is None:
        raise UnsupportedStoreError(f"{redact(path)}: this store does not say when an object was written")
    return info.modified.timestamp()
