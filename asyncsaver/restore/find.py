"""Find: from a step, or nothing, to a committed manifest."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    CheckpointCorruptError,
    CheckpointDeletedError,
    CheckpointNotFoundError,
    ManifestError,
    ObjectNotFoundError,
)
from asyncsaver.model.catalog import Catalog, Folder
from asyncsaver.model.checkpoint import Checkpoint
from asyncsaver.model.manifest import CommitRecord, Deleted, Manifest
from asyncsaver.model.names import parse_slot, slot_path
from asyncsaver.model.statefile import Entry

log = logging.getLogger("asyncsaver")
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A committed checkpoint.

    Attributes:
        manifest: as it stands.
        pinned: a pin stands beside it.
        sizes: path → size in bytes of what its save has written, as listed just now.
    """

    manifest: Manifest
    pinned: bool
    sizes: Mapping[str, int]


async def find(root: Root, step: int | None, checkpoint: Checkpoint | None = None) -> Found:
    """A checkpoint found earlier, that of a step, or else the latest; raises as the function for each."""
    if checkpoint is not None:
        return await find_checkpoint(root, checkpoint)
    if step is not None:
        return await find_step(root, step)
    found = await find_latest(root)
    if found is None:
        raise CheckpointNotFoundError(
            f"{root.store.url} holds no committed checkpoint with the prefix {root.naming.prefix!r}"
        )
    return found


async def find_step(root: Root, step: int | None) -> Found:
    """The checkpoint of a step (None: the one without a step). One LIST, and a GET for each slot.

    Raises:
        CheckpointNotFoundError: never saved, or not committed.
        CheckpointDeletedError: deleted.
        ManifestError: its manifest is damaged.
    """
    deleted: Deleted | None = None
    for name in root.naming.names(step):
        found = await find_name(root, name)
        if isinstance(found, Found):
            return found
        deleted = deleted or found
    where = f"{root.store.url}/{root.naming.name(step)}"
    if deleted is not None:
        raise CheckpointDeletedError(f"{where} was deleted at {deleted.created:%Y-%m-%d %H:%M:%S} UTC")
    raise CheckpointNotFoundError(f"{where} is not a committed checkpoint")


async def find_checkpoint(root: Root, checkpoint: Checkpoint) -> Found:
    """A checkpoint that was found earlier: that very one, not what has replaced it.

    Raises:
        CheckpointDeletedError: it does not stand any more.
        ManifestError: its manifest is damaged.
    """
    found = await root.reader.folder(checkpoint.name)
    if checkpoint.slot in found.damaged:
        raise found.damaged[checkpoint.slot]
    standing = found.records.get(checkpoint.slot)
    if (
        standing is None
        or not isinstance(standing.record, CommitRecord)
        or standing.record.save_id != checkpoint.save_id
    ):
        raise CheckpointDeletedError(
            f"{root.store.url}/{checkpoint.name}: save {checkpoint.save_id} does not stand any more; it was deleted or replaced"
        )
    return await _found(root, standing.record, found.folder)


async def find_name(root: Root, name: str) -> Found | Deleted | None:
    """The checkpoint of that name: the highest committed slot. Else its tombstone, or None.

    Between the listing and the reading of the records the checkpoint may be overwritten, and the old one deleted: where nothing
    committed is found, the slots are listed again until no new one has come up.
    """
    looked: set[int] = set()
    while True:
        folder = await root.reader.folder(name)
        highest = _highest(folder)
        if isinstance(highest, CommitRecord):
            try:
                return await _found(root, highest, folder.folder)
            except CheckpointDeletedError:
                continue
        if folder.folder.slots.keys() <= looked:
            return highest
        looked |= folder.folder.slots.keys()


async def _found(root: Root, record: CommitRecord, folder: Folder) -> Found:
    """What was found, once its manifest is whole.

    Raises:
        CheckpointDeletedError: it was deleted meanwhile.
        CheckpointCorruptError: its manifest is damaged, or missing.
    """
    try:
        manifest = await root.reader.manifest(record)
    except CheckpointCorruptError as error:
        await explain_damage(root, record, error)
        raise
    return Found(manifest, folder.pinned, folder.sizes(record.save_id))


def _highest(found: FolderRecords) -> CommitRecord | Deleted | None:
    deleted: Deleted | None = None
    for slot in sorted({*found.records, *found.damaged}, reverse=True):
        if slot in found.damaged:
            raise found.damaged[slot]
        record = found.records[slot].record
        if isinstance(record, CommitRecord):
            return record
        if isinstance(record, Deleted):
            deleted = deleted or record
    return deleted


async def find_latest(root: Root) -> Found | None:
    """The checkpoint committed last; None under an empty root. One LIST, and a GET each of state file and manifest.

    When it is deleted at this very moment, the next one is taken, and the log says so.

    Raises:
        CheckpointCorruptError: the body of its manifest is missing, or damaged.
        ManifestError: a manifest that may be the newest is damaged: which one is the latest cannot be told. Restore one by its
            step, or delete the damaged one.
    """
    for _ in range(_TRIES):
        catalog = await root.load()
        newest = newest_of(catalog)
        if newest is None:
            return None
        try:
            record = (await root.reader.record(newest.name, newest.slot)).record
        except ObjectNotFoundError:
            record = None
        if isinstance(record, CommitRecord):
            try:
                return await _found(root, record, catalog.folders[newest.name])
            except CheckpointDeletedError:
                pass
        log.warning("%s/%s was deleted while it was looked up, taking the next one", root.store.url, newest.name)
    raise CheckpointDeletedError(
        f"{root.store.url}: {_TRIES} times the latest checkpoint was deleted while it was looked up"
    )


def newest_of(catalog: Catalog) -> Entry | None:
    """The newest checkpoint, if that can be told; raises as `find_latest`."""
    newest = catalog.newest
    newest_step = -1 if newest is None or newest.step is None else newest.step
    for path, error in catalog.damaged.items():
        name, _, filename = path.partition("/")
        standing, slot = catalog.by_name(name), parse_slot(filename)
        if standing is not None and slot is not None and standing.slot > slot:
            continue  # overwritten since
        step = catalog.folders[name].step
        if newest is None or step is None or step >= newest_step:
            if isinstance(error, ManifestError):
                error.add_note("It may be the latest checkpoint. Restore an older one by its step, or delete this one.")
            raise error
    return newest


async def explain_damage(root: Root, manifest: CommitRecord, error: CheckpointCorruptError) -> None:
    """Read the slot again after something was missed: perhaps the checkpoint was deleted meanwhile.

    Raises:
        CheckpointDeletedError: it was. Otherwise this returns, and the damage is what it seems to be.
    """
    folder = await root.reader.folder(manifest.name)
    if manifest.slot in folder.damaged:
        return  # nobody has deleted it: its manifest has been damaged since, too
    standing = folder.records.get(manifest.slot)
    if standing and isinstance(standing.record, CommitRecord) and standing.record.save_id == manifest.save_id:
        return
    where = f"{root.store.url}/{slot_path(manifest.name, manifest.slot)}"
    raise CheckpointDeletedError(f"{where}: the checkpoint was deleted while it was being read") from error
