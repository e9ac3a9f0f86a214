"""Sweep: remove what dead attempts to save have left, once they can never commit any more."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import partial

from asyncsaver.catalog.root import Root
from asyncsaver.errors import ObjectExistsError, ObjectNotFoundError, StoreError
from asyncsaver.formats import native
from asyncsaver.model.catalog import Catalog, Folder, Listed, next_slot
from asyncsaver.model.manifest import Aborted, CommitRecord
from asyncsaver.model.names import Naming, save_folder, slot_path
from asyncsaver.prune.clock import store_time
from asyncsaver.prune.report import SweepReport, Swept
from asyncsaver.prune.retire import remove_markers
from asyncsaver.store.probe import PROBE_FOLDER

log = logging.getLogger("asyncsaver")
_TRIES = 10


def check_grace(grace: object) -> timedelta:
    """A grace given in seconds or as a timedelta; raises `TypeError` or `ValueError` for anything else."""
    if isinstance(grace, bool) or not isinstance(grace, int | float | timedelta):
        raise TypeError(f"grace must be seconds or a timedelta, not {type(grace).__name__}")
    try:
        quiet = grace if isinstance(grace, timedelta) else timedelta(seconds=grace)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"grace must be a number of seconds that a timedelta can hold, not {grace}") from error
    if quiet < timedelta(0):
        raise ValueError(f"grace must not be negative, not {grace}")
    return quiet


async def sweep_root(root: Root, *, grace: timedelta, writer: str, dry_run: bool = False) -> SweepReport:
    """Fence and delete the leftovers of attempts whose newest object is older than ``grace`` by the store's clock.

    An attempt that is still alive but was quiet for longer finds the fence when it wants to commit, and fails with
    `SaveAbortedError`. Attempts of this saver are left alone.

    Args:
        root: where.
        grace: how long an attempt may be quiet before it counts as dead.
        writer: goes into fences.
        dry_run: only say what would be removed.
    """
    catalog = await root.load()
    if root.companions is not None and not dry_run:
        await root.companions.recover(catalog)
    # A dry run writes nothing, not even to learn the store's time: our clock has to do for a forecast.
    now = max(root.now(), root.store_time or root.now()) if dry_run else await store_time(root)
    swept: list[Swept] = []
    young: list[str] = []
    recorded_of: dict[str, set[str]] = {}
    for entry in catalog.entries:
        if entry.save_id:
            recorded_of.setdefault(entry.name, set()).add(entry.save_id)
    for folder in catalog.folders.values():
        recorded = recorded_of.get(folder.name, set())
        unreadable = [slot for slot in folder.slots if slot_path(folder.name, slot) in catalog.damaged]
        if unreadable:
            continue  # whose data these are cannot be told
        dead: dict[str, list[Listed]] = {}
        for save_id, objects in folder.saves.items():
            if save_id in recorded or save_id in root.own_saves:
                continue
            if _quiet_for(objects, now) >= grace:
                dead[save_id] = objects
            else:
                young.append(save_id)
        if dead and not dry_run and not _fenced(folder, catalog).issuperset(dead):
            dead = {save_id: dead[save_id] for save_id in await fence(root, folder, list(dead), writer=writer)}
        for save_id, objects in dead.items():
            error = None if dry_run else await _delete(root, folder.name, save_id)
            swept.append(Swept(folder.name, save_id, len(objects), sum(item.size for item in objects), error))
        # A save that is in flight may have put its pin already.
        quiet = folder.saves.keys() <= {*recorded, *dead} and folder.name not in root.own_saves.values()
        marked = folder.pinned or folder.preserved
        if not dry_run and quiet and marked and catalog.by_name(folder.name) is None:
            await _remove_marks(root, folder.name, gone={*recorded, *dead})
    if not dry_run:
        await _remove_probes(root, now, grace)
        own = [save_folder(name, save_id) for save_id, name in root.own_saves.items()]
        await root.store.purge(grace, spare=own, vacant=partial(_is_ours, root.naming))
        if root.companions is not None:
            await root.companions.purge(grace)
    return SweepReport(swept, young, dry_run)


def _fenced(folder: Folder, catalog: Catalog) -> set[str]:
    """The attempts for which an earlier sweep got through with its fences.

    It took the slots from the lowest on, and may have been interrupted: only a fence above all other records, without a gap below
    it, is known to have been its last.
    """
    last = max(folder.slots, default=-1)
    if len(folder.slots) <= last:
        return set()
    return {
        save_id
        for entry in catalog.retired
        if entry.path == slot_path(folder.name, last)
        for save_id in entry.condemned
    }


async def fence(root: Root, folder: Folder, save_ids: Collection[str], *, writer: str) -> list[str]:
    """Make sure that none of these attempts can commit any more; returns those of which that is certain.

    Wins an abort record at every free slot up to the first past all records: an attempt that began before targets one of
    those (a prune keeps records that stand while attempts are unfinished, so that the first past all never moves down). An
    attempt that was faster, and has committed, is not returned. Where the store does not create exclusively no fence could
    hold, and one could overwrite a commit: there, what the single writer does not know itself is dead.

    Raises:
        StoreError: other writers kept taking the slots.
    """
    for _ in range(_TRIES):
        found = await root.reader.folder(folder.name)
        taken = {*found.records, *found.damaged}
        if found.folder.slots.keys() - taken:
            continue  # records come and go: what is the first slot past all of them cannot be told from this look
        committed = {getattr(one.record, "save_id", None) for one in found.records.values()}
        condemned = [save_id for save_id in save_ids if save_id not in committed]
        if not condemned or not root.store.capabilities.exclusive_create:
            return condemned
        free = [slot for slot in range(next_slot([], taken) + 1) if slot not in taken]
        if await _take(root, folder, free, condemned, writer=writer):
            return condemned
    raise StoreError(
        f"{root.store.url}/{folder.name}: other savers kept taking the slots, sweep again later", retryable=True
    )


async def _take(root: Root, folder: Folder, slots: Sequence[int], condemned: list[str], *, writer: str) -> bool:
    for slot in slots:
        record = Aborted(
            name=folder.name, step=folder.step, slot=slot, created=root.now(), writer=writer, condemned=condemned
        )
        try:
            await root.store.put(slot_path(folder.name, slot), native.encode(record), mode="create")
        except ObjectExistsError:
            return False
        except StoreError as error:
            if not await _stands(root, record):
                log.info("%s/%s: the fence is unclear: %s", root.store.url, slot_path(folder.name, slot), error)
                return False
    return True


async def _stands(root: Root, record: Aborted) -> bool:
    try:
        found = await root.reader.record(record.name, record.slot)
    except ObjectNotFoundError:
        return False
    return isinstance(found.record, Aborted) and set(record.condemned) <= set(found.record.condemned)


async def _delete(root: Root, name: str, save_id: str) -> str | None:
    try:
        if root.companions is not None:
            await root.companions.remove(name, save_id)
        # Listed once more: the attempt may have written on while it was being fenced.
        listing = await root.store.list(save_folder(name, save_id))
        failed = await root.store.delete([item.path for item in listing.objects])
    except StoreError as error:
        return str(error)
    return next((str(error) for error in failed.values()), None)


def _is_ours(naming: Naming, path: str) -> bool:
    """Whether a folder below the root was made by a saver that names checkpoints like this one."""
    first = path.partition("/")[0]
    return f"{first}/" == PROBE_FOLDER or naming.parse(first)[0]


async def _remove_marks(root: Root, name: str, *, gone: Collection[str]) -> None:
    # Looked at once more: a save with a pin may have begun while other folders were swept.
    found = await root.reader.folder(name)
    if found.damaged or not found.folder.saves.keys() <= set(gone):
        return
    if any(isinstance(one.record, CommitRecord) for one in found.records.values()):
        return
    try:
        await remove_markers(root, name)
    except StoreError as error:
        log.warning("%s/%s: marks of a dead save stay for the next sweep: %s", root.store.url, name, error)


async def _remove_probes(root: Root, now: datetime, grace: timedelta) -> None:
    listing = await root.store.list(PROBE_FOLDER)
    old = [item.path for item in listing.objects if _quiet_for([item], now) >= grace]
    if old:
        await root.store.delete(old)


def _quiet_for(objects: Sequence[Listed], now: datetime) -> timedelta:
    """How long ago the newest was written; nothing where the store gives no times, so that only a grace of 0 removes them."""
    times = [item.modified for item in objects if item.modified is not None]
    return max(now - max(times), timedelta(0)) if len(times) == len(objects) else timedelta(0)
