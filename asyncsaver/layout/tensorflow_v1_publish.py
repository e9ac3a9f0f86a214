"""Publishing V1 files: they are copied from the folder of the save that was committed to where TensorFlow looks for them.

Each file says in a note which save has written it, so what stands at ``P`` can be told from what somebody else has put there,
and from what an older save of ours has: that is replaced again, should a copy of it come late. A mark in the folder of the
save says that all of it once stood: what is missing then was deleted by others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.catalog.root import Root
from asyncsaver.errors import ManifestError
from asyncsaver.formats import native
from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.formats.tensorflow.naming import RECORDS
from asyncsaver.layout.tensorflow_evidence import Evidence
from asyncsaver.layout.tensorflow_names import decode_as, is_data, shards_of
from asyncsaver.layout.tensorflow_v1_names import TablePlan, is_lost, is_published, mark_path, tables_of
from asyncsaver.model.catalog import Listed
from asyncsaver.model.manifest import Aborted, Deleted, FileEntry
from asyncsaver.model.names import part_path
from asyncsaver.restore.recorded import note_of
from asyncsaver.save.exclusive import read_if_there
from asyncsaver.save.tensorflow_v1 import copy
from asyncsaver.store.contract import Blob, ObjectInfo

log = logging.getLogger("asyncsaver")


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands where the files of a save are to be published.

    Attributes:
        name: of the checkpoint.
        save_id: of the save.
        tables: of `tables_of`.
        objects: what is listed there, by path.
        state: "published": as it should be; "stale": something of ours, or nothing yet; "lost": somebody else has deleted it;
            "replaced": somebody else has put another checkpoint there.
        marked: whether it is marked as published.
        index: what stands at ``P.index``, if that is ours.
        plan: of the save, where it matters.
        stale: paths that are to be written.
    """

    name: str
    save_id: str
    tables: Mapping[str, Listed]
    objects: Mapping[str, ObjectInfo]
    state: Literal["published", "stale", "lost", "replaced"]
    marked: bool
    index: Blob | None
    plan: TablePlan | None
    stale: Collection[str]


class Tables:
    """The published V1 files of one saver.

    Args:
        outer: where TensorFlow's files are.
        records: where our records of them are.
        evidence: about indices.

    Attributes:
        copying: names of checkpoints that are being published.
        turn: of whoever publishes or deletes them in this process.
    """

    def __init__(self, outer: Root, records: Root, evidence: Evidence) -> None:
        self._outer = outer
        self._records = records
        self._evidence = evidence
        self.copying: set[str] = set()
        self.turn = asyncio.Lock()

    async def look(self, found: FolderRecords, save_id: str) -> Standing | None:
        """See what stands where a save is to be published; None where it is none of V1."""
        name = found.folder.name
        saved = found.folder.saves.get(save_id, ())
        tables = tables_of(saved, name)
        if not tables:
            return None
        objects = {item.path: item for item in (await self._outer.store.list(delimiter=True)).objects}
        notes = {path: await note_of(self._outer.store, objects[path]) for path in tables if path in objects}
        index = await read_if_there(self._outer, index_path(name)) if index_path(name) in objects else None
        ours = known_saves(found)
        strangers = [
            path
            for path, note in notes.items()
            # What has just our size is a file of ours whose beginning is damaged: nobody else writes notes.
            if note not in ours and not (note is None and objects[path].size == tables[path].size)
        ]
        if index is not None and not await self._evidence.is_ours(name, index):
            strangers.append(index_path(name))
            index = None
        stale = [
            path for path, table in tables.items() if notes.get(path) != save_id or objects[path].size != table.size
        ]
        marked = is_published(saved)
        standing = Standing(name, save_id, tables, objects, "stale", marked, index, None, stale)
        if strangers and marked:
            return replace(standing, state="replaced")
        if is_lost(name, saved, tables, objects, alone=_is_alone(found, save_id)):
            return replace(standing, state="lost")
        if not marked:
            standing = replace(standing, plan=await self._plan_of(saved))
        replaced = [] if standing.plan is None else standing.plan.stranger
        if any(described(objects[path]) not in replaced for path in strangers):
            return replace(standing, state="replaced")
        return standing if stale else replace(standing, state="published")

    async def show(self, standing: Standing) -> None:
        """Copy what is not as it should be.

        Raises:
            CheckpointCorruptError, ManifestError, ObjectNotFoundError: what was written is damaged, or gone.
            StoreError: the store failed.
        """
        path = part_path(standing.name, standing.save_id, 0)
        part = native.decode_part((await self._records.store.get(path)).data, path)
        files = {file.path: file for file in part.files}
        turns = asyncio.Semaphore(self._outer.concurrency)

        async def one(path: str) -> None:
            async with turns:
                file = files[standing.tables[path].path]
                await copy(self._outer, FileEntry(f"{RECORDS}/{file.path}", file.size, file.crc32c), path)

        self.copying.add(standing.name)
        try:
            await run_all(one(path) for path in standing.stale)
        finally:
            self.copying.discard(standing.name)

    async def finish(self, standing: Standing) -> None:
        """All of it stands: what it replaces goes, and it is marked."""
        going = [] if standing.index is None else [index_path(standing.name)]
        if standing.plan is not None:
            there = {described(item): path for path, item in standing.objects.items()}
            going += [there[one] for one in standing.plan.stranger if one in there and one[0] not in standing.tables]
        await self._delete(going)
        if not standing.marked:
            await self._records.store.put(mark_path(standing.name, standing.save_id), b"{}")

    async def withdraw(self, found: FolderRecords, *, save_id: str | None = None) -> bool:
        """Delete the single file of a save that was deleted, any or this one; False where it was there."""
        name = found.folder.name
        item = next(
            (item for item in (await self._outer.store.list(delimiter=True)).objects if item.path == name), None
        )
        if item is None:
            return True
        note = await note_of(self._outer.store, item)
        if note is None or note not in ({save_id} if save_id else known_saves(found)):
            return True
        await self._delete([name])
        return False

    async def without_strangers(self, files: Sequence[ObjectInfo]) -> list[str]:
        """Paths of these files ``-of-N``, of either version, but for those of V1 that no save of ours has written."""
        notes = await run_all(_noted(self._outer, item) for item in files)
        return [item.path for item, ours in zip(files, notes, strict=True) if ours]

    async def _delete(self, paths: list[str]) -> None:
        if paths:
            for error in (await self._outer.store.delete(paths)).values():
                raise error

    async def _plan_of(self, saved: Collection[Listed]) -> TablePlan | None:
        """What a save was going to do; None where that is gone, or damaged."""
        for item in saved:
            if shards_of(item.path) is not None and (blob := await read_if_there(self._records, item.path)) is not None:
                try:
                    return decode_as(blob.data, item.path, TablePlan)
                except ManifestError as error:
                    log.warning("%s/%s", self._records.store.url, error)
        return None


async def _noted(outer: Root, item: ObjectInfo) -> bool:
    return is_data(item.path) or await note_of(outer.store, item) is not None


def known_saves(found: FolderRecords) -> set[str]:
    """Every save of a checkpoint that may have been published: those with a record, and those of which something is left."""
    recorded = {one.record.save_id for one in found.records.values() if not isinstance(one.record, Aborted)}
    return {save_id for save_id in (*recorded, *found.folder.saves) if save_id}


def described(item: ObjectInfo) -> tuple[str, int, str]:
    """What tells a file of somebody else's from what they put there later: path, size in bytes, and version."""
    return item.path, item.size, item.etag or str(item.modified)


def _is_alone(found: FolderRecords, save_id: str) -> bool:
    """As `is_alone`, of records that were read."""
    others = (one.record for one in found.records.values() if not isinstance(one.record, Aborted))
    return not any(isinstance(one, Deleted) or one.save_id != save_id for one in others)
