"""Reading what a root holds: one listing, the state file, and the records that the state file does not describe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from asyncsaver.aio.tasks import run_all, run_both
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import ManifestError, ObjectNotFoundError
from asyncsaver.formats import native
from asyncsaver.model.catalog import Catalog, Folder, Listed, build_catalog, sort_into_folders
from asyncsaver.model.manifest import Manifest, Record
from asyncsaver.model.names import STATE_FILE, Naming, slot_path
from asyncsaver.model.statefile import Entry, StateFile, entry_of
from asyncsaver.store.contract import Store

log = logging.getLogger("asyncsaver")
_READS_AT_ONCE = 16
_LOOKS_AGAIN = 3
_SMALL = 64 * 1024


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record at a slot, and which version of the object it was read from."""

    record: Record
    etag: str | None


@dataclass(frozen=True, slots=True)
class FolderRecords:
    """One checkpoint's folder: what is listed, the records at its slots, and those that cannot be read (slot → why)."""

    folder: Folder
    records: Mapping[int, FoundRecord]
    damaged: Mapping[int, ManifestError]


class CatalogReader:
    """Reads; never writes. Safe to use from many coroutines at once.

    Args:
        store: the root.
        naming: which folders are checkpoints.
        threads: for decoding.
    """

    def __init__(self, store: Store, naming: Naming, threads: Threads) -> None:
        self._store = store
        self._naming = naming
        self._threads = threads
        # Records never change under one etag, so what was read once need not be read again, whatever the state file says.
        self._known: dict[str, Entry] = {}

    def owns(self, name: str) -> bool:
        """Whether a checkpoint of that name is one of ours, rather than of another prefix under the same root."""
        return self._naming.parse(name)[0]

    async def load(self) -> Catalog:
        """Everything under the root that is a checkpoint or was one: one GET, one LIST, and a GET for each unknown record.

        When a record was replaced or removed after it was listed, this looks again: what has taken its place may not have been
        listed either, and an overwritten checkpoint would seem to be gone.
        """
        catalog, outdated = await self._look()
        for _ in range(_LOOKS_AGAIN):
            if not outdated:
                break
            catalog, outdated = await self._look()
        return catalog

    async def _look(self) -> tuple[Catalog, bool]:
        (state, _), listing = await run_both(self.read_state(), self._store.list())
        folders, known, unknown = await self._threads.run(self._compare, listing.objects, state)
        found, damaged = await self._read_slots(unknown)
        for error in damaged.values():
            log.warning("not listed as a checkpoint: %s", error)
        entries = [*known, *(entry_of(one.record, one.etag) for one in found.values())]
        outdated = any(
            _has_changed(folders[name].slots[slot], found.get(path))
            for name, slot in unknown
            if (path := slot_path(name, slot)) not in damaged
        )
        catalog, self._known = await self._threads.run(_assemble, folders, entries, damaged, state)
        return catalog, outdated

    def _compare(
        self, listed: Iterable[Listed], state: StateFile
    ) -> tuple[Mapping[str, Folder], list[Entry], list[tuple[str, int]]]:
        """What is listed: the folders, the entries of records that are known, and the names and slots of the other records."""
        folders = sort_into_folders(listed, self._naming)
        cached = {**state.by_path(), **self._known}
        known: list[Entry] = []
        unknown: list[tuple[str, int]] = []
        for folder in folders.values():
            for slot, item in folder.slots.items():
                entry = cached.get(item.path)
                if entry is not None and entry.etag is not None and entry.etag == item.etag:
                    known.append(entry)
                else:
                    unknown.append((folder.name, slot))
        return folders, known, unknown

    async def folder(self, name: str) -> FolderRecords:
        """One checkpoint's folder with all its records: one LIST, and a GET for each slot.

        When a listed record is gone before it is read, this looks again: others, not listed yet, may have come to stand
        above it, and who takes its slot for the first free one would choose, or fence, one too low.
        """
        found = await self._folder(name)
        for _ in range(_LOOKS_AGAIN):
            if len(found.records) + len(found.damaged) == len(found.folder.slots):
                break
            found = await self._folder(name)
        return found

    async def _folder(self, name: str) -> FolderRecords:
        listing = await self._store.list(f"{name}/")
        folder = sort_into_folders(listing.objects, self._naming).get(name) or Folder(name, self._naming.parse(name)[1])
        found, damaged = await self._read_slots([(name, slot) for slot in folder.slots])
        by_path = {slot_path(name, slot): slot for slot in folder.slots}
        return FolderRecords(
            folder,
            {by_path[path]: one for path, one in found.items()},
            {by_path[path]: error for path, error in damaged.items()},
        )

    async def record(self, name: str, slot: int) -> FoundRecord:
        """The record at a slot.

        Raises:
            ObjectNotFoundError: the slot is free.
            ManifestError: what stands there cannot be read.
        """
        blob = await self._store.get(slot_path(name, slot))
        try:
            if len(blob.data) <= _SMALL:
                record = native.decode_record(blob.data, name=name, slot=slot)
            else:
                record = await self._threads.run(native.decode_record, blob.data, name=name, slot=slot)
        except ManifestError as error:
            # Formats know no root, and a log may hold the errors of many.
            raise ManifestError(f"{self._store.url}/{error}", path=error.path, tensors=error.tensors) from error
        return FoundRecord(record, blob.info.etag)

    async def read_state(self) -> tuple[StateFile, str | None]:
        """The state file and its etag. Empty where it is missing; where it is damaged also logged (it gets rebuilt)."""
        try:
            blob = await self._store.get(STATE_FILE)
        except ObjectNotFoundError:
            return StateFile(), None
        try:
            return await self._threads.run(native.decode_state, blob.data, STATE_FILE), blob.info.etag
        except ManifestError as error:
            log.warning(
                "%s/%s cannot be read and is rebuilt from the manifests: %s", self._store.url, STATE_FILE, error
            )
            return StateFile(), blob.info.etag

    async def _read_slots(
        self, slots: list[tuple[str, int]]
    ) -> tuple[dict[str, FoundRecord], dict[str, ManifestError]]:
        found: dict[str, FoundRecord] = {}
        damaged: dict[str, ManifestError] = {}
        turns = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(name: str, slot: int) -> None:
            path = slot_path(name, slot)
            async with turns:
                try:
                    found[path] = await self.record(name, slot)
                except ObjectNotFoundError:
                    pass  # expired between the listing and now
                except ManifestError as error:
                    damaged[path] = error

        await run_all(read(name, slot) for name, slot in slots)
        return found, damaged


def _assemble(
    folders: Mapping[str, Folder], entries: list[Entry], damaged: Mapping[str, ManifestError], state: StateFile
) -> tuple[Catalog, dict[str, Entry]]:
    """The catalog, and its entries by the path of their record."""
    catalog = replace(build_catalog(folders, entries, damaged), seen=state.by_path())
    return catalog, {entry.path: entry for entry in entries}


def _has_changed(listed: Listed, read: FoundRecord | None) -> bool:
    if read is None:
        return True
    known = listed.etag is not None and read.etag is not None
    return known and listed.etag != read.etag and not isinstance(read.record, Manifest)
