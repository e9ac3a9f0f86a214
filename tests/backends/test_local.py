# ruff: noqa: ASYNC240, PTH115 - these tests look at the folder behind the store
from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Never

import pytest

from asyncsaver.errors import (
    AccessDeniedError,
    InvalidRootError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreError,
    StoreTimeoutError,
    UnsupportedStoreError,
)
from asyncsaver.store import Part, Store
from asyncsaver.store.probe import probe_exclusive_create
from asyncsaver.testing import StoreContract
from asyncsaver_backends.local import LocalStore


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def open_files_below(folder: Path) -> list[str]:
    targets: list[str] = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            targets.append(os.readlink(fd))
        except FileNotFoundError:
            continue
    return [target for target in targets if target.startswith(str(folder))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "root"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[LocalStore]:
    async with LocalStore(root) as store:
        yield store


class TestLocalStore(StoreContract):
    listing_count = 150  # a local listing has no pages, and every file is synced

    @pytest.fixture
    async def store(self, root: Path) -> AsyncIterator[Store]:
        async with LocalStore(root) as store:
            yield store
        assert not [name for name in files_below(root.parent) if "asyncsaver-tmp" in name]
        assert open_files_below(root) == []

    @pytest.fixture
    async def peer(self, root: Path) -> AsyncIterator[Store]:
        async with LocalStore(f"{root}/") as peer:
            yield peer


# --- where the root is ---------------------------------------------------------------------------------


async def test_making_a_store_touches_nothing(root: Path, tmp_path: Path) -> None:
    async with LocalStore(root):
        pass
    assert list(tmp_path.iterdir()) == []


async def test_reading_makes_no_folder(store: LocalStore, root: Path) -> None:
    assert list((await store.list()).objects) == []
    with pytest.raises(ObjectNotFoundError):
        await store.get("object.bin")
    assert dict(await store.delete(["object.bin"])) == {}
    assert not root.parent.exists()


@pytest.mark.parametrize("below", ["", "/further/down"])
async def test_a_root_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    async with LocalStore(f"{tmp_path}/file{below}") as store:
        for call in (store.put("object.bin", b"x"), store.get("object.bin"), store.head("object.bin"), store.list()):
            with pytest.raises(InvalidRootError):
                await call
        assert isinstance((await store.delete(["object.bin"]))["object.bin"], InvalidRootError)
    assert (tmp_path / "file").read_bytes() == b"precious"


async def test_a_root_behind_a_link_is_fine(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with LocalStore(tmp_path / "link") as store:
        await store.put("a/object.bin", b"content")
        assert [info.path for info in (await store.list()).objects] == ["a/object.bin"]
        await store.delete(["a/object.bin"])
    assert list((tmp_path / "real").iterdir()) == []


# --- what stays outside --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../outside.bin", "/etc/passwd", "a/../../outside.bin", "a//b", "."])
async def test_paths_that_leave_the_root_are_refused(store: LocalStore, root: Path, path: str) -> None:
    root.mkdir(parents=True)
    (root.parent / "outside.bin").write_bytes(b"outside")
    for call in (
        store.put(path, b"x"),
        store.get(path),
        store.head(path),
        store.get_into(path, [(0, 1)], [memoryview(bytearray(1))]),
    ):
        with pytest.raises(StoreError, match="not a path below"):
            await call
    assert list(await store.delete([path])) == [path]
    assert (root.parent / "outside.bin").read_bytes() == b"outside"


async def test_links_that_leave_the_root_are_refused(store: LocalStore, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "object.bin").write_bytes(b"outside")
    root.mkdir(parents=True)
    (root / "out").symlink_to(outside)
    for call in (store.put("out/object.bin", b"x"), store.get("out/object.bin"), store.list("out/")):
        with pytest.raises(StoreError, match="symbolic link"):
            await call
    assert list(await store.delete(["out/object.bin"])) == ["out/object.bin"]
    assert (outside / "object.bin").read_bytes() == b"outside"
    assert await _everything(store) == ([], [])


async def test_linked_files_are_no_objects_and_are_replaced_not_followed(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside.bin").write_bytes(b"outside")
    root.mkdir(parents=True)
    (root / "link.bin").symlink_to(tmp_path / "outside.bin")
    for call in (store.get("link.bin"), store.head("link.bin")):
        with pytest.raises(ObjectNotFoundError):
            await call
    assert await _everything(store) == ([], [])
    await store.put("link.bin", b"inside")
    assert (await store.get("link.bin")).data == b"inside"
    assert (tmp_path / "outside.bin").read_bytes() == b"outside"


async def test_other_things_are_not_listed_and_do_not_block(store: LocalStore, root: Path) -> None:
    await store.put("object.bin", b"x")
    os.mkfifo(root / "pipe")
    (root / "empty").mkdir()
    (root / "loop").symlink_to(".")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "sock"))
        assert await _everything(store) == (["object.bin"], [])
        for name in ("pipe", "sock", "empty", "loop"):
            with pytest.raises(StoreError):
                await store.get(name)
            with pytest.raises(ObjectNotFoundError):
                await store.head(name)


async def _everything(store: LocalStore) -> tuple[list[str], list[str]]:
    prefixes = (await store.list(delimiter=True)).prefixes
    return [info.path for info in (await store.list()).objects], list(prefixes)


@pytest.mark.parametrize("path", [".asyncsaver-tmp-1", "a/.asyncsaver-tmp-1", ".asyncsaver.lock"])
async def test_names_of_its_own_are_refused_and_not_listed(store: LocalStore, root: Path, path: str) -> None:
    with pytest.raises(StoreError, match="the store itself"):
        await store.put(path, b"x")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b"left by a crash")
    assert await _everything(store) == ([], [])


# --- folders -------------------------------------------------------------------------------------------


async def test_emptied_folders_go_up_to_the_root(store: LocalStore, root: Path) -> None:
    await store.put("a/b/c/1.bin", b"x")
    await store.put("a/2.bin", b"x")
    await store.delete(["a/b/c/1.bin"])
    assert sorted(path.name for path in (root / "a").iterdir()) == ["2.bin"]
    await store.delete(["a/2.bin"])
    assert root.is_dir()
    assert list(root.iterdir()) == []


async def test_writers_and_deleters_of_one_folder_do_not_trip_each_other(store: LocalStore) -> None:
    async def write_and_delete(writer: int) -> None:
        for turn in range(20):
            path = f"deep/er/{writer}-{turn}.bin"
            await store.put(path, b"x")
            assert dict(await store.delete([path])) == {}

    async with asyncio.TaskGroup() as group:
        for writer in range(6):
            group.create_task(write_and_delete(writer))
    assert await _everything(store) == ([], [])


async def test_a_file_where_a_folder_should_be(store: LocalStore) -> None:
    await store.put("a", b"file")
    with pytest.raises(StoreError, match="not a folder") as caught:
        await store.put("a/b.bin", b"x")
    assert not isinstance(caught.value, ObjectNotFoundError)
    with pytest.raises(ObjectNotFoundError):
        await store.get("a/b.bin")
    assert dict(await store.delete(["a/b.bin"])) == {}
    assert (await store.get("a")).data == b"file"


@pytest.mark.parametrize("mode", ["overwrite", "create"])
async def test_a_folder_where_a_file_should_be(store: LocalStore, root: Path, mode: str) -> None:
    await store.put("a/b.bin", b"x")
    with pytest.raises(StoreError) as caught:
        await store.put("a", b"file", mode="create" if mode == "create" else "overwrite")
    assert not isinstance(caught.value, FileExistsError)
    assert files_below(root) == ["a/b.bin"]


async def test_files_have_the_usual_mode(store: LocalStore, root: Path) -> None:
    before = os.umask(0o027)
    try:
        await store.put("put.bin", b"x")
        await store.put("create.bin", b"x", mode="create")
    finally:
        os.umask(before)
    assert {stat.S_IMODE((root / name).stat().st_mode) for name in files_below(root)} == {0o640}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")
async def test_no_permission(store: LocalStore, root: Path) -> None:
    await store.put("a/object.bin", b"x")
    (root / "a").chmod(0o500)
    try:
        with pytest.raises(AccessDeniedError):
            await store.put("a/other.bin", b"x")
        assert isinstance((await store.delete(["a/object.bin"]))["a/object.bin"], AccessDeniedError)
    finally:
        (root / "a").chmod(0o700)


# --- what reaches the disk, and in which order ---------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The system calls that decide what survives a power cut, in their order."""
    seen: list[str] = []
    fsync, replace, link, mkdir = os.fsync, os.replace, os.link, os.mkdir

    def watched_fsync(fd: int) -> None:
        seen.append("sync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", lambda old, new: (seen.append("replace"), replace(old, new)))
    monkeypatch.setattr(os, "link", lambda old, new: (seen.append("link"), link(old, new)))
    monkeypatch.setattr(os, "mkdir", lambda path: (seen.append("mkdir"), mkdir(path)))
    return seen


async def _one_part(content: bytes) -> AsyncIterator[Part]:
    yield nullcontext(memoryview(content))


async def test_content_is_synced_before_it_shows_and_the_folder_after(store: LocalStore, calls: list[str]) -> None:
    await store.put("a/1.bin", b"x")
    new_folders = ["mkdir", "sync folder"] * 3  # runs, runs/root, runs/root/a
    assert calls == [*new_folders, "sync file", "replace", "sync folder"]
    calls.clear()
    await store.put("a/2.bin", b"x", mode="create")
    assert calls == ["sync file", "link", "sync folder"]
    calls.clear()
    await store.put_parts("a/3.bin", _one_part(b"x"), size=1)
    assert calls == ["sync file", "replace", "sync folder"]
    calls.clear()
    etag = (await store.head("a/3.bin")).etag or ""
    await store.replace_if("a/3.bin", b"y", etag)
    assert calls == ["sync file", "replace", "sync folder"]


async def test_without_hard_links_creation_is_refused_and_the_probe_knows(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(old: str, new: str) -> Never:
        raise OSError(errno.EPERM, "Operation not permitted", old, None, new)

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(UnsupportedStoreError, match="no hard links"):
        await store.put("object.bin", b"x", mode="create")
    assert files_below(root) == []
    assert await probe_exclusive_create(store, token="t") is False
    await store.put("object.bin", b"x")
    assert files_below(root) == ["object.bin"]


async def test_a_link_whose_answer_was_lost_counts_as_made(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def link_twice(old: str, new: str) -> None:
        link(old, new)
        raise FileExistsError(errno.EEXIST, "File exists", new)

    monkeypatch.setattr(os, "link", link_twice)
    await store.put("object.bin", b"content", mode="create")
    assert (await store.get("object.bin")).data == b"content"


async def test_a_full_disk_leaves_nothing(store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview, offset: int) -> Never:
        raise OSError(errno.ENOSPC, "No space left on device")

    await store.put("object.bin", b"old")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match="No space left") as caught:
        await store.put_parts("object.bin", _one_part(b"x"), size=1)
    assert not caught.value.retryable
    assert files_below(root) == ["object.bin"]
    assert open_files_below(root) == []


# --- versions ------------------------------------------------------------------------------------------


async def test_versions_written_in_a_burst_have_etags_of_their_own(store: LocalStore) -> None:
    etags = [(await store.put("object.bin", b"same size")).etag for _ in range(50)]
    assert len(set(etags)) == 50


async def test_replace_if_waits_for_the_lock_of_another_process(root: Path) -> None:
    async with LocalStore(root, lock_timeout=0.05) as store:
        etag = (await store.put("object.bin", b"first")).etag or ""
        await store.replace_if("object.bin", b"second", etag)
        etag = (await store.head("object.bin")).etag or ""
        with (root / ".asyncsaver.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreTimeoutError):
                await store.replace_if("object.bin", b"third", etag)
            assert (await store.get("object.bin")).data == b"second"
    async with LocalStore(root) as store:
        with (root / ".asyncsaver.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            task = asyncio.create_task(store.replace_if("object.bin", b"third", etag))
            while len(files_below(root)) < 3:  # noqa: ASYNC110 - until the draft is there
                await asyncio.sleep(0)
        await task
        assert (await store.get("object.bin")).data == b"third"
        with pytest.raises(PreconditionFailedError):
            await store.replace_if("object.bin", b"fourth", etag)
    assert files_below(root) == [".asyncsaver.lock", "object.bin"]


async def test_cancelled_twice_and_still_tidy(store: LocalStore, root: Path) -> None:
    waiting = asyncio.Event()

    async def stalled() -> AsyncIterator[Part]:
        yield nullcontext(memoryview(bytes(store.capabilities.part_bytes)))
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.put_parts("a/large.bin", stalled(), size=2**30))
    await waiting.wait()
    for _ in range(4):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(root.iterdir()) == []
    assert open_files_below(root) == []
