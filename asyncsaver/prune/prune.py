"""Prune: carry out what retention decides, finish what earlier prunes began, and forget old tombstones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.catalog.root import Root
from asyncsaver.errors import ManifestError, StoreError
from asyncsaver.model.catalog import Sorted, sort_entries
from asyncsaver.model.names import PRESERVED_MARKER
from asyncsaver.model.retention import RetentionPolicy, decide
from asyncsaver.model.statefile import Entry, StateFile, entry_of
from asyncsaver.prune.clock import store_time
from asyncsaver.prune.report import Pruned, PruneReport
from asyncsaver.prune.retire import remove_files, retire

log = logging.getLogger("asyncsaver")
TOMBSTONE_TTL = timedelta(days=1)
FENCE_TTL = timedelta(days=31)
_AT_ONCE = 8


@dataclass(slots=True)
class Changes:
    """What a prune has changed, for the state file, and what it knows already.

    Attributes:
        seen: name of a checkpoint → its folder, as it was a moment ago.
        entries: new tombstones, and checkpoints newly preserved.
        gone: paths of records that stand no more.
        errors: path of a record → why it, or its files, could not be deleted.
    """

    seen: Mapping[str, FolderRecords] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    errors: dict[str, Exception] = field(default_factory=dict)


async def prune_root(
    root: Root, policy: RetentionPolicy, *, began: datetime, writer: str, dry_run: bool = False
) -> PruneReport:
    """Prune what the root really holds, whatever the state file says; see `prune_entries`.

    Args:
        root: where.
        policy: which checkpoints stay.
        began: where `KeepEveryHours` counts from if nothing is recorded yet.
        writer: goes into tombstones.
        dry_run: only say what would be done; writes nothing.
    """
    catalog = await root.load()
    lost: Collection[str] = ()
    if root.companions is not None:
        lost = await root.companions.recover(catalog, dry_run=dry_run)
    if not dry_run:
        root.saw_store_time([await store_time(root)])
    late = root.store_time or root.now()

    def change(state: StateFile) -> StateFile:
        return state.reconciled(catalog.entries, late=late, began=began, seen=catalog.seen)

    if dry_run:
        state = change(StateFile(entries=catalog.entries, last_preserved=catalog.last_preserved))
    else:
        state = await root.update_state(change)
    return await prune_entries(root, policy, state, writer=writer, dry_run=dry_run, lost=lost)


async def prune_entries(
    root: Root,
    policy: RetentionPolicy,
    state: StateFile,
    *,
    writer: str,
    dry_run: bool = False,
    lost: Collection[str] = (),
    saved: str | None = None,
) -> PruneReport:
    """Decide on the checkpoints that a state lists, and delete those that are not kept.

    Interrupted anywhere, it leaves every checkpoint whole or invisible, and the next prune finishes it.

    Args:
        root: where they are.
        policy: which stay.
        state: as read from, or checked against, the store. Checkpoints that it does not list stay.
        writer: goes into tombstones.
        dry_run: only say what would be done.
        lost: names of checkpoints of which nothing but the record is left.
        saved: the name of the one that was saved a moment ago.

    Raises:
        StoreError: the store cannot be reached at all. What could not be deleted is in the report.
    """
    found = sort_entries(state.entries)
    gone = [entry for entry in found.checkpoints if entry.name in lost]
    there = [entry for entry in found.checkpoints if entry.name not in lost]
    verdict = decide(there, policy, last_preserved=state.last_preserved, in_use=root.in_use)
    replaced = [entry for entry in found.superseded if entry.name not in root.in_use]
    changes = Changes()
    if not dry_run:
        standing = await _look_at(root, [decision.entry for decision in verdict.decisions if not decision.keep])
        changes.seen = standing
        replaced += _unlisted(standing.values(), found)
        if any(folder.folder.pinned or folder.folder.preserved for folder in standing.values()):
            marked = [_with_marks(entry, standing.get(entry.name)) for entry in there]
            verdict = decide(marked, policy, last_preserved=state.last_preserved, in_use=root.in_use)
        going = [one.entry for one in verdict.decisions if not one.keep and one.entry.name in standing]
        for decision in verdict.decisions:
            if decision.entry.name in verdict.preserved:
                # The mark comes first: until it stands, nothing says that this checkpoint is kept for good.
                await root.store.put(f"{decision.entry.name}/{PRESERVED_MARKER}", b"{}")
                changes.entries[decision.entry.path] = msgspec.structs.replace(decision.entry, preserved=True)
        if root.companions is not None:
            staying = verdict.staying
            # One that is kept for good, and was saved again, is the latest all the same.
            newest = max(there, key=lambda entry: entry.order, default=None)
            if newest is not None and newest.preserved and newest.name == saved:
                staying = [*staying, newest]
            leaving = {entry.name for entry in found.checkpoints} - {entry.name for entry in staying}
            retired = {entry.name for entry in found.retired} - {entry.name for entry in found.checkpoints}
            await root.companions.announce(staying, leaving, retired, verdict.last_preserved)
        unfinished = [entry for entry in found.retired if entry.unfinished]
        await delete_entries(root, [*unfinished, *replaced, *gone, *going], changes, writer=writer)
        await _forget(root, found, changes)
        if changes.entries or changes.gone or verdict.last_preserved != state.last_preserved:
            await _record(root, changes, verdict.last_preserved)
    standing_now = {entry.name: entry.path for entry in found.checkpoints}
    lines = [
        Pruned(entry.name, entry.step, False, f"replaced by {path}", entry.total_bytes, _error(changes, entry))
        for entry in replaced
        if (path := standing_now.get(entry.name)) is not None
    ]
    lines += [
        Pruned(entry.name, entry.step, False, "deleted by others", entry.total_bytes, _error(changes, entry))
        for entry in gone
    ]
    lines += [
        Pruned(
            decision.entry.name,
            decision.entry.step,
            decision.keep,
            decision.reason,
            decision.entry.total_bytes,
            _error(changes, decision.entry),
        )
        for decision in verdict.decisions
    ]
    return PruneReport(lines, dry_run, [entry.name for entry in verdict.staying])


async def _look_at(root: Root, entries: Sequence[Entry]) -> dict[str, FolderRecords]:
    """What the store holds of checkpoints that are about to go: the state file may have lost a pin, or a replaced slot."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def look(name: str) -> FolderRecords:
        async with turns:
            return await root.reader.folder(name)

    return {found.folder.name: found for found in await run_all(look(entry.name) for entry in entries)}


def _unlisted(standing: Iterable[FolderRecords], found: Sorted) -> list[Entry]:
    """Replaced slots that the state does not list: they go first, or the end of the higher one would bring them back."""
    listed = {entry.path for entry in (*found.checkpoints, *found.superseded)}
    highest = {entry.name: entry.slot for entry in found.checkpoints}
    entries = (
        entry_of(one.record, one.etag)
        for folder in standing
        for slot, one in folder.records.items()
        if slot < highest.get(folder.folder.name, 0)
    )
    return [entry for entry in entries if entry.state == "committed" and entry.path not in listed]


def _with_marks(entry: Entry, standing: FolderRecords | None) -> Entry:
    if standing is None:
        return entry
    return msgspec.structs.replace(entry, pinned=standing.folder.pinned, preserved=standing.folder.preserved)


async def delete_entries(root: Root, entries: Iterable[Entry], changes: Changes, *, writer: str) -> None:
    """Delete records and their files, several names at once; of one name the lower slots first.

    Otherwise an interruption could bring a replaced checkpoint back to light. What fails is noted in ``changes``, and the
    higher slots of that name are then left alone.
    """
    by_name: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.slot):
        by_name.setdefault(entry.name, []).append(entry)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def delete(of_one_name: Sequence[Entry]) -> None:
        async with turns:
            for entry in of_one_name:
                try:
                    await _delete(root, entry, changes, writer=writer)
                except (StoreError, ManifestError) as error:
                    log.warning(
                        "%s/%s could not be deleted, the next prune tries again: %s", root.store.url, entry.path, error
                    )
                    changes.errors[entry.path] = error
                    return

    await run_all(delete(of_one_name) for of_one_name in by_name.values())


async def _delete(root: Root, entry: Entry, changes: Changes, *, writer: str) -> None:
    seen = changes.seen.get(entry.name)
    tombstone = await retire(root, entry, writer=writer, seen=seen.records.get(entry.slot) if seen else None)
    if tombstone is None:
        changes.gone.add(entry.path)
        return
    changes.entries[tombstone.path] = tombstone
    await remove_files(root, tombstone, list(seen.folder.sizes(tombstone.save_id)) if seen else None)
    changes.entries[tombstone.path] = msgspec.structs.replace(tombstone, unfinished=False)
    log.info("%s/%s: deleted save %s", root.store.url, entry.name, entry.save_id)


async def _forget(root: Root, found: Sorted, changes: Changes) -> None:
    """Delete tombstones and fences that have outlived every delayed request they guard against.

    The highest record of a name stays for good. While it stands, no new attempt targets its slot or a lower one; so a deletion
    that is sent twice, or decided by a pruner that was slow, can never meet a checkpoint saved at that slot in between.
    """
    late = root.store_time or root.now()
    highest: dict[str, int] = {}
    for entry in (*found.checkpoints, *found.superseded, *found.retired):
        highest[entry.name] = max(entry.slot, highest.get(entry.name, 0))
    fenced: dict[str, int] = {}
    for entry in found.retired:
        if entry.state == "aborted":
            fenced[entry.name] = max(entry.slot, fenced.get(entry.name, 0))
    expired = []
    for entry in found.retired:
        guarded = entry.slot < fenced.get(entry.name, 0)
        ttl = FENCE_TTL if entry.state == "aborted" else TOMBSTONE_TTL
        # A tombstone below a fence keeps the condemned attempt from committing at that lower slot.
        held = entry.unfinished or guarded or entry.slot == highest[entry.name]
        if not held and entry.since is not None and entry.since + ttl < late:
            expired.append(entry.path)
    if expired:
        failed = await root.store.delete(expired)
        changes.gone.update(path for path in expired if path not in failed)


async def _record(root: Root, changes: Changes, last_preserved: datetime | None) -> None:
    def change(state: StateFile) -> StateFile:
        marks = [mark for mark in (state.last_preserved, last_preserved) if mark is not None]
        return msgspec.structs.replace(
            state.with_entries(changes.entries.values(), without=changes.gone), last_preserved=max(marks, default=None)
        )

    await root.update_state(change)


def _error(changes: Changes, entry: Entry) -> str | None:
    error = changes.errors.get(entry.path)
    return None if error is None else str(error)
