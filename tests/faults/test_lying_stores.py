"""Stores that promise less than they seem to: what would lose checkpoints is refused, the rest works."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from asyncsaver import CheckpointExistsError, Saver, StoreError, UnsupportedStoreError

from ..servers import kinds  # noqa: TID252 - test folders are no packages
from .http.clouds import LARGE, Cloud, behind_proxy, number_of, state_of
from .http.faults import forget_the_condition
from .http.targets import on

pytestmark = pytest.mark.torture


# --- a server that ignores preconditions -------------------------------------------------------------


@pytest.fixture(scope="module")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kinds.Server]:
    """An S3 server that lets every creator win."""
    try:
        with kinds.rclone(tmp_path_factory.mktemp("rclone")) as server:
            yield server
    except kinds.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def rclone_root(rclone_server: kinds.Server) -> kinds.Root:
    """A prefix in a fresh bucket."""
    return rclone_server.fresh_root()


@pytest.fixture(params=["fsspec", "obstore"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine that speaks S3, in turn."""
    name: str = request.param
    return name


def saver_on(root: kinds.Root, *, engine: str, **arguments: Any) -> Saver:
    return Saver(root.url, storage_options=root.storage_options, engine=engine, **arguments)


@pytest.mark.server
async def test_a_store_that_ignores_preconditions_is_refused(rclone_root: kinds.Root, engine: str) -> None:
    async with saver_on(rclone_root, engine=engine) as saver:
        for step in (1, 2):
            with pytest.raises(UnsupportedStoreError, match="single_writer=True"):
                await saver.save(state_of(step), step=step)
        assert await saver.latest() is None
        assert (await saver.sweep(grace=0)).leftovers == []


@pytest.mark.server
async def test_with_a_single_writer_it_is_of_use(rclone_root: kinds.Root, engine: str, figures: Any) -> None:
    """obstore refuses what rclone answers to ranges, which then are read through s3fs."""
    async with saver_on(rclone_root, engine=engine, single_writer=True, max_to_keep=2) as saver:
        for step in (1, 2, 3):
            await saver.save(state_of(step), step=step)
        with pytest.raises(CheckpointExistsError):
            await saver.save(state_of(30), step=3)
        await saver.save(state_of(31), step=3, overwrite=True)
        await saver.save(state_of(4, LARGE), step=4)
    async with saver_on(rclone_root, engine=engine, single_writer=True, max_to_keep=1) as saver:
        assert [one.step for one in await saver.checkpoints()] == [3, 4]
        assert number_of(await saver.restore(step=3)) == 31
        assert number_of(await saver.restore()) == 4
        async with await saver.open(4) as reader:
            part = await reader.read("weights", index=slice(1000, 1010))
            assert (part == 4).all()
        await saver.verify()
        await saver.prune()
        await saver.sweep(grace=0)
        assert [one.step for one in await saver.checkpoints()] == [4]
        assert number_of(await saver.restore()) == 4
        assert (await saver.sweep(grace=0, dry_run=True)).leftovers == []
    figures.add("saves to a server that ignores preconditions", 5)


@pytest.mark.server
async def test_reading_needs_no_promise(rclone_root: kinds.Root, engine: str) -> None:
    async with saver_on(rclone_root, engine=engine, single_writer=True) as saver:
        await saver.save(state_of(1), step=1)
    async with saver_on(rclone_root, engine=engine, read_only=True) as saver:
        assert number_of(await saver.restore()) == 1
        await saver.verify()


@pytest.mark.server
async def test_where_ranges_are_called_whole_and_s3fs_is_missing_obstore_names_the_way_out(
    rclone_root: kinds.Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with saver_on(rclone_root, engine="obstore", single_writer=True) as saver:
        for step in (1, 2):
            await saver.save(state_of(step, LARGE), step=step)
        with pytest.raises(CheckpointExistsError):
            await saver.save(state_of(20), step=2)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "asyncsaver_backends.s3", None)
            with pytest.raises(StoreError, match="engine='fsspec'"):
                await saver.restore()
        assert number_of(await saver.restore()) == 2
    async with saver_on(rclone_root, engine="fsspec", read_only=True) as saver:
        assert number_of(await saver.restore(step=1)) == 1
        assert number_of(await saver.restore()) == 2
        await saver.verify()


# --- a server whose 412 does not say what for --------------------------------------------------------


@pytest.fixture
async def terse_s3(s3_root: kinds.Root, s3_server: kinds.Server, engine: str) -> AsyncIterator[Cloud]:
    """S3 that never says which condition failed."""
    async with behind_proxy(s3_root, s3_server.endpoint_url, read_timeout=None) as cloud:
        cloud.proxy.misbehave(on("", "create", "replace"), forget_the_condition, times=None)
        yield replace(cloud, engine=engine)


@pytest.mark.server
async def test_commits_and_conflicts_are_told_apart_without_a_condition(terse_s3: Cloud, figures: Any) -> None:
    async with terse_s3.saver() as one, terse_s3.saver() as other:
        for step in (1, 2):
            results = await asyncio.gather(
                one.save(state_of(10 * step + 1), step=step),
                other.save(state_of(10 * step + 2), step=step),
                return_exceptions=True,
            )
            won = [number for number, result in enumerate(results, 1) if not isinstance(result, BaseException)]
            lost = [result for result in results if isinstance(result, BaseException)]
            assert len(won) == 1
            assert [type(error) for error in lost] == [CheckpointExistsError]
            assert number_of(await one.restore(step=step)) == 10 * step + won[0]
        assert [saved.step for saved in await other.checkpoints()] == [1, 2]
        assert (await one.sweep(grace=0, dry_run=True)).leftovers == []
    figures.add("commit conflicts behind a 412 without a condition", 2)


# --- fsspec, which promises nothing ------------------------------------------------------------------


async def test_fsspecs_memory_filesystem_is_exclusive_and_racers_know_it() -> None:
    async with (
        Saver("/racers", filesystem=MemoryFileSystem(), engine="fsspec") as one,
        Saver("/racers", filesystem=MemoryFileSystem(), engine="fsspec") as other,
    ):
        results = await asyncio.gather(
            one.save(state_of(1), step=1), other.save(state_of(2), step=1), return_exceptions=True
        )
        won = [number for number, result in enumerate(results, 1) if not isinstance(result, BaseException)]
        assert len(won) == 1
        assert sorted(type(result).__name__ for result in results) == ["Checkpoint", "CheckpointExistsError"]
        assert number_of(await other.restore()) == won[0]
        assert (await one.sweep(grace=0, dry_run=True)).leftovers == []


async def test_other_filesystems_of_fsspec_need_a_single_writer(tmp_path: Path) -> None:
    def saver(**arguments: Any) -> Saver:
        files = DirFileSystem(path=str(tmp_path), fs=LocalFileSystem(auto_mkdir=True))
        return Saver("run", filesystem=files, engine="fsspec", **arguments)

    async with saver() as refused:
        with pytest.raises(UnsupportedStoreError, match="single_writer=True"):
            await refused.save(state_of(1), step=1)
        assert await refused.latest() is None
    async with saver(single_writer=True, max_to_keep=1) as alone:
        for step in (1, 2):
            await alone.save(state_of(step), step=step)
        assert number_of(await alone.restore()) == 2
        assert [one.step for one in await alone.checkpoints()] == [2]
        await alone.sweep(grace=0)
        await alone.verify()
