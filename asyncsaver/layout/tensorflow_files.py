"""TensorFlow's files as companions of our records: which there are, whose they are, and removing them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from asyncsaver.aio.tasks import run_all, run_both
from asyncsaver.catalog.companions import Companions
from asyncsaver.catalog.root import Root
from asyncsaver.errors import InvalidStateError, ManifestError, StoreError
from asyncsaver.formats.tensorflow.bundle import decode_shards, index_path
from asyncsaver.formats.tensorflow.naming import RECORDS
from asyncsaver.layout.tensorflow_names import (
    SIDECAR_COPY,
    Claim,
    Plan,
    claim_path,
    data_files,
    decode_plan,
    free_shards,
    is_hold,
    plan_path,
    shards_of,
)
from asyncsaver.layout.tensorflow_publish import Publisher, newest_committed
from asyncsaver.layout.tensorflow_state import StateText
from asyncsaver.layout.tensorflow_v1_names import SINGLE, is_alone, is_lost, is_published, path_of, tables_of
from asyncsaver.model.catalog import Catalog, Folder, Listed
from asyncsaver.model.manifest import CommitRecord, Deleted
from asyncsaver.model.names import save_folder
from asyncsaver.model.statefile import Entry
from asyncsaver.prune.clock import store_time
from asyncsaver.prune.prune import FENCE_TTL, TOMBSTONE_TTL
from asyncsaver.save.exclusive import create_own, read_if_there
from asyncsaver.save.tensorflow_data import MOST_FILES
from asyncsaver.store.contract import Blob, ObjectInfo
from asyncsaver.tensorflow.files import meta_graph_filename

log = logging.getLogger("asyncsaver")
_PAUSES = (0.05, 0.2, 0.5)  # in seconds: publishing takes as long


class TensorFlowFiles(Companions):
    """See `Companions`.

    Args:
        outer: where TensorFlow's files are.
        records: where our records of them are.
        state: the text file that lists checkpoints.

    Attributes:
        publisher: of what was committed.
    """

    def __init__(self, outer: Root, records: Root, state: StateText) -> None:
        self._outer = outer
        self._records = records
        self._state = state
        self.publisher = Publisher(outer, records)
        self._paths: dict[str, str] = {}  # save id → how TensorFlow calls what it has committed

    async def claim(self, name: str, plan: Plan, needed: int, taken: Collection[int]) -> int:
        """Claim names for data files; returns the N of ``-of-N``.

        Args:
            name: of the checkpoint.
            plan: of the attempt; it stands before any file is written.
            needed: how many files there will be.
            taken: N that were found claimed, or in the names of files.

        Raises:
            InvalidStateError: there are no such names left.
            StoreError: the store failed.
        """
        claim = msgspec.json.encode(Claim(plan.save_id))
        for shards in free_shards(taken, needed, MOST_FILES):
            won, _ = await run_both(
                create_own(self._records, claim_path(name, shards), claim), self.plan(name, plan, shards)
            )
            if won:
                return shards
        raise InvalidStateError(
            f"{self._outer.store.url}/{name}: no names are left for {needed} data files; TensorFlow's format has at most "
            f"{MOST_FILES}, and none is used again for a month"
        )

    async def plan(self, name: str, plan: Plan, shards: int) -> None:
        """Write a plan: for these names, without a claim to them."""
        await self._records.store.put(plan_path(name, plan.save_id, shards), msgspec.json.encode(plan))

    def called(self, save_id: str, path: str) -> None:
        """Note how TensorFlow calls what a save is going to commit: by its name, or by a pattern."""
        self._paths[save_id] = path

    async def publish(self, name: str) -> None:
        """See `Companions`."""
        await self.publisher.publish(name)

    async def recover(self, catalog: Catalog, *, dry_run: bool = False) -> Collection[str]:
        """See `Companions`."""
        objects = (await self._outer.store.list(delimiter=True)).objects
        there = {item.path for item in objects}
        lost: list[str] = []
        for entry in catalog.checkpoints:
            saved = catalog.folders[entry.name].saves.get(entry.save_id, ())
            self._paths[entry.save_id] = path_of(saved, entry.name)
            tables = tables_of(saved, entry.name)
            if tables:
                alone = is_alone(catalog, entry)
                if is_lost(entry.name, saved, tables, there, alone=alone):
                    lost.append(entry.name)
                elif not (dry_run or (alone and is_published(saved) and tables.keys() <= there)):
                    await self.publisher.publish(entry.name)
                continue
            held = any(is_hold(item.path) for item in saved)
            published = index_path(entry.name) in there
            missing = not published and not data_files(objects, entry.name)
            if missing and await self.publisher.evidence.is_lost(entry.name, entry.save_id):
                lost.append(entry.name)
            elif (held or not published) and not dry_run:
                await self.publisher.publish(entry.name)
        if not dry_run:
            committed = {entry.name for entry in catalog.checkpoints}
            for name in catalog.folders.keys() - committed:
                if not there.isdisjoint((index_path(name), name)):
                    await self.publisher.publish(name)  # brought back by a request that was carried out late, perhaps
        return lost

    async def announce(
        self,
        staying: Sequence[Entry],
        leaving: Collection[str],
        gone: Collection[str],
        last_preserved: datetime | None,
    ) -> None:
        """See `Companions`."""
        if staying:
            paths = await run_all(self._path_of(entry.name, entry.save_id) for entry in staying)
            named = [(path, entry.created) for path, entry in zip(paths, staying, strict=True)]
            names = {entry.name for entry in staying}
            await self._state.announce(named, {*leaving, *names}, gone, last_preserved)

    async def remove(self, name: str, save_id: str) -> None:
        """See `Companions`."""
        found = await self._records.reader.folder(name)
        saved = found.folder.saves.get(save_id, ())
        deleted = any(
            isinstance(one.record, Deleted) and one.record.save_id == save_id for one in found.records.values()
        )
        if deleted:
            await self.publisher.publish(name, found)
            if tables_of(saved, name):
                # At once: should one of them come back late, it needs nothing that is gone.
                await self._remove_tables(name, save_id, saved)
            await self._wait_for_holds(save_folder(name, save_id), saved)
        objects = (await self._outer.store.list(delimiter=True)).objects
        for shards in [shards for item in saved if (shards := shards_of(item.path)) is not None]:
            if shards == SINGLE:
                if deleted:
                    await self._remove_single(name, save_id)
            elif await self.publisher.evidence.owner_of(name, shards) != save_id:
                continue
            objects = await self._remove_data(name, shards, objects)
            if deleted and any(item.path.endswith(f"/{SIDECAR_COPY}") for item in saved):
                await self._remove_sidecar(name, plan_path(name, save_id, shards))
            await self._renew(claim_path(name, shards))
        await self._expire(found.folder, data_files(objects, name))
        self._paths.pop(save_id, None)

    async def purge(self, grace: timedelta) -> None:
        """See `Companions`. Claims that nothing needs go when no request can be on its way any more."""
        own = [f"{RECORDS}/{save_folder(name, save_id)}" for save_id, name in self._records.own_saves.items()]
        own += [f"{name}.data-" for name in self._records.own_saves.values()]
        own += self.publisher.tables.copying
        await self._outer.store.purge(grace, spare=own, vacant=self._is_ours)
        catalog = await self._records.load()
        self._records.saw_store_time([await store_time(self._records)])
        now = self._records.store_time or self._records.now()
        files = (await self._outer.store.list(delimiter=True)).objects
        modified = {item.path: item.modified for item in files}
        for folder in catalog.folders.values():
            theirs = data_files(files, folder.name)
            for shards in _loose(folder):
                left = theirs.get(shards, ())
                quiet = all(now - (modified[path] or now) >= grace for path in left)
                if left and quiet and not await self._is_needed(folder.name, shards):
                    await self._remove_data(folder.name, shards, files)
                    await self._renew(claim_path(folder.name, shards))
            await self._expire(folder, theirs)

    async def _expire(self, folder: Folder, theirs: Mapping[int, Sequence[str]]) -> None:
        """Delete claims that nothing needs, when no request can be on its way any more."""
        now = self._records.store_time or self._records.now()
        expired: list[str] = []
        for shards, modified in _loose(folder).items():
            # While a higher one stands this one does not come up again, however soon it goes.
            ttl = TOMBSTONE_TTL if shards < max(folder.claims) else FENCE_TTL
            if shards not in theirs and modified is not None and modified + ttl < now:
                expired.append(claim_path(folder.name, shards))
        if expired:
            for error in (await self._records.store.delete(expired)).values():
                raise error

    async def _is_needed(self, name: str, shards: int) -> bool:
        """Whether the save that has claimed data files may still be written, or read."""
        save_id = await self.publisher.evidence.owner_of(name, shards)
        # Its plan stood before any of them was written. If it is gone, the save has failed, or was deleted.
        return save_id is None or bool((await self._records.store.list(save_folder(name, save_id))).objects)

    async def _remove_data(self, name: str, shards: int, objects: Sequence[ObjectInfo]) -> Sequence[ObjectInfo]:
        """Delete data files, unless somebody else's index names them by now.

        Args:
            name: of the checkpoint.
            shards: N of ``-of-N``.
            objects: what was listed a moment ago.

        Returns:
            What is listed now.
        """
        named = data_files(objects, name).get(shards, [])
        files = await self.publisher.tables.without_strangers([item for item in objects if item.path in named])
        if not files or await self._names(name, shards):
            return objects
        for error in (await self._outer.store.delete(files)).values():
            raise error
        objects = (await self._outer.store.list(delimiter=True)).objects
        left = [item.path for item in objects if item.path in files]
        if left:
            raise StoreError(
                f"{self._outer.store.url}/{left[0]} is still listed after it was deleted", retryable=True, path=left[0]
            )
        return objects

    async def _remove_tables(self, name: str, save_id: str, saved: Sequence[Listed]) -> None:
        """Delete what was published of a save of V1."""
        for shards in [shards for item in saved if (shards := shards_of(item.path)) is not None]:
            if shards == SINGLE:
                await self._remove_single(name, save_id)
            elif await self.publisher.evidence.owner_of(name, shards) == save_id:
                await self._remove_data(name, shards, (await self._outer.store.list(delimiter=True)).objects)

    async def _remove_single(self, name: str, save_id: str) -> None:
        """Delete the one file of a save of V1, unless it is about to be replaced by that of another one."""
        tables = self.publisher.tables
        async with tables.turn:
            found = await self._records.reader.folder(name)
            record = newest_committed(found)
            if isinstance(record, CommitRecord) and name in tables_of(found.folder.saves.get(record.save_id, ()), name):
                return
            await tables.withdraw(found, save_id=save_id)

    async def _path_of(self, name: str, save_id: str) -> str:
        """How TensorFlow calls a checkpoint."""
        if save_id not in self._paths:
            self._paths[save_id] = path_of((await self._records.store.list(save_folder(name, save_id))).objects, name)
        return self._paths[save_id]

    async def _renew(self, path: str) -> None:
        """Write a claim once more, so that its time counts from now: a deletion sent twice must meet nobody else's files."""
        blob = await read_if_there(self._records, path)
        if blob is not None:
            await self._records.store.put(path, blob.data)

    async def _names(self, name: str, shards: int) -> bool:
        standing = await read_if_there(self._outer, index_path(name))
        if standing is None:
            return False
        try:
            return await self._outer.threads.run(decode_shards, standing.data, index_path(name)) == shards
        except ManifestError:
            return False

    async def _remove_sidecar(self, name: str, path: str) -> None:
        """Delete the sidecar of a save that was published, unless there is another one by now.

        Args:
            name: of the checkpoint.
            path: of the plan of the save.
        """
        blob = await read_if_there(self._records, path)
        try:
            suffix = None if blob is None else decode_plan(blob.data, path).meta_suffix
        except ManifestError as problem:
            log.warning("%s/%s", self._records.store.url, problem)
            return
        if suffix is None:
            return
        copy = await read_if_there(self._records, path.rpartition("/")[0] + "/" + SIDECAR_COPY)
        standing = meta_graph_filename(name, suffix)
        there = await read_if_there(self._outer, standing)
        if copy is not None and there is not None and there.data == copy.data and not await self._is_kept(name, copy):
            for error in (await self._outer.store.delete([standing])).values():
                raise error

    async def _is_kept(self, name: str, sidecar: Blob) -> bool:
        """Whether what is committed now has the same sidecar."""
        record = newest_committed(await self._records.reader.folder(name))
        if not isinstance(record, CommitRecord):
            return False
        copy = await read_if_there(self._records, save_folder(name, record.save_id) + SIDECAR_COPY)
        return copy is not None and copy.data == sidecar.data

    async def _wait_for_holds(self, folder: str, saved: Sequence[Listed]) -> None:
        """Wait while somebody may be about to write an index that names data that are to go.

        Raises:
            StoreError: it takes longer; who it was may have died.
        """
        if not self._outer.store.capabilities.exclusive_create:
            return  # there is one writer only, and this is it
        held: list[str] = []
        for pause in (*_PAUSES, None):
            now = self._records.store_time or self._records.now()
            held = [
                item.path
                for item in saved
                if is_hold(item.path) and (item.modified is None or item.modified + FENCE_TTL >= now)
            ]
            if not held:
                return
            if pause is not None:
                await asyncio.sleep(pause)
                saved = (await self._records.store.list(folder)).objects
        raise StoreError(
            f"{self._records.store.url}/{held[0]}: somebody was about to publish it and may have died; its files can be deleted "
            "when that was a month ago",
            path=held[0],
        )

    def _is_ours(self, path: str) -> bool:
        """Whether a folder was made by us, and may go when it is empty."""
        first, _, rest = path.partition("/")
        return first == RECORDS and (not rest or self._records.naming.parse(rest.partition("/")[0])[0])


def _loose(folder: Folder) -> dict[int, datetime | None]:
    """The claims to data files of a checkpoint that no save has a plan for any more: N → when they were written."""
    planned = {shards_of(item.path) for objects in folder.saves.values() for item in objects}
    return {shards: item.modified for shards, item in folder.claims.items() if shards not in planned}
