"""Take any one safeguard away, and the explorer finds the schedule in which a checkpoint is lost or torn."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as replace_fields

from asyncsaver.catalog.reader import FoundRecord
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, StoreError
from asyncsaver.formats import native
from asyncsaver.model.catalog import Folder, Sorted
from asyncsaver.model.manifest import Deleted, Manifest
from asyncsaver.model.names import save_folder, slot_path
from asyncsaver.model.statefile import Entry, StateFile, entry_of
from asyncsaver.prune import clock, prune, sweep
from asyncsaver.prune.retire import remove_files, retire
from asyncsaver.save.commit import Committed
from asyncsaver.store import Store, probe
from asyncsaver.testing import (
    Chooser,
    Guarantees,
    SimulatedBucket,
    SimulatedStore,
    all_schedules,
    explore,
    random_schedules,
)

from ..doubles.shards_last import ShardsLast  # noqa: TID252 - test folders have no name
from .actors import Place
from .oracle import ViolationError
from .scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.torture

_ENOUGH = 3000


def caught(scenario: Scenario, what: str, *, client: Callable[[SimulatedBucket, str], Store] = SimulatedStore) -> None:
    """Explore until the explorer objects, in these words."""

    def change(place: Place) -> None:
        place.client = client

    def run(chooser: Chooser) -> None:
        scenario.run(chooser, change=change)

    choosers = itertools.chain(all_schedules(1), random_schedules("mutants", _ENOUGH, faults=3))
    with pytest.raises((ViolationError, CheckpointCorruptError), match=what):
        explore(run, choosers)


@pytest.fixture
def one_at_a_step() -> Scenario:
    return SCENARIOS["two savers at one step"]


def test_without_exclusive_creation_a_commit_is_overwritten(one_at_a_step: Scenario) -> None:
    caught(replace(one_at_a_step, guarantees=Guarantees(exclusive_create="ignored")), "was won by")


def test_with_an_unclear_commit_taken_for_a_failure_its_data_go(
    one_at_a_step: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commit(root: Root, manifest: Manifest, **_: Any) -> Committed:
        data = native.encode(manifest)
        info = await root.store.put(slot_path(manifest.name, manifest.slot), data, mode="create")
        return Committed(manifest, info.etag, len(data))

    monkeypatch.setattr("asyncsaver.save.attempt.commit", commit)
    caught(one_at_a_step, "is committed, but|though its saver was told")


def test_with_an_unclear_commit_taken_for_a_success_two_savers_win(
    one_at_a_step: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commit(root: Root, manifest: Manifest, **_: Any) -> Committed:
        data = native.encode(manifest)
        with contextlib.suppress(StoreError):
            await root.store.put(slot_path(manifest.name, manifest.slot), data, mode="create")
        return Committed(manifest, None, len(data))

    monkeypatch.setattr("asyncsaver.save.attempt.commit", commit)
    caught(one_at_a_step, "was reported as committed, and never was")


def test_without_a_fence_a_sleeper_commits_what_was_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fence(root: Root, folder: Folder, save_ids: Collection[str], *, writer: str) -> list[str]:
        return list(save_ids)

    monkeypatch.setattr(sweep, "fence", fence)
    caught(SCENARIOS["a saver that sleeps past the grace, and a sweep"], "is committed, but")


def test_with_a_fence_past_the_records_only_a_gap_lets_a_sleeper_in(monkeypatch: pytest.MonkeyPatch) -> None:
    take = sweep._take

    async def one_too_high(root: Root, folder: Folder, slots: Sequence[int], condemned: list[str], **kw: Any) -> bool:
        return await take(root, folder, [slots[-1] + 1], condemned, **kw)

    monkeypatch.setattr(sweep, "_take", one_too_high)
    caught(SCENARIOS["a saver that sleeps past the grace, and a sweep"], "is committed, but")


def test_with_data_deleted_before_the_fence_a_sleeper_commits_without(monkeypatch: pytest.MonkeyPatch) -> None:
    fence = sweep.fence

    async def delete_first(root: Root, folder: Folder, save_ids: Collection[str], *, writer: str) -> list[str]:
        for save_id in save_ids:
            await root.store.delete([item.path for item in folder.saves[save_id]])
        return await fence(root, folder, save_ids, writer=writer)

    monkeypatch.setattr(sweep, "fence", delete_first)
    caught(SCENARIOS["a saver that sleeps past the grace, and a sweep"], "is committed, but")


def test_without_a_tombstone_a_late_duplicate_brings_a_checkpoint_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def delete(root: Root, found: FoundRecord, tombstone: Deleted) -> Entry | None:
        await root.store.delete([slot_path(tombstone.name, tombstone.slot)])
        await remove_files(root, entry_of(tombstone, None))
        return None

    monkeypatch.setattr("asyncsaver.prune.retire._replace", delete)
    caught(SCENARIOS["a late request and a prune"], "is committed, but")


def test_with_data_deleted_before_their_reference_a_ruin_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def data_first(root: Root, entry: Entry, changes: prune.Changes, *, writer: str) -> None:
        await remove_files(root, entry)
        await retire(root, entry, writer=writer)

    monkeypatch.setattr(prune, "_delete", data_first)
    caught(SCENARIOS["two pruners"], "is committed, but")


def test_with_the_manifest_before_the_shards_a_ruin_is_listed(one_at_a_step: Scenario) -> None:
    def client(bucket: SimulatedBucket, name: str) -> Store:
        return ShardsLast(SimulatedStore(bucket, name))

    caught(one_at_a_step, "is committed, but", client=client)


def test_without_a_second_look_a_reader_takes_a_deletion_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    async def believe(*_: Any) -> None:
        """Nothing is read again."""

    monkeypatch.setattr("asyncsaver.restore.source.explain_damage", believe)
    caught(SCENARIOS["restore and save"], "is missing|there is no")


async def _forget_all(root: Root, found: Sorted, changes: prune.Changes) -> None:
    """Remove every tombstone, also the highest record of a name, or one below a fence."""
    deleted = [entry.path for entry in found.retired if entry.state == "deleted"]
    if deleted:
        await root.store.delete(deleted)
        changes.gone.update(deleted)


def test_with_the_highest_record_forgotten_a_late_deletion_meets_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(root: Root, found: Sorted, changes: prune.Changes) -> None:
        late = root.store_time or root.now()
        expired = [
            entry.path
            for entry in found.retired
            if entry.since is not None and entry.since + prune.TOMBSTONE_TTL < late
        ]
        if expired:
            await root.store.delete(expired)
            changes.gone.update(expired)

    monkeypatch.setattr(prune, "_forget", forget)
    caught(SCENARIOS["a saver past a tombstone that expires"], ".")


def test_with_tombstones_forgotten_below_a_fence_the_condemned_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "_forget", _forget_all)
    caught(SCENARIOS["a saver below a fence, at a tombstone that expires"], "is committed, but|is back after")


def test_without_a_second_look_a_sweep_makes_a_good_store_look_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_LOOKS", 1)
    caught(SCENARIOS["a saver probes the store, and a sweep"], "creates exclusively was refused")


def test_without_asking_again_a_sweep_takes_the_time_from_a_prune(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_TRIES", 1)
    caught(SCENARIOS["a prune and a sweep ask for the time"], "not found")


def test_without_sweeping_probes_those_of_the_dead_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spare(*_: Any) -> None:
        """Nothing is removed."""

    monkeypatch.setattr(sweep, "_remove_probes", spare)
    caught(SCENARIOS["two savers probe the store"], "left over after prune and sweep")


def test_with_failed_deletions_overlooked_what_is_left_is_reported_as_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def once(root: Root, entry: Entry, *_: Any) -> None:
        listing = await root.store.list(save_folder(entry.name, entry.save_id))
        await root.store.delete([item.path for item in listing.objects])

    monkeypatch.setattr(prune, "remove_files", once)
    caught(SCENARIOS["two pruners, deletions fail in part"], "reported as deleted")


def test_without_its_mark_a_pinned_checkpoint_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    async def only_list(root: Root, manifest: Manifest, *, pinned: bool) -> None:
        def change(state: StateFile) -> StateFile:
            return state.with_entries(replace_fields(entry, pinned=pinned) for entry in state.entries)

        await root.update_state(change)

    monkeypatch.setattr(sys.modules[Place.__module__], "set_pin", only_list)
    caught(SCENARIOS["pin and prune"], "which was pinned|its mark is gone")
