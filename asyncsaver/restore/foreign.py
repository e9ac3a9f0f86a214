"""Find another library's checkpoint: which format it is in, and what it holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import cast

from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointNotFoundError, ManifestError
from asyncsaver.model.foreign import Foreign
from asyncsaver.restore.source import Source, foreign_source
from asyncsaver.store.contract import Listing, ObjectInfo, Store

Describe = Callable[[Store, Threads, str], Awaitable[Foreign]]

# Imported only when asked for: what some of them need is an extra.
_ROOMS: Mapping[str, str] = MappingProxyType(
    {
        "tensorflow": "asyncsaver.formats.tensorflow.describe",
        "dcp": "asyncsaver.formats.dcp",
        "huggingface": "asyncsaver.formats.huggingface",
    }
)
_RECORDS = ".asyncsaver/"  # beside TensorFlow's files; see `restore.recorded`
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
    found, near = (format, Listing(())) if format else await _format_of(root, path)
    room = import_module(_ROOMS[found])
    try:
        described = await cast("Describe", room.describe)(root.store, root.threads, path)
    except ManifestError as error:
        # Formats know no root, and who opens several checkpoints wants to know which it was.
        message, url = str(error), root.store.url
        if message.startswith(url):
            raise
        between = "/" if error.path and message.startswith(error.path) else ": "
        raise ManifestError(f"{url}{between}{message}", path=error.path, tensors=error.tensors) from error
    paths = {file.path for file in described.files}
    if paths.isdisjoint(item.path for item in near.objects):  # they tell when it was made
        folders = {path.rpartition("/")[0] for path in paths}
        listings = await run_all(root.store.list(f"{folder}/" if folder else "", delimiter=True) for folder in folders)
        near = Listing(
            [item for listing in listings for item in listing.objects],
            [prefix for listing in listings for prefix in listing.prefixes],
        )
    source = await root.threads.run(foreign_source, root.store.url, described, near.objects)
    if found != "tensorflow" or not any(prefix.endswith(_RECORDS) for prefix in near.prefixes):
        return source
    recorded = import_module("asyncsaver.restore.recorded")  # needs the extra, too
    return cast("Source", await recorded.with_record(root, path, source))


async def _format_of(root: Root, path: str) -> tuple[str, Listing]:
    """Look at the names beside the path, and below it unless they tell; returns the format, and the listing that it is in."""
    folder, slash, name = path.rpartition("/")
    beside = await root.store.list(folder + slash, delimiter=True)
    files = {item.path for item in beside.objects}
    if f"{path}.index" in files:
        return "tensorflow", beside
    below = await root.store.list(f"{path}/", delimiter=True) if f"{path}/" in beside.prefixes else Listing(())
    inside = {item.path.rpartition("/")[2] for item in below.objects}
    if ".metadata" in inside:
        return "dcp", below
    if any(one.endswith((".safetensors", ".safetensors.index.json")) for one in inside):
        return "huggingface", below
    if path in files and name.endswith((".safetensors", ".safetensors.index.json")):
        return "huggingface", beside
    if "-?????-of-" in name or (path in files and await _ends_as_a_table(root.store, path, beside.objects)):
        return "tensorflow", beside
    raise CheckpointNotFoundError(f"{root.store.url}/{path} is no checkpoint in any known format")


async def _ends_as_a_table(store: Store, path: str, listed: Sequence[ObjectInfo]) -> bool:
    """Whether a file ends in what TensorFlow's V1 files, as all LevelDB tables, end in."""
    size = next(item.size for item in listed if item.path == path)
    if size < len(_TABLE_MAGIC):
        return False
    end = bytearray(len(_TABLE_MAGIC))
    await store.get_into(path, [(size - len(end), size)], [memoryview(end)])
    return end == _TABLE_MAGIC
