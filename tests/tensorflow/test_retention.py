"""Which checkpoints stay: items 74 to 86 one by one, with TensorFlow's own answers where it was asked."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.tensorflow import (
    CheckpointList,
    Removal,
    files,
    get_checkpoint_state,
    map_checkpoint_mtimes,
    remove_rotated,
    update_checkpoint_state,
)

from .golden import PROBES, Clock, files_of, names_in, with_folder, write_files

NEVER = 10_000.0


def gone(removals: tuple[Removal, ...]) -> list[str]:
    return [removal.path for removal in removals]


def test_item_074_the_oldest_goes_and_the_clock_is_given() -> None:
    clock = Clock(100.0)
    checkpoints = CheckpointList(2, NEVER, clock=clock)
    assert [gone(checkpoints.record("a")), gone(checkpoints.record("b"))] == [[], []]
    clock.now = 200.0
    assert gone(checkpoints.record("a")) == []
    assert checkpoints.last_checkpoints_with_time == [("b", 100.0), ("a", 200.0)]
    assert gone(checkpoints.record("c")) == ["b"]


def test_item_014_all_stay_without_a_limit() -> None:
    for unlimited in (None, 0):
        checkpoints = CheckpointList(unlimited)
        assert [checkpoints.record(path) for path in ("a", "b", "a")] == [(), (), ()]
        assert checkpoints.last_checkpoints == PROBES["keep.max0_state_has_only_last"]["last"]


@pytest.mark.parametrize("arguments", [(2.5, None), ("3", None), (True, None), (1, "2")])
def test_item_015_what_is_no_number(arguments: Any) -> None:
    with pytest.raises(TypeError):
        CheckpointList(*arguments)


@pytest.mark.parametrize("arguments", [(-1, None), (1, -1.0), (1, math.nan)])
def test_items_016_and_017_what_makes_no_sense(arguments: Any) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        CheckpointList(*arguments)


def test_item_017_hours_have_the_precision_of_a_float32() -> None:
    assert CheckpointList(1, 0.1, clock=Clock(0.0)).next_time_to_keep == 0.10000000149011612 * 3600
    for hours in (math.inf, 1e300):
        assert CheckpointList(1, hours, clock=Clock(0.0)).next_time_to_keep == math.inf


def test_item_075_a_list_that_is_too_long_shrinks_to_the_limit() -> None:
    """TensorFlow deletes one at a time for ever: its probe keeps five with ``max_to_keep=2``."""
    before, *_, after = PROBES["keep.set_longer_than_max"]["trace"]
    assert len(before[0]) == len(after[0]) == 5
    checkpoints = CheckpointList(2, NEVER)
    checkpoints.set_last_checkpoints_with_time([(path, 0.0) for path in before[0]])
    assert gone(checkpoints.record("$DIR/m-6")) == before[0][:4]
    assert checkpoints.last_checkpoints == ["$DIR/m-5", "$DIR/m-6"]


def test_item_076_only_what_is_strictly_later_is_kept() -> None:
    clock = Clock(0.0)
    checkpoints = CheckpointList(1, 1.0, clock=clock)
    probe = PROBES["keep.boundary_equal_time_not_kept"]
    clock.now = 3600.0
    checkpoints.record("m-0")
    clock.now = 3600.001
    assert gone(checkpoints.record("m-1")) == ["m-0"]
    assert not any(name.startswith("m-0") for name in probe["exactly_equal_deleted"])
    clock.now = 9000.0
    assert gone(checkpoints.record("m-2")) == ["m-0"], "m-1 stays, and m-0 is not reported as deleted yet"
    assert "m-1.index" in probe["strictly_greater_kept"]
    assert checkpoints.next_time_to_keep == probe["next_is_previous_threshold_plus_N_not_now_plus_N"] == 7200.0


def test_item_077_the_time_counts_from_when_the_list_was_made() -> None:
    clock = Clock(PROBES["keep.timer_starts_at_construction"]["ctor"] - 2 * 3600)
    checkpoints = CheckpointList(1, 2.0, clock=clock)
    clock.now += 500
    assert checkpoints.next_time_to_keep == PROBES["keep.timer_starts_at_construction"]["ctor"]


def test_item_078_what_is_kept_is_listed_with_its_reason() -> None:
    clock = Clock(0.0)
    checkpoints = CheckpointList(1, 0.5, clock=clock)
    clock.now = 1801.0
    checkpoints.record("m-1")
    assert checkpoints.record("m-2") == ()
    assert [(one.path, one.reason) for one in checkpoints.kept] == [("m-1", "the first in the next 0.5 hours")]
    assert checkpoints.last_checkpoints == ["m-2"]
    assert checkpoints.record("m-1") == (Removal("m-2", "meta"),)
    assert checkpoints.kept == (), "saved again, it is one of the last"


async def test_item_079_what_cannot_be_deleted_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow forgets it: see the files that its probe never tries again."""
    assert "m-0.index" in PROBES["save.delete_failure_is_swallowed"]["files_never_retried"]
    paths = [str(tmp_path / f"m-{step}") for step in range(3)]
    checkpoints = CheckpointList(1, NEVER)
    for path in paths:
        write_files(files_of(path, version="v2"))
    checkpoints.record(paths[0])
    checkpoints.record(paths[1])
    index = tmp_path / "m-0.index"
    index.unlink()
    index.mkdir()  # nothing that a store deletes
    (index / "file").touch()
    with caplog.at_level(logging.WARNING, "asyncsaver"):
        await remove_rotated(checkpoints)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "m-0.index" in caplog.text
    assert gone(checkpoints.to_delete) == [paths[0]]
    assert gone(checkpoints.record(paths[2])) == paths[:2]
    (index / "file").unlink()
    index.rmdir()
    await remove_rotated(checkpoints)
    assert checkpoints.to_delete == ()
    assert names_in(tmp_path) == sorted(Path(file).name for file in files_of(paths[2], version="v2"))


def test_item_080_the_list_is_a_copy_and_the_oldest_is_first() -> None:
    checkpoints = CheckpointList(3, NEVER)
    for step in range(4):
        checkpoints.record(f"$DIR/m-{step}")
    assert checkpoints.last_checkpoints == PROBES["keep.last_checkpoints_is_a_copy_oldest_first"]
    checkpoints.last_checkpoints.clear()
    assert len(checkpoints.last_checkpoints) == 3


@pytest.mark.parametrize("hours", [1.0, math.inf])
def test_item_081_without_times_they_all_stay_for_good(hours: float) -> None:
    checkpoints = CheckpointList(2, hours, clock=Clock(0.0))
    checkpoints.set_last_checkpoints(["$DIR/m-0"])
    checkpoints.record("$DIR/m-1")
    assert checkpoints.record("$DIR/m-2") == ()
    probe = PROBES["keep.set_last_checkpoints_inf"]
    assert checkpoints.last_checkpoints == probe["last"]
    assert checkpoints.next_time_to_keep == hours * 3600 * (1 + probe["next_time_moved_hours"])


@pytest.mark.parametrize("paths", ["m-1", {"m-1"}, None])
def test_items_081_and_082_a_list_must_be_a_list(paths: Any) -> None:
    """TensorFlow has an assertion without a message."""
    checkpoints = CheckpointList(2)
    with pytest.raises(TypeError, match="must be a list"):
        checkpoints.set_last_checkpoints(paths)
    with pytest.raises(TypeError, match="must be a list"):
        checkpoints.set_last_checkpoints_with_time(paths)


def test_item_082_the_list_given_is_copied() -> None:
    """TensorFlow keeps the caller's own list, and appends to it."""
    assert PROBES["keep.set_longer_than_max"]["aliases_callers_list"]
    given_list = [("m-0", 1.0), ("m-1", 2.0)]
    checkpoints = CheckpointList(2, NEVER, clock=Clock(3.0))
    checkpoints.set_last_checkpoints_with_time(given_list)
    checkpoints.record("m-2")
    assert given_list == [("m-0", 1.0), ("m-1", 2.0)]
    given_list.clear()
    assert checkpoints.last_checkpoints_with_time == [("m-1", 2.0), ("m-2", 3.0)]


async def test_item_083_times_are_recovered_by_path_and_missing_ones_skipped(tmp_path: Path) -> None:
    probe = with_folder(PROBES["keep.recover_last_checkpoints"], tmp_path)
    paths = [path for path, _ in probe["last_with_time"]]
    for path, written in probe["last_with_time"]:
        write_files(files_of(path, version="v2"))
        os.utime(f"{path}.index", (written, written))

    async def recovered(wanted: list[str]) -> Any:
        checkpoints = CheckpointList(5)
        checkpoints.recover_last_checkpoints(wanted, await map_checkpoint_mtimes(wanted))
        return json.loads(json.dumps(checkpoints.last_checkpoints_with_time))

    assert await recovered(paths) == probe["last_with_time"]
    assert await recovered([]) == probe["empty"]
    (tmp_path / "m-0.index").unlink()
    assert await recovered(paths) == probe["last_with_time"][1:], "none takes the time of another"
    assert await recovered([paths[0], paths[2]]) == probe["missing_first"]


def test_item_083_what_is_missing_is_to_leave_the_state_file() -> None:
    checkpoints = CheckpointList(5)
    checkpoints.recover_last_checkpoints(["m-0", "m-1"], {"m-1": 1.0})
    assert checkpoints.last_checkpoints_with_time == [("m-1", 1.0)]
    assert checkpoints.dropped == ("m-0",)


def test_item_066_what_was_dropped_is_remembered_until_it_is_deleted() -> None:
    checkpoints = CheckpointList(1, NEVER)
    for path in ("m-0", "m-1", "m-2"):
        checkpoints.record(path)
    assert checkpoints.dropped == ("m-0", "m-1")
    checkpoints.deleted("m-0")
    assert checkpoints.dropped == ("m-1",)
    checkpoints.deleted("stranger")
    assert checkpoints.dropped == ("m-1",)


async def test_item_084_a_new_saver_deletes_only_what_it_has_recovered(tmp_path: Path) -> None:
    """TensorFlow's new saver also forgets in the state file what the old one had saved; ours does not."""
    paths = [str(tmp_path / f"m-{step}") for step in range(4)]
    for path in paths:
        write_files(files_of(path, version="v2"))
    write_files([str(tmp_path / "stranger.index")])
    await update_checkpoint_state(tmp_path, paths[1], paths[:2])
    probe = with_folder(PROBES["keep.new_saver_does_not_read_state"], tmp_path)

    unaware = CheckpointList(1, NEVER)
    assert unaware.last_checkpoints == probe["last_at_start"]
    assert unaware.record(paths[2]) == ()
    await update_checkpoint_state(tmp_path, paths[2], unaware.last_checkpoints, dropped=unaware.dropped)
    state = await get_checkpoint_state(tmp_path)
    assert state is not None
    assert list(state.paths) == paths[:3]

    aware = CheckpointList(1, NEVER)
    aware.recover_last_checkpoints(state.paths, await map_checkpoint_mtimes(state.paths))
    assert gone(aware.record(paths[3])) == paths[:3]
    await remove_rotated(aware)
    assert sorted({name.partition(".")[0] for name in names_in(tmp_path)}) == ["checkpoint", "m-3", "stranger"]


async def test_item_085_a_name_that_was_saved_again_is_not_deleted(tmp_path: Path) -> None:
    checkpoints = CheckpointList(1, NEVER)
    for name in ("m-0", "m-1", "m-0"):
        write_files(files_of(str(tmp_path / name), version="v2"))
        checkpoints.record(str(tmp_path / name))
    await remove_rotated(checkpoints)
    probe = with_folder(PROBES["keep.resave_of_a_queued_name"], tmp_path)
    assert checkpoints.last_checkpoints == probe["last"]
    assert ["checkpoint", *names_in(tmp_path)] == probe["files"]


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_item_086_what_others_have_deleted_is_no_error(
    tmp_path: Path, version: files.FormatVersion, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = CheckpointList(1, NEVER)
    checkpoints.record(str(tmp_path / "never" / "there"))
    checkpoints.record(str(tmp_path / "m"))
    with caplog.at_level(logging.DEBUG, "asyncsaver"):
        await remove_rotated(checkpoints, version)
    assert checkpoints.to_delete == ()
    assert caplog.records == []


async def test_item_059_each_checkpoint_remembers_its_own_suffix(tmp_path: Path) -> None:
    """TensorFlow looks for the suffix of the call that deletes, and leaves the other one behind."""
    assert "m-0.AA" in PROBES["save.meta_graph_suffix_used_for_delete_is_the_current_calls"]
    checkpoints = CheckpointList(1, NEVER)
    for name, suffix in (("m-0", "AA"), ("m-1", "BB")):
        write_files(files_of(str(tmp_path / name), version="v2", suffix=suffix))
        checkpoints.record(str(tmp_path / name), meta_graph_suffix=suffix)
    await remove_rotated(checkpoints)
    assert names_in(tmp_path) == ["m-1.BB", "m-1.data-00000-of-00001", "m-1.index"]


names = st.sampled_from([f"m-{number}" for number in range(6)])
moves = st.one_of(
    st.tuples(st.just("record"), names),
    st.tuples(st.just("deleted"), names),
    st.tuples(st.just("set"), st.lists(names, unique=True)),
    st.tuples(st.just("wait"), st.floats(0, 7200)),
)


@given(st.integers(1, 3), st.lists(moves, max_size=30))
def test_nothing_is_in_two_places_and_the_newest_stays(most: int, script: list[tuple[str, Any]]) -> None:
    clock = Clock(0.0)
    checkpoints = CheckpointList(most, 1.0, clock=clock)
    recorded = set()
    for move, argument in script:
        if move == "record":
            checkpoints.record(argument)
            recorded.add(argument)
            assert checkpoints.last_checkpoints[-1] == argument
            assert len(checkpoints.last_checkpoints) <= most
        elif move == "deleted":
            checkpoints.deleted(argument)
        elif move == "set":
            checkpoints.set_last_checkpoints_with_time([(path, clock.now) for path in argument])
            recorded.update(argument)
        else:
            clock.now += argument
        listed, going = set(checkpoints.last_checkpoints), set(gone(checkpoints.to_delete))
        kept = {one.path for one in checkpoints.kept}
        assert len(listed | going | kept) == len(listed) + len(going) + len(kept)
        assert going | kept <= set(checkpoints.dropped)
        assert not listed & set(checkpoints.dropped)
        assert listed | going | kept <= recorded
