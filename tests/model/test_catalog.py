"""What a listing and some records say about a root."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ManifestError
from asyncsaver.model.catalog import Catalog, Folder, build_catalog, next_slot, sort_entries, sort_into_folders
from asyncsaver.model.names import Naming
from asyncsaver.model.statefile import Entry
from asyncsaver.store.contract import ObjectInfo

START = datetime(2026, 1, 1, tzinfo=UTC)
ID_A = "20260101T000000Z-000000000000000a"
ID_B = "20260101T000000Z-000000000000000b"


def listed(*paths: str, naming: Naming | None = None) -> dict[str, Folder]:
    return sort_into_folders([ObjectInfo(path, len(path)) for path in paths], naming or Naming())


def entry(step: int | None, slot: int = 0, state: Any = "committed", **fields: Any) -> Entry:
    given = {"sequence": step or 0, **fields}
    return Entry(state=state, name=Naming().name(step), step=step, slot=slot, etag=None, created=START, **given)


def test_a_listing_is_grouped_by_checkpoint() -> None:
    folders = listed(
        "checkpoint.json",
        "ckpt-00000005/manifest.json",
        "ckpt-00000005/manifest-0002.json",
        f"ckpt-00000005/{ID_A}/model-00001-of-00001.safetensors",
        f"ckpt-00000005/{ID_A}/deep/er",
        f"ckpt-00000005/{ID_B}/part-00000.json",
        "ckpt-00000005/pinned.json",
        "ckpt-00000007/preserved.json",
        "ckpt/manifest.json",
    )
    five = folders["ckpt-00000005"]
    assert (five.step, sorted(five.slots), sorted(five.saves)) == (5, [0, 2], [ID_A, ID_B])
    assert (five.pinned, five.preserved) == (True, False)
    assert five.sizes(ID_A) == {item.path: item.size for item in five.saves[ID_A]}
    assert len(five.sizes(ID_A)) == 2
    assert five.sizes("none") == {}
    assert (folders["ckpt-00000007"].pinned, folders["ckpt-00000007"].preserved) == (False, True)
    assert folders["ckpt"].step is None
    assert folders.keys() == {"ckpt", "ckpt-00000005", "ckpt-00000007"}


def test_what_is_not_ours_does_not_appear() -> None:
    assert listed(
        "ckpt-00000005", "ckpt", "other-5/manifest.json", "ckpt-005/manifest.json", "ckpt-5x/manifest.json",
        "a/ckpt-00000005/manifest.json", ".asyncsaver-probe/ckpt-5", "ckpt-\u0661/manifest.json",
    ) == {}  # fmt: skip
    [folder] = listed(
        "ckpt-00000005/manifest-1.json", "ckpt-00000005/manifest.json/x", "ckpt-00000005/notes.txt",
        "ckpt-00000005/pinned.json/x", "ckpt-00000005/tmp/x", f"ckpt-00000005/{ID_A}", f"ckpt-00000005/{ID_A.upper()}/x",
        f"ckpt-00000005/\u0662{ID_A[1:]}/x",
    ).values()  # fmt: skip
    assert folder == Folder("ckpt-00000005", 5)


def test_padding_makes_another_folder_of_the_same_step() -> None:
    folders = listed("ckpt-5/manifest.json", "ckpt-00000005/manifest.json", naming=Naming(pad=False))
    assert {name: folder.step for name, folder in folders.items()} == {"ckpt-5": 5, "ckpt-00000005": 5}


def test_readers_see_the_highest_committed_slot() -> None:
    rows = [
        entry(1, 0),
        entry(1, 2),
        entry(1, 3, "deleted"),
        entry(1, 1, "aborted"),
        entry(2, 0),
        entry(3, 0, "deleted"),
    ]
    found = sort_entries(rows)
    assert found.checkpoints == [entry(1, 2), entry(2, 0)]
    assert found.superseded == [entry(1, 0)]
    assert found.retired == [entry(3, 0, "deleted"), entry(1, 1, "aborted"), entry(1, 3, "deleted")]


all_entries = st.lists(
    st.builds(entry, st.integers(0, 3) | st.none(), st.integers(0, 4), st.sampled_from(["committed", "deleted", "aborted"]),
              sequence=st.integers(0, 5)),
    max_size=10, unique_by=lambda one: one.path,
)  # fmt: skip


@given(all_entries, st.randoms())
def test_every_entry_means_one_thing(entries: list[Entry], random: Any) -> None:
    found = sort_entries(entries)
    everything = [*found.checkpoints, *found.superseded, *found.retired]
    assert sorted(one.path for one in everything) == sorted(one.path for one in entries)
    assert all(one.state != "committed" for one in found.retired)
    seen = {one.name: one.slot for one in found.checkpoints}
    assert len(seen) == len(found.checkpoints)
    assert all(one.state == "committed" and one.slot < seen[one.name] for one in found.superseded)
    assert list(found.checkpoints) == sorted(found.checkpoints, key=lambda one: one.order)
    assert sort_entries(random.sample(entries, len(entries))).checkpoints == found.checkpoints


@given(all_entries, st.lists(st.integers(0, 5)))
def test_a_new_attempt_targets_the_slot_past_all(entries: list[Entry], unreadable: list[int]) -> None:
    slot = next_slot(entries, unreadable)
    taken = [*(one.slot for one in entries), *unreadable]
    assert slot == (max(taken) + 1 if taken else 0)


def test_an_expired_tombstone_leaves_a_gap_that_is_not_used() -> None:
    assert next_slot([entry(1, 1)]) == 2
    assert next_slot([]) == 0


def build(paths: list[str], entries: list[Entry], damaged: dict[str, Exception] | None = None) -> Catalog:
    return build_catalog(listed(*paths), entries, damaged or {})


def test_marks_come_from_the_listing_alone() -> None:
    stale = [entry(1, pinned=True, preserved=True), entry(2)]
    files = ["manifest.json", "pinned.json", "preserved.json"]
    catalog = build(["ckpt-00000001/manifest.json", *(f"ckpt-00000002/{file}" for file in files)], stale)
    assert [(one.pinned, one.preserved) for one in catalog.checkpoints] == [(False, False), (True, True)]


def test_a_tombstone_is_unfinished_while_its_files_stand() -> None:
    path = f"ckpt-00000001/{ID_A}/model-00001-of-00001.safetensors"
    slot = "ckpt-00000001/manifest.json"
    tombstone = entry(1, state="deleted", save_id=ID_A)
    stale = entry(1, state="deleted", save_id=ID_A, unfinished=True)
    fence = entry(1, state="aborted", condemned=[ID_A])
    assert [one.unfinished for one in build([slot, path], [tombstone]).retired] == [True]
    assert [one.unfinished for one in build([slot], [stale]).retired] == [False]
    assert [one.unfinished for one in build([slot, path], [fence]).retired] == [False]


def test_a_catalog_answers() -> None:
    damaged = {"ckpt-00000003/manifest.json": ManifestError("x")}
    catalog = build(
        [f"ckpt-{step:08d}/manifest.json" for step in (1, 2, 3)] + ["ckpt-00000001/manifest-0001.json"],
        [entry(2), entry(1), entry(1, 1)],
        dict(damaged),
    )
    assert catalog.newest == entry(2)
    assert catalog.by_name("ckpt-00000001") == entry(1, 1)
    assert catalog.by_name("ckpt-00000003") is None
    assert catalog.entries == [entry(1, 1), entry(2), entry(1)]
    assert catalog.damaged == damaged
    assert build([], []).newest is None
