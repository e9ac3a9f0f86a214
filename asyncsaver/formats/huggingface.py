"""Folders of safetensors files, as Hugging Face's libraries and PyTorch's `HuggingFaceStorageWriter` write them.

One file, or several and an index that says which tensor is in which. What PyTorch's ranks write has no index: there each
file may hold slices of tensors, and says in its metadata where they belong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import CheckpointNotFoundError, ManifestError
from asyncsaver.formats.batches import UNREADABLE
from asyncsaver.formats.folder import Folder, list_folder, step_of
from asyncsaver.formats.safetensors_header import Header, read_header
from asyncsaver.formats.safetensors_join import join
from asyncsaver.model.foreign import Foreign
from asyncsaver.model.manifest import Json
from asyncsaver.store.contract import Store

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
NAMES = "model", "diffusion_pytorch_model"
"""What the file of a model is called, without suffix; where a folder has several, the first is it."""
MAX_INDEX = 1 << 29
"""The largest index that is read, in bytes."""

_CONCURRENCY = 16  # headers at once: each may take a hundred megabytes, though hardly any takes one


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]
    metadata: Json = None


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is to be read in a folder: a file and its index, or files without one."""

    folder: Folder
    name: str
    index: str | None
    files: list[str]


async def describe(store: Store, threads: Threads, path: str) -> Foreign:
    """Describe a checkpoint.

    Reads the index and the headers. In a folder, ``model.safetensors`` goes first, then ``model.safetensors.index.json``,
    then the same of ``diffusion_pytorch_model``, then the only index there is, then all files that end in ``.safetensors``.

    Args:
        store: where it is.
        threads: for parsing.
        path: of the folder, of a ``.safetensors`` file or of an index, relative to the store's root; "" for the root.

    Raises:
        CheckpointNotFoundError: nothing of the kind is there.
        ManifestError: the index or a header is damaged; the index names a file that is not there, one outside of the folder, or a
            tensor that is not in its file.
        StoreError: the store failed.
    """
    choice = await _choose(store, path)
    folder, index = choice.folder, None
    files = choice.files
    if choice.index is not None:
        index = await _read_index(store, threads, folder, choice.index)
        files = sorted(set(index.weight_map.values()))
        _check_files(folder, choice.index, index, files)
    turn = asyncio.Semaphore(_CONCURRENCY)

    async def header(file: str) -> Header:
        async with turn:
            return await read_header(store, threads, folder.prefix + file, folder.sizes[file])

    headers = dict(zip(files, await run_all(header(file) for file in files), strict=True))
    joined = await threads.run(join, folder, headers, None if index is None else index.weight_map)
    return Foreign(
        format="huggingface",
        name=choice.name,
        step=step_of(choice.name),
        files=joined.files,
        tensors=joined.tensors,
        dtypes=joined.dtypes,
        unreadable=joined.unreadable,
        metadata=_metadata(joined.metadata, None if index is None else index.metadata),
    )


async def _choose(store: Store, path: str) -> _Choice:
    above, _, last = path.rstrip("/").rpartition("/")
    if last.endswith((SUFFIX, INDEX_SUFFIX)):
        folder = await list_folder(store, above, deep=False)
        if last in folder.sizes:
            name = last.removesuffix(SUFFIX).removesuffix(INDEX_SUFFIX)
            return _Choice(folder, name, *((None, [last]) if last.endswith(SUFFIX) else (last, [])))
    folder = await list_folder(store, path, deep=False)
    for name in NAMES:
        if name + SUFFIX in folder.sizes:
            return _Choice(folder, folder.name, None, [name + SUFFIX])
        if name + INDEX_SUFFIX in folder.sizes:
            return _Choice(folder, folder.name, name + INDEX_SUFFIX, [])
    indices = [file for file in folder.sizes if file.endswith(INDEX_SUFFIX)]
    if len(indices) == 1:
        return _Choice(folder, folder.name, indices[0], [])
    files = [file for file in folder.sizes if file.endswith(SUFFIX)]
    if not files:
        raise CheckpointNotFoundError(f"{folder.url} is no safetensors file, and no folder of such files")
    return _Choice(folder, folder.name, None, files)


async def _read_index(store: Store, threads: Threads, folder: Folder, name: str) -> _Index:
    path, size = folder.prefix + name, folder.sizes[name]
    if size > MAX_INDEX:
        raise ManifestError(f"{path} has {size} bytes, more than the {MAX_INDEX} that are read", path=path)
    data = bytearray(size)
    await store.get_into(path, [(0, size)], [memoryview(data)])
    try:
        return await threads.run(msgspec.json.decode, data, type=_Index)
    except UNREADABLE as error:
        raise ManifestError(f"{path}: no index of safetensors files: {error}", path=path) from error


def _check_files(folder: Folder, name: str, index: _Index, files: list[str]) -> None:
    where = folder.prefix + name
    for file in files:
        folder.path(file, where)
        if file not in folder.sizes:
            missing = [tensor for tensor, its_file in index.weight_map.items() if its_file == file]
            raise ManifestError(
                f"{folder.url}/{file} is missing; by {where}, {len(missing)} tensors are in it, {missing[0][:200]!a} among them",
                path=folder.prefix + file,
                tensors=missing,
            )


def _metadata(of_files: Mapping[str, str], of_index: Json) -> Json:
    """What the files say in common, and what the index says besides."""
    merged: dict[str, Json] = {**of_files, **of_index} if isinstance(of_index, dict) else dict(of_files)
    return merged or None
