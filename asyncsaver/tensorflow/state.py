"""The state file ``checkpoint``, in which TensorFlow's savers note what they have saved."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from asyncsaver.errors import ManifestError, ObjectNotFoundError
from asyncsaver.formats.tensorflow.state_text import State, decode_state, encode_state
from asyncsaver.model.tensorflow_config import check_latest_filename
from asyncsaver.store.paths import redact
from asyncsaver.tensorflow.files import find_checkpoint
from asyncsaver.tensorflow.merge import merge_states
from asyncsaver.tensorflow.paths import Folder, folder_at
from asyncsaver.tensorflow.stores import Stores
from asyncsaver.tensorflow.writing import change_object

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

log = logging.getLogger("asyncsaver")


async def get_checkpoint_state(
    checkpoint_dir: str | os.PathLike[str],
    latest_filename: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> State | None:
    """What the state file of a folder says, with paths that can be opened from here; None where there is none.

    None and a warning where it is no state file. Paths other than the latest that lead out of an object store are left out.

    Args:
        checkpoint_dir: the URL of the folder.
        latest_filename: what the file is called; "checkpoint" by default.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        ManifestError: it does not say which checkpoint is the latest, or names one outside of an object store.
        StoreError: the store failed; whether there are checkpoints is not known then.
        ValueError: ``latest_filename`` is no plain name.
    """
    async with Stores(storage_options, filesystem) as stores:
        return await _read(stores, folder_at(checkpoint_dir, filesystem), latest_filename)


async def latest_checkpoint(
    checkpoint_dir: str | os.PathLike[str],
    latest_filename: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> str | None:
    """The path of the checkpoint that the state file calls the latest; None where there is none, or its files are gone.

    Args:
        checkpoint_dir: the URL of the folder.
        latest_filename: what the state file is called; "checkpoint" by default.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        ManifestError: see `get_checkpoint_state`.
        StoreError: the store failed.
        ValueError: ``latest_filename`` is no plain name.
    """
    async with Stores(storage_options, filesystem) as stores:
        state = await _read(stores, folder_at(checkpoint_dir, filesystem), latest_filename)
        if state is None:
            return None
        if await find_checkpoint(stores, state.latest) is None:
            log.error("Couldn't match files for checkpoint %s", redact(state.latest))
            return None
        return state.latest


def generate_checkpoint_state(
    save_dir: str | os.PathLike[str],
    model_checkpoint_path: str | os.PathLike[str],
    all_model_checkpoint_paths: Sequence[str] | None = None,
    all_model_checkpoint_timestamps: Sequence[float] | None = None,
    last_preserved_timestamp: float | None = None,
    *,
    save_relative_paths: bool = False,
) -> State:
    """What a state file is to say. Pure; the arguments are not changed.

    Args:
        save_dir: the URL of the folder that it is in.
        model_checkpoint_path: of the checkpoint saved last.
        all_model_checkpoint_paths: of all, oldest first; the last one is added if it is not there.
        all_model_checkpoint_timestamps: one for each of those, in seconds since 1970, or none.
        last_preserved_timestamp: when the last one was written that is kept for good.
        save_relative_paths: whether absolute paths become relative to the folder. On object stores they always do.

    Raises:
        ValueError: there are more or fewer times than paths, or a path is on another store.
    """
    return _generate(
        folder_at(save_dir),
        os.fspath(model_checkpoint_path),
        all_model_checkpoint_paths,
        all_model_checkpoint_timestamps,
        last_preserved_timestamp,
        relative=save_relative_paths,
    )


async def update_checkpoint_state(
    save_dir: str | os.PathLike[str],
    model_checkpoint_path: str | os.PathLike[str],
    all_model_checkpoint_paths: Sequence[str] | None = None,
    latest_filename: str | None = None,
    *,
    all_model_checkpoint_timestamps: Sequence[float] | None = None,
    last_preserved_timestamp: float | None = None,
    save_relative_paths: bool = False,
    dropped: Collection[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
) -> None:
    """Write the state file of a folder, atomically.

    As TensorFlow's it replaces all that was there, unless ``dropped`` is given: then what other savers have noted is kept, with a
    warning that there are others, and written by compare-and-swap where the store has it, so that two savers that save at once
    forget nothing.

    Args:
        save_dir: the URL of the folder.
        model_checkpoint_path: see `generate_checkpoint_state`.
        all_model_checkpoint_paths: see `generate_checkpoint_state`.
        latest_filename: what the file is called; "checkpoint" by default.
        all_model_checkpoint_timestamps: see `generate_checkpoint_state`.
        last_preserved_timestamp: see `generate_checkpoint_state`.
        save_relative_paths: see `generate_checkpoint_state`.
        dropped: paths that the caller has noted there earlier and that are to go: `CheckpointList.dropped`.
        storage_options: as for `Saver`.
        filesystem: as for `Saver`.

    Raises:
        ValueError: as `generate_checkpoint_state`, or the checkpoint has the name of the state file; nothing was written.
        StoreError: it could not be written.
    """
    name = _checked_name(latest_filename)
    folder = folder_at(save_dir, filesystem)
    wanted = _generate(
        folder,
        os.fspath(model_checkpoint_path),
        all_model_checkpoint_paths,
        all_model_checkpoint_timestamps,
        last_preserved_timestamp,
        relative=save_relative_paths,
    )
    if folder.identity(wanted.latest) == folder.identity(name):
        raise ValueError(
            f"latest_filename collides with the checkpoint: {name!r} and {redact(os.fspath(model_checkpoint_path))!r}"
        )
    gone = None if dropped is None else [folder.stored(path, relative=save_relative_paths) for path in dropped]
    async with Stores(storage_options, filesystem) as stores:
        root = stores.at(folder.url)
        if gone is None:
            await root.store.put(name, await root.threads.run(encode_state, wanted))
            return
        where = f"{root.store.url}/{name}"
        await change_object(root, name, lambda data: encode_state(_merged(data, wanted, gone, folder, where)))


def _generate(
    folder: Folder,
    latest: str,
    given: Sequence[str] | None,
    timestamps: Sequence[float] | None,
    last_preserved: float | None,
    *,
    relative: bool,
) -> State:
    paths = list(given or ())
    if not paths or paths[-1] != latest:
        paths.append(latest)
    if timestamps and len(timestamps) != len(paths):
        raise ValueError(
            "Checkpoint timestamps, if provided, must match checkpoint paths "
            f"(got paths {paths} and timestamps {list(timestamps)})"
        )
    stored = [folder.stored(os.fspath(path), relative=relative) for path in paths]
    return State(stored[-1], tuple(stored), tuple(timestamps or ()), last_preserved or 0.0)


async def _read(stores: Stores, folder: Folder, latest_filename: str | None) -> State | None:
    name = _checked_name(latest_filename)
    root = stores.at(folder.url)
    where = f"{root.store.url}/{name}"
    try:
        blob = await root.store.get(name)
    except ObjectNotFoundError:
        return None
    try:
        state = await root.threads.run(decode_state, blob.data, where)
    except ManifestError as error:
        log.warning("%s: Checkpoint ignored", error)
        return None
    return _openable(state, folder, where)


def _openable(state: State, folder: Folder, where: str) -> State:
    """The state with paths for callers."""
    if not state.latest:
        raise ManifestError(f"Invalid checkpoint state loaded from {where}: it names no latest checkpoint", path=where)
    try:
        latest = folder.found(state.latest)
    except ValueError as error:
        raise ManifestError(f"{where}: {error}", path=where) from error
    times = state.timestamps if len(state.timestamps) == len(state.paths) else None
    paths: list[str] = []
    kept: list[float] = []
    for number, path in enumerate(state.paths):
        try:
            paths.append(folder.found(path))
        except ValueError as error:
            log.warning("%s: one of its checkpoints is ignored: %s", where, error)
        else:
            kept.extend(times[number : number + 1] if times else ())
    return State(latest, tuple(paths), tuple(kept) if times else state.timestamps, state.last_preserved)


def _merged(data: bytes | None, wanted: State, dropped: Collection[str], folder: Folder, where: str) -> State:
    if data is None:
        return wanted
    try:
        found = decode_state(data, where)
    except ManifestError as error:
        log.warning("%s: Replaced", error)
        return wanted
    merged = merge_states(found, wanted, dropped, folder.identity)
    if others := len(merged.paths) - len(wanted.paths):
        log.warning("%s: another saver writes there as well; its %d checkpoints stay listed", where, others)
    return merged


def _checked_name(latest_filename: str | None) -> str:
    return check_latest_filename("checkpoint" if latest_filename is None else latest_filename)
