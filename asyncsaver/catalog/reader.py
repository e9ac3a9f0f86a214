"""Reading what a root holds: one listing, the state file, and the records that the state file does not describe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from asyncsaver.aio.tasks import run_all, run_both
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import CheckpointCorruptError, ManifestError, ObjectNotFoundError
from asyncsaver.formats import native
from asyncsaver.formats.encodings import STATE_FILES, decode_body, decode_state
from asyncsaver.model.catalog import Catalog, Folder, Listed, build_catalog, sort_into_folders
from asyncsaver.model.manifest import CommitRecord, Manifest, ManifestFormat, Record
from asyncsaver.model.names import Naming, slot_path
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
        manifest_format: of the saver: which state file it writes.

    Attributes:
        state_file: the path of that.
        other_state_file: where savers that write manifests the other way have theirs.
        sees_other: that one was there when the root was listed last.
    """

    def __init__(
        self, store: Store, naming: Naming, threads: Threads, manifest_format: ManifestFormat = "json"
    ) -> None:
        self.state_file = STATE_FILES[manifest_format]
        [self.other_state_file] = {*STATE_FILES.values()} - {self.state_file}
        self.sees_other = False
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

        Where the other kind of state file stands too, or alone, that is one GET more. An entry of either counts only if it has
        the etag of what is listed, so it does not matter which of them is stale.

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
        other = StateFile()
        self.sees_other = await self._threads.run(_lists, listing.objects, self.other_state_file)
        if self.sees_other:
            other, _ = await self.read_state(self.other_state_file)
        folders, known, unknown = await self._threads.run(self._compare, listing.objects, [state, other])
        found, damaged = await self._read_slots(unknown)
        for error in damaged.values():
            log.warning("not listed as a checkpoint: %s", error)
        entries = [*known, *(entry_of(one.record, one.etag) for one in found.values())]
        outdated = any(
            _has_changed(folders[name].slots[slot], found.get(path))
            for name, slot in unknown
            if (path := slot_path(name, slot)) not in damaged
        )
        catalog, self._known = await self._threads.run(_assemble, folders, entries, damaged, state, other)
        return catalog, outdated

    def _compare(
        self, listed: Iterable[Listed], states: Iterable[StateFile]
    ) -> tuple[Mapping[str, Folder], list[Entry], list[tuple[str, int]]]:
        """What is listed: the folders, the entries of records that are known, and the names and slots of the other records."""
        folders = sort_into_folders(listed, self._naming)
        cached = [self._known, *(state.by_path() for state in states)]
        known: list[Entry] = []
        unknown: list[tuple[str, int]] = []
        for folder in folders.values():
            for slot, item in folder.slots.items():
                for entries in cached:
                    entry = entries.get(item.path)
                    if entry is not None and entry.etag is not None and entry.etag == item.etag:
                        known.append(entry)
                        break
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

    async def manifest(self, record: CommitRecord) -> Manifest:
        """The manifest of a checkpoint: its record, or, where that is but a summary, what its body holds: one GET.

        Raises:
            CheckpointCorruptError: the body is missing.
            ManifestError: the body is damaged, or is another manifest's.
            ModuleNotFoundError: the extra is missing that it takes to read it.
        """
        if isinstance(record, Manifest):
            return record
        path = record.body.path
        try:
            blob = await self._store.get(path)
        except ObjectNotFoundError as error:
            raise CheckpointCorruptError(f"{self._store.url}/{path}: the manifest is missing", path=path) from error
        try:
            return await self._threads.run(decode_body, blob.data, record)
        except ManifestError as error:
            raise ManifestError(f"{self._store.url}/{error}", path=error.path, tensors=error.tensors) from error

    async def read_state(self, path: str | None = None) -> tuple[StateFile, str | None]:
        """A state file and its etag. Empty where it is missing; where it cannot be read also logged (it gets rebuilt).

        Args:
            path: where it stands; None for that of the saver.
        """
        path = path or self.state_file
        try:
            blob = await self._store.get(path)
        except ObjectNotFoundError:
            return StateFile(), None
        try:
            return await self._threads.run(decode_state, blob.data, path), blob.info.etag
        except (ManifestError, ModuleNotFoundError) as error:
            log.warning("%s/%s cannot be read and is rebuilt from the manifests: %s", self._store.url, path, error)
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


def _lists(listed: Iterable[Listed], path: str) -> bool:
    return any(item.path == path for item in listed)


def _assemble(
    folders: Mapping[str, Folder],
    entries: list[Entry],
    damaged: Mapping[str, ManifestError],
    state: StateFile,
    other: StateFile,
) -> tuple[Catalog, dict[str, Entry]]:
    """The catalog, and its entries by the path of their record."""
    preserved = [one.last_preserved for one in (state, other) if one.last_preserved is not None]
    catalog = replace(
        build_catalog(folders, entries, damaged), seen=state.by_path(), last_preserved=max(preserved, default=None)
    )
    return catalog, {entry.path: entry for entry in entries}


def _has_changed(listed: Listed, read: FoundRecord | None) -> bool:
    if read is None:
        return True
    known = listed.etag is not None and read.etag is not None
    return known and listed.etag != read.etag and not isinstance(read.record, CommitRecord)
