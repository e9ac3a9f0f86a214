from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import AsyncIterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Never

import fsspec
import pytest
from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    StoreError,
    StoreTimeoutError,
    UnsupportedStoreError,
)
from asyncsaver.store import Part, Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.fsspec import FsspecStore


@pytest.fixture
def memory() -> MemoryFileSystem:
    return MemoryFileSystem(global_store=False, skip_instance_cache=True)


class TestMemoryFileSystem(StoreContract):
    listing_count = 300

    @pytest.fixture
    async def store(self, memory: MemoryFileSystem) -> AsyncIterator[Store]:
        async with FsspecStore(memory, "memory://run/1") as store:
            yield store

    @pytest.fixture
    async def peer(self, memory: MemoryFileSystem) -> AsyncIterator[Store]:
        async with FsspecStore(memory, "/run/1/") as peer:
            yield peer


class TestFilesThroughAWrapper(StoreContract):
    listing_count = 150

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with FsspecStore(DirFileSystem(path=str(tmp_path), fs=LocalFileSystem()), "root") as store:
            yield store

    async def test_readers_see_one_version_whole(self, store: Store) -> None:
        pytest.skip("fsspec's local filesystem overwrites in place")


class TestAsynchronousFileSystem(StoreContract):
    listing_count = 300

    @pytest.fixture
    async def store(self, memory: MemoryFileSystem) -> AsyncIterator[Store]:
        async with FsspecStore(AsyncFileSystemWrapper(memory, asynchronous=True), "run") as store:
            yield store


class TestTwinOfASynchronousModeFileSystem(StoreContract):
    listing_count = 300

    @pytest.fixture
    async def store(self, memory: MemoryFileSystem) -> AsyncIterator[Store]:
        async with FsspecStore(AsyncFileSystemWrapper(fs=memory, asynchronous=False), "run") as store:
            yield store


async def _parts(*contents: bytes) -> AsyncIterator[Part]:
    for content in contents:
        yield nullcontext(memoryview(content))


async def test_asynchronous_filesystems_run_on_the_callers_loop(memory: MemoryFileSystem) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    class Watched(AsyncFileSystemWrapper):
        async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
            loops.append(asyncio.get_running_loop())
            return bytes(memory.cat_file(path, start, end))

        def _wrap_all_sync_methods(self) -> None:
            super()._wrap_all_sync_methods()
            del self._cat_file

    for asynchronous in (True, False):
        async with FsspecStore(Watched(fs=memory, asynchronous=asynchronous), "run") as store:
            memory.pipe_file("/run/object.bin", b"content")
            assert (await store.get("object.bin")).data == b"content"
    assert loops == [asyncio.get_running_loop()] * 2


async def test_a_wrapper_that_cannot_be_asynchronous_runs_in_threads(tmp_path: Path) -> None:
    async with FsspecStore(DirFileSystem(path=str(tmp_path), fs=LocalFileSystem()), "sub") as store:
        await store.put("a/object.bin", b"content")
    assert (tmp_path / "sub/a/object.bin").read_bytes() == b"content"


async def test_what_it_claims(memory: MemoryFileSystem) -> None:
    async with FsspecStore(memory, "run") as store:
        assert store.capabilities.exclusive_create
        assert not store.capabilities.compare_and_swap
        assert store.url == "memory:///run"
    async with FsspecStore(LocalFileSystem(), "/run") as store:
        assert not store.capabilities.exclusive_create


async def test_create_without_exclusion_still_looks(tmp_path: Path) -> None:
    async with FsspecStore(LocalFileSystem(), str(tmp_path)) as store:
        await store.put("object.bin", b"first", mode="create")
        with pytest.raises(FileExistsError):
            await store.put("object.bin", b"second", mode="create")
        assert (await store.get("object.bin")).data == b"first"


class CachingFileSystem(LocalFileSystem):
    """Answers from its cache of listings whenever it has one."""

    cachable = False

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = LocalFileSystem().ls(path, detail=True, **kwargs)
        return self.dircache[path] if detail else [entry["name"] for entry in self.dircache[path]]

    def info(self, path: str, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        for entry in self.ls(self._parent(path), detail=True):
            if entry["name"] == path:
                return entry
        raise FileNotFoundError(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


async def test_what_others_write_is_seen_in_spite_of_listing_caches(tmp_path: Path) -> None:
    async with FsspecStore(CachingFileSystem(), str(tmp_path)) as store:
        assert list((await store.list()).objects) == []
        (tmp_path / "object.bin").write_bytes(b"1")
        assert [info.size for info in (await store.list()).objects] == [1]
        (tmp_path / "object.bin").write_bytes(b"12")
        assert (await store.head("object.bin")).size == 2
        (tmp_path / "object.bin").write_bytes(b"123")
        assert [info.size for info in (await store.list(delimiter=True)).objects] == [3]


class UploadingFileSystem(MemoryFileSystem):
    """Writes through a buffer, as object stores do: what is written shows when the file is closed."""

    cachable = False
    protocol = "uploading"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(global_store=False, **kwargs)
        self.block_sizes: list[int] = []

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        return Upload(self, path, mode) if mode == "wb" else super()._open(path, mode, **kwargs)


class Upload(AbstractBufferedFile):
    DEFAULT_BLOCK_SIZE = 1000

    def _initiate_upload(self) -> None:
        self.sent: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.sent.append(self.buffer.getvalue())
        self.fs.block_sizes.append(len(self.sent[-1]))
        if final:
            self.fs.store[self.path] = fsspec.implementations.memory.MemoryFile(self.fs, self.path, b"".join(self.sent))
        return True


def _not_memory(files: UploadingFileSystem) -> FsspecStore:
    return FsspecStore(lambda: (files, "/run"), "uploading://run")


async def test_large_objects_are_streamed() -> None:
    files = UploadingFileSystem()
    async with _not_memory(files) as store:
        await store.put_parts("large.bin", _parts(b"a" * 3000, b"b" * 3000, b"c"), size=6001)
        assert (await store.get("large.bin")).data == b"a" * 3000 + b"b" * 3000 + b"c"
    assert max(files.block_sizes) < 6001


async def test_an_abandoned_upload_is_not_completed_later() -> None:
    files = UploadingFileSystem()
    async with _not_memory(files) as store:
        await store.put_parts("old.bin", _parts(b"old"), size=3)
        for path in ("old.bin", "new.bin"):
            with pytest.raises(StoreError, match="do not have"):
                await store.put_parts(path, _parts(b"a" * 3000, b"b"), size=5000)
        gc.collect()
        assert [info.path for info in (await store.list()).objects] == ["old.bin"]
        assert (await store.get("old.bin")).data == b"old"


async def test_bytes_that_were_dropped_are_noticed(tmp_path: Path) -> None:
    class Dropping(LocalFileSystem):
        cachable = False

        def open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            super().open(path, mode).close()
            return super().open("/dev/null", mode)

    async with FsspecStore(Dropping(), str(tmp_path)) as store:
        with pytest.raises(StoreError, match="has 0 bytes, not the 4 written"):
            await store.put_parts("large.bin", _parts(b"gone"), size=4)
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_what_a_failed_write_left_is_deleted(tmp_path: Path) -> None:
    async with FsspecStore(LocalFileSystem(), str(tmp_path)) as store:
        with pytest.raises(StoreError, match="do not have"):
            await store.put_parts("large.bin", _parts(b"half"), size=8)
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


class NoRenameOver(LocalFileSystem):
    """Refuses to rename over a file, as SFTP does."""

    cachable = False

    def mv(self, path1: str, path2: str, **kwargs: Any) -> None:
        if self.exists(path2):
            raise OSError(errno.EEXIST, "Failure")
        super().mv(path1, path2, **kwargs)


async def test_replacing_where_a_rename_does_not(tmp_path: Path) -> None:
    async with FsspecStore(NoRenameOver(), str(tmp_path)) as store:
        await store.put("object.bin", b"old")
        await store.put_parts("object.bin", _parts(b"new"), size=3)
        assert (await store.get("object.bin")).data == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["object.bin"]  # noqa: ASYNC240


# --- errors ----------------------------------------------------------------------------------------------


class ServerDisconnectedError(Exception):
    """Bears the name of aiohttp's."""


class HttpError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__("https://host/object?sig=hunter2")
        self.status = status


@pytest.mark.parametrize(
    ("raised", "expected", "retryable"),
    [
        (FileNotFoundError("x"), ObjectNotFoundError, False),
        (HttpError(404), ObjectNotFoundError, False),
        (PermissionError(errno.EACCES, "hunter2"), AccessDeniedError, False),
        (HttpError(403), AccessDeniedError, False),
        (TimeoutError("hunter2"), StoreTimeoutError, True),
        (ConnectionResetError("hunter2"), StoreError, True),
        (ServerDisconnectedError("hunter2"), StoreError, True),
        (HttpError(503), StoreError, True),
        (HttpError(400), StoreError, False),
        (OSError("hunter2"), StoreError, False),
        (RuntimeError("hunter2"), StoreError, False),
        (NotImplementedError(), UnsupportedStoreError, None),
    ],
)
async def test_errors_are_translated(raised: Exception, expected: type[Exception], retryable: bool | None) -> None:
    class Failing(LocalFileSystem):
        cachable = False

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Never:
            raise raised

    async with FsspecStore(Failing(), "/run") as store:
        with pytest.raises(expected) as caught:
            await store.get("object.bin")
        with pytest.raises(expected):
            await store.get_into("object.bin", [(0, 1)], [memoryview(bytearray(1))])
    assert type(caught.value.__cause__) is type(raised)
    assert "object.bin" in str(caught.value)
    if isinstance(raised, HttpError):
        assert "hunter2" not in str(caught.value)
    if isinstance(caught.value, StoreError):
        assert type(caught.value) is expected
        assert caught.value.path == "object.bin"
        assert caught.value.retryable is retryable


async def test_a_connection_that_cannot_be_made_is_a_store_error() -> None:
    def refused() -> Never:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    async with FsspecStore(refused, "sftp://user:hunter2@host/run") as store:
        with pytest.raises(StoreError, match="Connection refused") as caught:
            await store.get("object.bin")
    assert caught.value.retryable
    assert "hunter2" not in str(caught.value)


async def test_deletions_that_fail_are_reported_each() -> None:
    class Keeping(LocalFileSystem):
        cachable = False

        def rm_file(self, path: str) -> None:
            if path.endswith("locked.bin"):
                raise PermissionError(errno.EPERM, "locked")
            raise FileNotFoundError(path)

    async with FsspecStore(Keeping(), "/run") as store:
        failed = await store.delete(["locked.bin", "missing.bin", "../up"])
    assert {path: type(error) for path, error in failed.items()} == {
        "locked.bin": AccessDeniedError,
        "../up": StoreError,
    }
