"""Find another library's checkpoint: which format it is in, and what it holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import cast

from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointNotFoundError
from asyncsaver.model.foreign import Foreign
from asyncsaver.restore.source import Source, foreign_source
from asyncsaver.store.contract import ObjectInfo, Store

Describe = Callable[[Store, Threads, str], Awaitable[Foreign]]

# Imported only when asked for: what some of them need is an extra.
_ROOMS: Mapping[str, str] = MappingProxyType(
    {
        "tensorflow": "asyncsaver.formats.tensorflow.describe",
        "dcp": "asyncsaver.formats.dcp",
        "huggingface": "asyncsaver.formats.huggingface",
    }
)
_TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
FORMATS = tuple(_ROOMS)
"""What `open_foreign` can be told to open."""


async def open_foreign(root: Root, path: str, format: str | None = None) -> Source:  # noqa: A002 - as users call it
    """Describe a checkpoint by its path: TensorFlow's prefix, or a folder or file of Hugging Face or PyTorch.

    Args:
        root: where it is.
        path: relative to the root.
        format: one of `FORMATS`; None to look which it is.

    Raises:
        CheckpointNotFoundError: there is nothing there in that format, or in any.
        ManifestError: it is damaged as a whole.
        StoreError: the store failed.
    """
    room = import_module(_ROOMS[format or await _format_of(root, path)])
    described = await cast("Describe", room.describe)(root.store, root.threads, path)
    folders = {file.path.rpartition("/")[0] for file in described.files} or {path.rpartition("/")[0]}
    listings = await run_all(root.store.list(f"{folder}/" if folder else "", delimiter=True) for folder in folders)
    objects: list[ObjectInfo] = [item for listing in listings for item in listing.objects]
    return await root.threads.run(foreign_source, root.store.url, described, objects)


async def _format_of(root: Root, path: str) -> str:
    """Look at the names beside and below the path."""
    folder, slash, name = path.rpartition("/")
    beside, below = await run_all(
        [root.store.list(folder + slash, delimiter=True), root.store.list(f"{path}/", delimiter=True)]
    )
    files = {item.path for item in beside.objects}
    inside = {item.path.rpartition("/")[2] for item in below.objects}
    if f"{path}.index" in files:
        return "tensorflow"
    if ".metadata" in inside:
        return "dcp"
    if any(one.endswith((".safetensors", ".safetensors.index.json")) for one in (*inside, name)):
        return "huggingface"
    if "-?????-of-" in name or (path in files and await _ends_as_a_table(root.store, path, beside.objects)):
        return "tensorflow"
    raise CheckpointNotFoundError(f"{root.store.url}/{path} is no checkpoint in any known format")


async def _ends_as_a_table(store: Store, path: str, listed: Sequence[ObjectInfo]) -> bool:
    """Whether a file ends in what TensorFlow's V1 files, as all LevelDB tables, end in."""
    size = next(item.size for item in listed if item.path == path)
    if size < len(_TABLE_MAGIC):
        return False
    end = bytearray(len(_TABLE_MAGIC))
    await store.get_into(path, [(size - len(end), size)], [memoryview(end)])
    return end == _TABLE_MAGIC
