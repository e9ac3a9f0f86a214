"""Disks that are full, read-only or slow: a clear error that names the path, nothing left, and the next save works."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from asyncsaver import Saver
from asyncsaver.errors import AccessDeniedError, StoreError

from ..doubles.scripted import Call, Fault, ScriptedStore, Work  # noqa: TID252 - test folders have no name
from ..doubles.world import World, number_of, state_of  # noqa: TID252

pytestmark = [pytest.mark.torture, pytest.mark.slow]


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def files(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def a_saver(folder: Path, **arguments: Any) -> Saver:
    return Saver(folder, shard_bytes=1, **arguments)


async def numbers(folder: Path) -> list[int]:
    async with a_saver(folder) as saver:
        return [number_of(await saver.restore(checkpoint=one)) for one in await saver.checkpoints()]


async def test_a_state_that_does_not_fit_on_the_disk(small_disk: Path) -> None:
    root = small_disk / "run"
    async with a_saver(root) as saver:
        await saver.save(state_of(1), step=1)
        before = files(root)
        with pytest.raises(StoreError, match=r"ckpt-00000002/.*model-.*No space left on device") as caught:
            await saver.save({"large": np.zeros(2 << 20, dtype=np.uint8)}, step=2)
        assert str(root) in str(caught.value)
        assert not caught.value.retryable
        assert files(root) == before
        await saver.save(state_of(3), step=3)
    assert await numbers(root) == [1, 3]


async def fill_and_save(
    disk: Path, limit: Callable[[int], None], free: Callable[[], None], rooms: Sequence[int]
) -> int:
    """Save with ever more room on the disk; returns how many of the saves failed."""
    root = disk / "run"
    failed = 0
    async with a_saver(root) as saver:
        await saver.save(state_of(0), step=0)
    committed = [0]
    for step, room in enumerate(rooms, start=1):
        async with a_saver(root, max_to_keep=None) as saver:
            before = files(root)
            limit(room)
            try:
                made = await saver.save(state_of(step), step=step)
            except StoreError as error:
                failed += 1
                message = str(error)
                assert "No space left on device" in message
                assert str(root) in message
                assert files(root) - before <= {str(root / ".asyncsaver.lock")}
            else:
                committed.append(step)
                assert made.stats is not None
                assert made.stats.state_file_error is None or "No space left" in made.stats.state_file_error
            finally:
                free()
        assert await numbers(root) == committed
    assert 0 < failed < len(rooms)
    async with a_saver(root, max_to_keep=1) as saver:
        await saver.save(state_of(1000), step=1000)
        await saver.sweep(grace=0)
    assert await numbers(root) == [1000]
    return failed


async def test_a_disk_that_fills_up_anywhere_in_a_save(small_disk: Path, figures: Any) -> None:
    ballast = small_disk / "ballast"

    def limit(pages: int) -> None:
        left = os.statvfs(small_disk)
        ballast.write_bytes(bytes((left.f_bavail - pages) * left.f_frsize))

    rooms = [*range(16), *range(2, 16, 3)]
    await fill_and_save(small_disk, limit, ballast.unlink, rooms)
    figures.add("saves on a full disk", len(rooms))


async def test_a_disk_that_runs_out_of_inodes_anywhere_in_a_save(small_disk: Path, figures: Any) -> None:
    def limit(inodes: int) -> None:
        used = os.statvfs(small_disk).f_files - os.statvfs(small_disk).f_ffree
        mount("-o", f"remount,nr_inodes={used + inodes}", str(small_disk))

    rooms = [*range(14)]
    await fill_and_save(small_disk, limit, lambda: mount("-o", "remount,nr_inodes=10000", str(small_disk)), rooms)
    figures.add("saves on a full disk", len(rooms))


async def test_a_read_only_disk(small_disk: Path) -> None:
    root = small_disk / "run"
    async with a_saver(root) as saver:
        await saver.save(state_of(1), step=1)
    mount("-o", "remount,ro", str(small_disk))
    before = files(root)
    async with a_saver(root) as saver:
        assert number_of(await saver.restore()) == 1
        await saver.verify()
        with pytest.raises(StoreError, match="Read-only file system") as caught:
            await saver.save(state_of(2), step=2)
        assert str(root) in str(caught.value)
        with pytest.raises(StoreError, match="Read-only file system"):
            await saver.delete(1)
        assert files(root) == before
        mount("-o", "remount,rw", str(small_disk))
        await saver.save(state_of(2), step=2)
    assert await numbers(root) == [1, 2]


class Quota(MemoryFileSystem):
    """A file system on which somebody has used up what they may use."""

    protocol = "quota"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its base has it
    used_up = False

    def pipe_file(self, path: str, value: bytes, **kwargs: Any) -> None:
        if self.used_up:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)
        super().pipe_file(path, value, **kwargs)

    def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if self.used_up and mode != "rb":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)
        return super()._open(path, mode, *args, **kwargs)


async def test_a_quota_that_is_used_up() -> None:
    system = Quota()
    async with Saver("/run", filesystem=system, single_writer=True, shard_bytes=1) as saver:
        await saver.save(state_of(1), step=1)
        before = set(system.find("/run"))
        system.used_up = True
        with pytest.raises(StoreError, match=r"ckpt-00000002/.*quota"):
            await saver.save(state_of(2), step=2)
        assert set(system.find("/run")) == before
        system.used_up = False
        await saver.save(state_of(3), step=3)
        assert [one.step for one in await saver.checkpoints()] == [1, 3]
        assert number_of(await saver.restore()) == 3


class Undeletable(ScriptedStore):
    """A store whose credentials do not allow deleting what lies in some folders."""

    denied = ""

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        refused = {
            path: AccessDeniedError(f"{path}: may not be deleted", path=path)
            for path in paths
            if self.denied and self.denied in path
        }
        return {**await super().delete([path for path in paths if path not in refused]), **refused}


async def test_deletions_that_are_denied_are_reported_and_tried_again() -> None:
    world = World()
    store = Undeletable(world.memory())
    async with world.saver(store, max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1)
        store.denied = "ckpt-00000001/2"
        made = await saver.save(state_of(2), step=2)
        assert made.stats is not None
        assert made.stats.prune_error is not None
        assert "may not be deleted" in made.stats.prune_error
        assert made.stats.state_file_error is None
        # Half deleted, and nobody sees it.
        assert await world.numbers() == {"ckpt-00000002": 2}
        # The next save tries again, and so does a prune.
        await saver.save(state_of(3), step=3)
        assert len(await world.data_folders()) == 2
        await saver.prune()
        assert len(await world.data_folders()) == 2
        store.denied = ""
        made = await saver.save(state_of(4), step=4)
        assert made.stats is not None
        assert made.stats.prune_error is None
    assert await world.numbers() == {"ckpt-00000004": 4}
    await world.assert_nothing_unreferenced()


class _Slow:
    async def around(self, work: Work) -> Any:
        for _ in range(50):
            await asyncio.sleep(0)
        result = await work()
        for _ in range(50):
            await asyncio.sleep(0)
        return result


async def test_on_a_slow_disk_saves_keep_their_order_and_the_loop_runs_on() -> None:
    world = World()

    def script(call: Call) -> Fault | None:
        return _Slow()

    turns = 0

    async def train() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with world.saver(world.store(script), max_to_keep=3) as saver:
        training = asyncio.create_task(train())
        pending = [await saver.save_in_background(state_of(step), step=step) for step in range(8)]
        assert not pending[-1].done()
        made = [await one for one in pending]
        training.cancel()
    assert turns > 1000
    assert [one.step for one in made] == list(range(8))
    assert list((await world.numbers()).values()) == [5, 6, 7]
    await world.assert_nothing_unreferenced()
