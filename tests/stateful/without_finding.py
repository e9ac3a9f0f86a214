"""Savers that lack one safeguard where they look for checkpoints: name → what takes it away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from asyncsaver.catalog import reader
from asyncsaver.catalog.reader import CatalogReader
from asyncsaver.model.catalog import Catalog, Folder, sort_entries, sort_into_folders
from asyncsaver.model.statefile import Entry
from asyncsaver.restore import find

Mutant = Callable[[pytest.MonkeyPatch], None]


def the_state_file_taken_for_the_truth(patch: pytest.MonkeyPatch) -> None:
    load = CatalogReader.load

    async def believe(self: CatalogReader) -> Catalog:
        state, _ = await self.read_state()
        if not state.entries:
            return await load(self)
        listing = await self._store.list()
        found = sort_entries(state.entries)
        folders = sort_into_folders(listing.objects, self._naming)
        return Catalog(found.checkpoints, found.superseded, found.retired, {}, folders, state.by_path())

    patch.setattr(CatalogReader, "load", believe)


def versions_not_compared(patch: pytest.MonkeyPatch) -> None:
    """An entry of the state file stands for whatever is listed at its slot."""
    look = CatalogReader._look

    async def any_version(self: CatalogReader) -> tuple[Catalog, bool]:
        listing = await self._store.list()
        state, _ = await self.read_state()
        versions = {item.path: item.etag for item in listing.objects}
        self._known = {
            path: msgspec.structs.replace(entry, etag=versions[path])
            for path, entry in {**state.by_path(), **self._known}.items()
            if path in versions
        }
        return await look(self)

    patch.setattr(CatalogReader, "_look", any_version)


def data_without_a_commit_taken_for_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    build = reader.build_catalog

    def build_catalog(
        folders: Mapping[str, Folder], entries: Iterable[Entry], damaged: Mapping[str, Exception]
    ) -> Catalog:
        known = list(entries)
        recorded = {save_id for entry in known for save_id in (entry.save_id, *entry.condemned)}
        imagined = [
            Entry(
                state="committed",
                name=folder.name,
                step=folder.step,
                slot=max(folder.slots, default=-1) + 1,
                etag=None,
                created=datetime(2030, 1, 1, tzinfo=UTC),
                save_id=save_id,
            )
            for folder in folders.values()
            for save_id in folder.saves
            if save_id not in recorded
        ]
        return build(folders, [*known, *imagined], damaged)

    patch.setattr(reader, "build_catalog", build_catalog)


def the_highest_step_taken_for_the_latest(patch: pytest.MonkeyPatch) -> None:
    def newest_of(catalog: Catalog) -> Entry | None:
        return max(catalog.checkpoints, key=lambda entry: -1 if entry.step is None else entry.step, default=None)

    patch.setattr(find, "newest_of", newest_of)


def the_lowest_slot_taken_for_the_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """Of one that was overwritten, the old one."""
    build = reader.build_catalog

    def build_catalog(
        folders: Mapping[str, Folder], entries: Iterable[Entry], damaged: Mapping[str, Exception]
    ) -> Catalog:
        found = build(folders, entries, damaged)
        older = {entry.name: entry for entry in reversed(found.superseded)}
        return replace(found, checkpoints=[older.get(entry.name, entry) for entry in found.checkpoints])

    patch.setattr(reader, "build_catalog", build_catalog)


FINDING: Mapping[str, Mutant] = {
    one.__name__: one
    for one in (
        the_state_file_taken_for_the_truth,
        versions_not_compared,
        data_without_a_commit_taken_for_a_checkpoint,
        the_highest_step_taken_for_the_latest,
        the_lowest_slot_taken_for_the_checkpoint,
    )
}
