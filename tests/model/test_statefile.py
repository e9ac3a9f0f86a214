"""The state file: adding, dropping, and taking over what the store really holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.model.manifest import Aborted, Deleted, FileEntry, Manifest
from asyncsaver.model.statefile import Entry, StateFile, entry_of

START = datetime(2026, 1, 1, tzinfo=UTC)
LATE = START + timedelta(days=3)
SAVE_ID = "20260101T000000Z-0000000000000001"


def entry(step: int, slot: int = 0, state: Any = "committed", **fields: Any) -> Entry:
    given = {"sequence": step, **fields}
    return Entry(state=state, name=f"ckpt-{step:08d}", step=step, slot=slot, etag="e", created=START, **given)


entries = st.builds(
    entry,
    st.integers(0, 3),
    st.integers(0, 2),
    st.sampled_from(["committed", "deleted", "aborted"]),
    save_id=st.sampled_from(["", "a", "b"]),
    sequence=st.integers(0, 3),
    since=st.none() | st.sampled_from([START, LATE]),
)
states = st.lists(entries, max_size=6).map(lambda some: StateFile().with_entries(some))


@given(states, st.lists(entries, max_size=5), st.lists(entries.map(lambda one: one.path), max_size=4))
def test_adding_and_dropping_is_as_in_a_dict(state: StateFile, new: list[Entry], without: list[str]) -> None:
    before = list(state.entries)
    after = state.with_entries(new, without=without)
    expected = {one.path: one for one in before if one.path not in without} | {one.path: one for one in new}
    assert after.by_path() == expected
    assert len(after.entries) == len(expected)
    assert [one.order for one in after.entries] == sorted(one.order for one in after.entries)
    assert state.entries == before
    assert after.with_entries(new, without=set(without) - {one.path for one in new}) == after


@given(states, states)
def test_reconciling_takes_over_what_stands(state: StateFile, standing: StateFile) -> None:
    after = state.reconciled(standing.entries, late=LATE, began=START)
    known = state.by_path()
    assert after.by_path().keys() == standing.by_path().keys()
    for one in after.entries:
        found = standing.by_path()[one.path]
        assert {**_fields(one), "since": None} == {**_fields(found), "since": None}
        if one.state == "committed" or found.since is not None:
            assert one.since == found.since
        else:
            earlier = known.get(one.path)
            listed = earlier is not None and earlier.state != "committed" and earlier.since is not None
            assert one.since == (earlier.since if earlier is not None and listed else LATE)
    # A tombstone's time does not start again each time that somebody looks.
    assert after.reconciled(standing.entries, late=LATE + timedelta(days=9), began=START) == after


def _fields(one: Entry) -> dict[str, Any]:
    return {field: getattr(one, field) for field in one.__struct_fields__}


@given(states, states, st.lists(entries, max_size=3))
def test_reconciling_leaves_what_others_have_written_since(
    state: StateFile, standing: StateFile, new: list[Entry]
) -> None:
    now = state.with_entries(new)
    after = now.reconciled(standing.entries, late=LATE, began=START, seen=state.by_path()).by_path()
    unseen = {one.path: one for one in now.entries if state.by_path().get(one.path) != one}
    assert after.keys() == standing.by_path().keys() | unseen.keys()
    assert {path: after[path] for path in unseen} == unseen


@pytest.mark.parametrize(("recorded", "expected"), [(None, START), (LATE, LATE)])
def test_where_every_hours_counts_from_is_recorded_once(recorded: datetime | None, expected: datetime) -> None:
    state = StateFile(last_preserved=recorded).reconciled([], late=LATE, began=START)
    assert state.last_preserved == expected


def test_order_is_of_commits_then_steps() -> None:
    rows = [(1, 9), (2, 3), (2, 5), (3, 0)]
    listed = [entry(step, sequence=sequence) for sequence, step in rows]
    assert sorted([*listed[2:], *listed[:2]], key=lambda one: one.order) == listed
    stepless = Entry(state="committed", name="ckpt", step=None, slot=0, etag=None, created=START, sequence=2)
    assert entry(1, sequence=1).order < stepless.order < entry(0, sequence=2).order


def test_the_entry_of_each_record() -> None:
    common: dict[str, Any] = {"name": "ckpt-00000007", "step": 7, "slot": 2, "created": START, "writer": "test"}
    manifest = Manifest(
        **common, save_id=SAVE_ID, sequence=3, world_size=4, tree=None, tensors={},
        files=[FileEntry("ckpt-00000007/x", 5, "")], total_bytes=5, metrics={"a": "nan"}, metadata=[1],
    )  # fmt: skip
    shared: dict[str, Any] = {"name": "ckpt-00000007", "step": 7, "slot": 2, "created": START, "etag": "e"}
    assert entry_of(manifest, "e") == Entry(
        state="committed", **shared, save_id=SAVE_ID, sequence=3, total_bytes=5, world_size=4, metrics={"a": "nan"}, metadata=[1]
    )  # fmt: skip
    assert entry_of(Deleted(**common, save_id=SAVE_ID, files=["x"]), "e") == Entry(
        state="deleted", **shared, save_id=SAVE_ID
    )
    assert entry_of(Aborted(**common, condemned=[SAVE_ID]), "e") == Entry(
        state="aborted", **shared, condemned=[SAVE_ID]
    )
    assert entry_of(manifest, None).path == "ckpt-00000007/manifest-0002.json"
