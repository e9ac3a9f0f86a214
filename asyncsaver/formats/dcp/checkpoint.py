"""Describing a folder of `torch.distributed.checkpoint`.

A folder has ``.metadata`` and data files, by default one a rank, in which the entries follow each other. Each was written by
``torch.save``; or, with ``SerializationFormat.SAFETENSORS``, all tensors of a file are one safetensors file behind the values.
"""

from __future__ import annotations

from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import CheckpointNotFoundError, ManifestError, ObjectNotFoundError
from asyncsaver.formats.dcp.description import Contents, Description
from asyncsaver.formats.dcp.items import Damage, NoArchive, find_items
from asyncsaver.formats.dcp.metadata import parse_metadata
from asyncsaver.formats.dcp.plan import plan_items
from asyncsaver.formats.folder import list_folder
from asyncsaver.formats.safetensors_header import Header, read_header
from asyncsaver.model.foreign import Foreign
from asyncsaver.store.contract import Store

METADATA = ".metadata"
"""The file that makes a folder such a checkpoint. It is written last."""
MAX_METADATA = 1 << 29
"""The largest that is read, in bytes: a million tensors take half of it."""


async def describe(store: Store, threads: Threads, path: str) -> Foreign:
    """Describe a checkpoint.

    Reads ``.metadata`` and a few kilobytes of each entry. Values that are no tensors become part of the tree where they are
    plain.

    Args:
        store: where it is.
        threads: for parsing.
        path: of the folder, relative to the store's root; "" for the root.

    Raises:
        CheckpointNotFoundError: there is no ``.metadata``.
        ManifestError: it is damaged, or no such file.
        StoreError: the store failed.
    """
    folder = await list_folder(store, path, deep=True)
    where = folder.prefix + METADATA
    try:
        size = (await store.head(where)).size
        if size > MAX_METADATA:
            raise ManifestError(f"{where} has {size} bytes, more than the {MAX_METADATA} that are read", path=where)
        data = bytearray(size)
        await store.get_into(where, [(0, size)], [memoryview(data)])
    except ObjectNotFoundError as error:
        message = f"{folder.url} has no {METADATA}: it is no checkpoint of torch.distributed.checkpoint, or its save did not end"
        raise CheckpointNotFoundError(message) from error
    metadata = await threads.run(parse_metadata, bytes(data), where)
    plan = await threads.run(plan_items, folder, metadata)
    found = await find_items(store, threads, plan.items)
    at = {(item.file, item.start): result for item, result in found.items()}
    others = [place for place, result in at.items() if isinstance(result, NoArchive)]

    async def header(file: str, base: int) -> Header | Damage:
        try:
            return await read_header(store, threads, file, folder.sizes[file[len(folder.prefix) :]], base)
        except ManifestError as error:
            return Damage(f"neither torch.save wrote it nor safetensors: {error}")

    headers = dict(zip(others, await run_all(header(*place) for place in others), strict=True))
    description = Description(folder, metadata, Contents(folder, plan.refused, at, headers))
    return await threads.run(description.result)
