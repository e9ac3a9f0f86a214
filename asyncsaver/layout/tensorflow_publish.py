"""Publishing: the index of what was committed goes to where TensorFlow looks for it.

What must stand at ``P.index`` is the copy of the highest committed record of ``P``, or nothing: that is looked at and put right
again and again, by whoever comes next. An index that somebody else has written there since is left alone.

Nothing says to a request that creates an index whether the checkpoint still stands: sent late, it would bring an index
back whose data are gone. So whoever is about to send one says so first, in the folder of the save, looks at the record once more,
and takes it back when it has an answer; until then nobody deletes the data.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass

from asyncsaver.aio.completion import to_completion
from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    CheckpointCorruptError,
    ManifestError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreError,
)
from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.layout.tensorflow_evidence import Evidence
from asyncsaver.layout.tensorflow_names import (
    SIDECAR_COPY,
    Plan,
    hold_path,
    is_hold,
)
from asyncsaver.layout.tensorflow_v1_names import tables_of
from asyncsaver.layout.tensorflow_v1_publish import Standing, Tables
from asyncsaver.model.manifest import CommitRecord
from asyncsaver.model.names import save_folder
from asyncsaver.save.exclusive import read_if_there
from asyncsaver.store.contract import Blob
from asyncsaver.store.retry import full_jitter
from asyncsaver.tensorflow.files import meta_graph_filename

log = logging.getLogger("asyncsaver")
_TRIES = 20


@dataclass(slots=True)
class Ready:
    """What this process has written, and is about to commit and to publish.

    Attributes:
        index: what is to be published.
        plan: of the attempt.
        standing: what was to be replaced when the attempt began; None where nothing was there.
        committed: that it is.
    """

    index: bytes
    plan: Plan
    standing: Blob | None
    committed: bool = False


@dataclass(slots=True)
class _Hold:
    """That this process may be about to publish a save.

    Attributes:
        path: of the file that says so, among the records.
        answered: every request was, so that none can land any more.
    """

    path: str
    answered: bool = True


class Publisher:
    """Publishes, for one saver.

    Args:
        outer: where TensorFlow's files are.
        records: where our records of them are.

    Attributes:
        evidence: about both.
        tables: V1 files.
    """

    def __init__(self, outer: Root, records: Root) -> None:
        self._outer = outer
        self._records = records
        self.evidence = Evidence(outer, records)
        self.tables = Tables(outer, records, self.evidence)
        self._ready: dict[str, Ready] = {}
        self._holds: dict[str, _Hold] = {}

    async def prepare(self, name: str, ready: Ready) -> None:
        """An attempt is about to commit: hold its data, and remember what is to be published then."""
        self._ready[name] = ready
        await self.hold(name, ready.plan.save_id)

    async def hold(self, name: str, save_id: str) -> None:
        """An attempt is about to commit: hold its data."""
        hold = self._holds[save_id] = self._new_hold(name, save_id)
        await self._records.store.put(hold.path, b"{}")

    def committed(self, name: str, save_id: str) -> None:
        """An attempt has committed."""
        ready = self._ready.get(name)
        if ready is not None and ready.plan.save_id == save_id:
            ready.committed = True

    def forget(self, name: str, save_id: str) -> None:
        """An attempt has failed."""
        ready = self._ready.get(name)
        if ready is not None and ready.plan.save_id == save_id:
            del self._ready[name]
        self._holds.pop(save_id, None)

    async def publish(self, name: str, found: FolderRecords | None = None) -> None:
        """Let ``P.index`` be what it should be. Runs to its end even when cancelled; see `Companions.publish`.

        Args:
            name: of the checkpoint.
            found: its records as they were a moment ago, if that is known: what is done then is looked at again.
        """
        await to_completion(self._publish(name, found))

    async def _publish(self, name: str, seen: FolderRecords | None) -> None:
        ready = self._ready.get(name)
        if ready is not None and ready.committed:
            del self._ready[name]
            if await self._show(name, ready.index, ready.plan, ready.standing, self._holds[ready.plan.save_id]):
                await self._finish(ready.plan, interrupted=True)
                return
        made: dict[str, _Hold] = {}
        rng = random.Random(self._records.random_bits(64))  # noqa: S311 - spreads load, guards nothing
        try:
            for attempt in range(_TRIES):
                if attempt > 2:  # overtaken: wait a little, or two publishers might keep in step
                    await asyncio.sleep(full_jitter(attempt, rng=rng, base=0.01, cap=1.0))
                found = seen or await self._records.reader.folder(name)
                if await self._converge(name, found, made):
                    return
                seen = None
        finally:
            await self._let_go(made.values())
        path = index_path(name)
        raise StoreError(
            f"{self._outer.store.url}/{path}: {_TRIES} attempts to write it were overtaken or failed",
            retryable=True,
            path=path,
        )

    async def _converge(self, name: str, found: FolderRecords, made: dict[str, _Hold]) -> bool:
        """Do the next thing that is needed; True where nothing was.

        Args:
            name: of the checkpoint.
            found: its records.
            made: holds by save id, of saves that others have committed.
        """
        record = newest_committed(found)
        if isinstance(record, CommitRecord) and tables_of(found.folder.saves.get(record.save_id, ()), name):
            return await self._converge_tables(name, made)
        standing = await read_if_there(self._outer, index_path(name))
        if isinstance(record, ManifestError):
            log.warning("%s: not published: %s", self._outer.store.url, record)
            return True
        if record is None:
            return await self._withdraw(name, standing) and await self._withdraw_table(name)
        index = await self.evidence.copy_of(name, record.save_id)
        plan = None if index is None else await self.evidence.plan_of(name, record.save_id, index)
        if index is None or plan is None:
            log.warning(
                "%s/%s: not published: what was written beside its record is gone, or damaged",
                self._outer.store.url,
                name,
            )
            return True
        if standing is not None and standing.data == index:
            saved = found.folder.saves.get(record.save_id, ())
            await self._finish(plan, interrupted=any(is_hold(item.path) for item in saved))
            return True
        if standing is None:
            if not await self.evidence.data_stand(name, index):
                log.warning("%s/%s: its files were deleted by somebody else", self._outer.store.url, name)
                return True
        elif not await self.evidence.may_replace(name, standing, plan):
            return True
        hold = self._holds.get(record.save_id) or made.get(record.save_id)
        if hold is not None:
            await self._show(name, index, plan, standing, hold)
        else:
            hold = made[record.save_id] = self._new_hold(name, record.save_id)
            await self._records.store.put(hold.path, b"{}")  # and look again: the record may have been deleted before
        return False

    async def _withdraw(self, name: str, standing: Blob | None) -> bool:
        """Nothing is committed: an index of ours goes."""
        if standing is None or not await self.evidence.is_ours(name, standing):
            return True
        for error in (await self._outer.store.delete([index_path(name)])).values():
            raise error
        return False  # somebody may have committed one, and this may have been his

    async def _withdraw_table(self, name: str) -> bool:
        """Likewise a V1 file. Looked at in turn: this process may have committed one meanwhile."""
        async with self.tables.turn:
            found = await self._records.reader.folder(name)
            return newest_committed(found) is None and await self.tables.withdraw(found)

    async def _converge_tables(self, name: str, made: dict[str, _Hold]) -> bool:
        """As `_converge`, of V1. Looked at in turn: what was seen before may be gone."""
        async with self.tables.turn:
            found = await self._records.reader.folder(name)
            record = newest_committed(found)
            tables = await self.tables.look(found, record.save_id) if isinstance(record, CommitRecord) else None
            return tables is not None and await self._show_tables(tables, made)

    async def _show_tables(self, tables: Standing, made: dict[str, _Hold]) -> bool:
        """As `_converge`, of a save of V1 files."""
        where = f"{self._outer.store.url}/{tables.name}"
        if tables.state == "lost":
            log.warning("%s: its files were deleted by somebody else", where)
            return True
        if tables.state == "replaced":
            return True
        hold = self._holds.get(tables.save_id) or made.get(tables.save_id)
        if tables.state == "published":
            await self.tables.finish(tables)
            own = self._holds.pop(tables.save_id, None)
            if own is not None:
                await self._let_go([own])
            return True
        if hold is None:
            hold = made[tables.save_id] = self._new_hold(tables.name, tables.save_id)
            await self._records.store.put(hold.path, b"{}")  # and look again: the record may have been deleted before
            return False
        try:
            if tables.plan is not None:
                await self._show_sidecar(tables.name, tables.plan)
            await self.tables.show(tables)
        except (CheckpointCorruptError, ManifestError, ObjectNotFoundError) as error:
            log.warning("%s: not published: %s", where, error)
            return True
        except StoreError as error:
            hold.answered = hold.answered and not error.retryable
            raise
        return False

    async def _show(self, name: str, index: bytes, plan: Plan, standing: Blob | None, hold: _Hold) -> bool:
        """Write sidecar and index; False where it is not known that they stand."""
        return await self._show_sidecar(name, plan) and await self._put(index_path(name), index, standing, hold)

    async def _show_sidecar(self, name: str, plan: Plan) -> bool:
        """Write the sidecar, if there is one; False where it is not known that it stands."""
        if plan.meta_suffix is None:
            return True
        sidecar = await read_if_there(self._records, save_folder(name, plan.save_id) + SIDECAR_COPY)
        path = meta_graph_filename(name, plan.meta_suffix)
        there = await read_if_there(self._outer, path)
        known = sidecar is None or (there is not None and there.data == sidecar.data)
        return sidecar is None or known or await self._put(path, sidecar.data, there, None)

    async def _put(self, path: str, data: bytes, standing: Blob | None, hold: _Hold | None) -> bool:
        """Write, unless what stands there is not what is to be replaced any more; False where that is not clear."""
        store = self._outer.store
        try:
            if standing is None and store.capabilities.exclusive_create:
                await store.put(path, data, mode="create")
            elif standing is not None and standing.info.etag is not None and store.capabilities.compare_and_swap:
                await store.replace_if(path, data, standing.info.etag)
            else:
                await store.put(path, data)
        except (ObjectExistsError, PreconditionFailedError):
            return False
        except StoreError as error:
            if not error.retryable:
                raise
            if hold is not None:
                hold.answered = False
            log.info("%s/%s: it is not clear whether it was written: %s", store.url, path, error)
            return False
        return True

    def _new_hold(self, name: str, save_id: str) -> _Hold:
        return _Hold(hold_path(name, save_id, self._records.random_bits(64)))

    async def _finish(self, plan: Plan, *, interrupted: bool) -> None:
        """It stands: what it replaces of somebody else's goes, unless that was done already."""
        if plan.superseded and interrupted:
            for error in (await self._outer.store.delete(list(plan.superseded))).values():
                raise error
        hold = self._holds.pop(plan.save_id, None)
        if hold is not None:
            await self._let_go([hold])

    async def _let_go(self, holds: Iterable[_Hold]) -> None:
        """Take back that these may be about to be published, unless some request was not answered."""
        paths = [hold.path for hold in holds if hold.answered]
        if not paths:
            return
        try:
            failed = await self._records.store.delete(paths)
            reason: StoreError | None = next(iter(failed.values()), None)
        except StoreError as error:
            reason = error
        if reason is not None:
            log.warning("%s: what it holds can only be deleted in a month: %s", self._records.store.url, reason)


def newest_committed(found: FolderRecords) -> CommitRecord | ManifestError | None:
    """What is committed at the highest slot, or why that cannot be told."""
    for slot in sorted({*found.records, *found.damaged}, reverse=True):
        if slot in found.damaged:
            return found.damaged[slot]
        record = found.records[slot].record
        if isinstance(record, CommitRecord):
            return record
    return None
