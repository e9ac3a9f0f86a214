"""What signals, forks and limits do to a process that saves: it saves or fails cleanly, and never tears a checkpoint."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from asyncsaver import Saver

from .program import SHARDS
from .running import leftovers, run, steps_of, stopping, temporaries

pytestmark = [pytest.mark.torture, pytest.mark.slow]


async def stop_sweep_and_continue(url: str, options: Mapping[str, Any], what: str = "stops") -> int:
    """Stop a writer at each moment of a save, sweep its root, wake it up; returns how often."""
    stops = 0
    with stopping(what, url, options) as writer:
        while await asyncio.to_thread(writer.wait):
            stops += 1
            moment = stops if what == "stops" else SHARDS + 2
            async with Saver(f"{url}/{moment}", storage_options=dict(options) or None) as cleaner:
                await cleaner.sweep(grace=0)
                assert not (await cleaner.sweep(grace=0, dry_run=True)).leftovers
            writer.go_on()
        told = writer.told()
    assert len(told) == stops + 1
    assert not told[-1]["reached"]
    assert told[-1]["outcome"] == "committed"
    assert {one["phase"] for one in told} >= {"committing"}
    for one in told:
        assert one["outcome"] in {"committed", "SaveAbortedError"}, one
        # Once it had something to write, it was condemned; once it was committed, nothing could happen to it.
        if one["phase"] == "committing":
            assert one["outcome"] == "SaveAbortedError", one
            assert "given up for dead" in one["message"]
        if one["phase"] == "committed":
            assert one["outcome"] == "committed", one
        assert await steps_of(one["root"], options) == ([1, 2] if one["outcome"] == "committed" else [1])
        async with Saver(one["root"], storage_options=dict(options) or None) as cleaner:
            await cleaner.sweep(grace=0)
        assert await leftovers(one["root"], options) == []
    assert {"SaveAbortedError", "committed"} == {one["outcome"] for one in told}
    return stops


async def test_a_stopped_writer_that_was_swept_gives_up_on_local_disk(tmp_path: Path, figures: Any) -> None:
    stops = await stop_sweep_and_continue(str(tmp_path), {})
    assert temporaries(str(tmp_path)) == []
    figures.add("writers stopped, swept and continued, local disk", stops)


@pytest.mark.server
async def test_a_stopped_writer_that_was_swept_gives_up_on_s3(
    s3_root: Any, figures: Any, scale: Callable[[int, int], int]
) -> None:
    what = ["stops_seldom", "stops"][scale(0, 1)]
    stops = await stop_sweep_and_continue(s3_root.url, s3_root.storage_options, what)
    figures.add("writers stopped, swept and continued, S3", stops)


async def test_sigterm_ends_a_save_cleanly_at_any_moment(tmp_path: Path, figures: Any) -> None:
    told = await asyncio.to_thread(run, "terminated", str(tmp_path), {})
    assert {one["outcome"] for one in told} == {"CancelledError", "committed"}
    for one in told:
        there = await steps_of(one["root"], {})
        assert there[0] == 1
        if one["phase"] in {"staging", "writing"}:
            assert one["outcome"] == "CancelledError"
            assert there == [1]
        elif one["outcome"] == "committed":
            assert there == [1, 2]
        # Without any sweep: what is cancelled cleans up after itself.
        assert await leftovers(one["root"], {}) == []
    assert temporaries(str(tmp_path)) == []
    figures.add("saves ended by SIGTERM", len(told) - 1)


async def test_a_fork_in_the_middle_of_a_save_does_no_harm(tmp_path: Path, figures: Any) -> None:
    told = await asyncio.to_thread(run, "forks", str(tmp_path), {})
    assert all(one["outcome"] == "committed" for one in told)
    assert [one["child"] for one in told] == [[0]] * (len(told) - 1) + [[]]
    expected = {*range(1, len(told) + 1), *range(1001, 1000 + len(told))}
    assert set(await steps_of(str(tmp_path), {})) == expected
    assert await leftovers(str(tmp_path), {}) == []
    assert temporaries(str(tmp_path)) == []
    figures.add("forks in the middle of a save", len(told) - 1)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be counted here")
async def test_a_limit_of_open_files_is_a_clear_error(tmp_path: Path, figures: Any) -> None:
    url = str(tmp_path / "root")
    told = await asyncio.to_thread(run, "few_files", url, {})
    failed = [one for one in told if one["outcome"] != "committed"]
    assert failed
    assert told[-1]["outcome"] == "committed"
    for one in failed:
        assert one["outcome"] == "StoreError"
        assert "Too many open files" in one["message"]
        assert url in one["message"]
    saved = [one["room"] + 1 for one in told if one["outcome"] == "committed"]
    assert await steps_of(url, {}) == [0, *saved]
    async with Saver(url) as saver:
        await saver.sweep(grace=0)  # without a file to list a folder with, a save cannot clean up after itself
    assert await leftovers(url, {}) == []
    assert temporaries(url) == []
    figures.add("saves short of open files", len(told))


async def test_a_limit_of_file_sizes_is_a_clear_error(tmp_path: Path) -> None:
    url = str(tmp_path / "root")
    *limited, free = await asyncio.to_thread(run, "small_files", url, {})
    for one in limited:
        assert one["outcome"] == "StoreError"
        assert "File too large" in one["message"]
        assert f"{url}" in one["message"]
        assert "model-0000" in one["message"]
        assert one["files"] == limited[0]["files"]
    assert free["outcome"] == "committed"
    assert await steps_of(url, {}) == [1, 2]
    assert await leftovers(url, {}) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_checkpoint_that_may_not_be_deleted_is_reported_and_tried_again() -> None:
    folder = tempfile.mkdtemp()  # not below pytest's own, which others cannot enter
    try:
        os.chmod(folder, 0o755)  # noqa: PTH101 - one call
        denied, again = await asyncio.to_thread(run, "undeletable", folder, {})
        assert "Permission denied" in denied["prune_error"]
        assert "ckpt-00000001" in denied["prune_error"]
        assert denied["report"] is None or "Permission denied" in denied["report"]
        assert denied["steps"] == [2, 3]
        assert denied["left"] > 0
        assert again == {"prune_error": None, "steps": [3, 4], "left": 0, "report": None}
        assert await leftovers(folder, {}) == []
    finally:
        shutil.rmtree(folder)
