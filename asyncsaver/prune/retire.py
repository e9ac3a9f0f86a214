"""Deleting one checkpoint: the reference first, the data last, so that an interruption never leaves half a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from asyncsaver.catalog.reader import FoundRecord
from asyncsaver.catalog.root import Root
from asyncsaver.errors import ObjectNotFoundError, PreconditionFailedError, StoreError
from asyncsaver.formats import native
from asyncsaver.model.manifest import Aborted, Deleted, Summary
from asyncsaver.model.names import PINNED_MARKER, PRESERVED_MARKER, save_folder, slot_path
from asyncsaver.model.statefile import Entry, entry_of


async def retire(root: Root, entry: Entry, *, writer: str, seen: FoundRecord | None = None) -> Entry | None:
    """Replace a checkpoint's manifest by a tombstone. From then on readers do not see it; its files are still there.

    Args:
        root: where it is.
        entry: what is to go. If something else has come to stand at its slot meanwhile, nothing is done.
        writer: goes into the tombstone.
        seen: what stood there a moment ago, if that is known: who could not swap it for the tombstone reads again.

    Returns:
        The entry of the tombstone, marked unfinished until `remove_files` is through; None when that checkpoint is not there
        any more.
    """
    try:
        found = (root.store.capabilities.compare_and_swap and seen) or await root.reader.record(entry.name, entry.slot)
    except ObjectNotFoundError:
        return None
    record = found.record
    if isinstance(record, Aborted) or record.save_id != entry.save_id:
        return None
    if isinstance(record, Deleted):
        return _unfinished(record, found.etag)
    tombstone = Deleted(
        name=record.name,
        step=record.step,
        slot=record.slot,
        created=root.now(),
        writer=writer,
        save_id=record.save_id,
        files=[record.body.path] if isinstance(record, Summary) else [file.path for file in record.files],
    )
    return await _replace(root, found, tombstone)


async def retire_damaged(root: Root, name: str, slot: int, step: int | None, *, writer: str) -> None:
    """Put a tombstone in the place of a record that cannot be read. Its files, unknown to us, are left to a sweep."""
    tombstone = Deleted(name=name, step=step, slot=slot, created=root.now(), writer=writer, save_id="", files=[])
    await root.store.put(slot_path(name, slot), native.encode(tombstone))


async def remove_files(root: Root, entry: Entry, listed: Sequence[str] | None = None) -> None:
    """Delete what a tombstone stands for, and check that it is gone. Can be repeated.

    Args:
        root: where it is.
        entry: of the tombstone.
        listed: paths of its files, if they were listed a moment ago.

    Raises:
        StoreError: something is still there.
    """
    if not entry.save_id:
        return  # put in the place of a damaged record: what it referred to is not known, and left to a sweep
    if root.companions is not None:
        await root.companions.remove(entry.name, entry.save_id)
    folder = save_folder(entry.name, entry.save_id)
    if listed is None:
        listed = await _listed(root, folder)
    await _delete_all(root, listed)
    left = await _listed(root, folder)
    if left and left != listed:  # come, or come to light, since
        await _delete_all(root, left)
        left = await _listed(root, folder)
    if left:
        raise StoreError(
            f"{root.store.url}/{left[0]} is still listed after it was deleted", retryable=True, path=left[0]
        )


async def _listed(root: Root, folder: str) -> list[str]:
    return [item.path for item in (await root.store.list(folder)).objects]


async def _delete_all(root: Root, paths: Sequence[str]) -> None:
    for error in (await root.store.delete(paths)).values():
        raise error


async def remove_markers(root: Root, name: str) -> None:
    """Delete the marks beside a checkpoint, once no committed one of its name is left.

    Raises:
        StoreError: one is still there, and the next checkpoint of that name would be pinned by it.
    """
    await _delete_all(root, [f"{name}/{PINNED_MARKER}", f"{name}/{PRESERVED_MARKER}"])


async def _replace(root: Root, found: FoundRecord, tombstone: Deleted) -> Entry | None:
    path = slot_path(tombstone.name, tombstone.slot)
    data = native.encode(tombstone)
    if found.etag is None or not root.store.capabilities.compare_and_swap:
        return _unfinished(tombstone, (await root.store.put(path, data)).etag)
    try:
        return _unfinished(tombstone, (await root.store.replace_if(path, data, found.etag)).etag)
    except StoreError as error:
        if not (error.retryable or isinstance(error, PreconditionFailedError)):
            raise
    # Another pruner was faster, or our reply was lost: what stands there now tells.
    try:
        now = await root.reader.record(tombstone.name, tombstone.slot)
    except ObjectNotFoundError:
        return None
    if isinstance(now.record, Deleted) and now.record.save_id == tombstone.save_id:
        return _unfinished(now.record, now.etag)
    raise StoreError(f"{root.store.url}/{path}: could not be replaced by a tombstone", retryable=True, path=path)


def _unfinished(tombstone: Deleted, etag: str | None) -> Entry:
    return msgspec.structs.replace(entry_of(tombstone, etag), unfinished=True)
