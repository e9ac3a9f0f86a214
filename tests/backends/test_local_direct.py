# ruff: noqa: ASYNC240 - these tests look at the folder behind the store
"""Large objects of the local store go past the page cache, and are the same bytes whatever the filesystem makes of that."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop

from asyncsaver.errors import StoreError
from asyncsaver.store import Part, ScatteredPart, Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends import _reserve
from asyncsaver_backends._direct import ALIGNMENT, BLOCK_BYTES, DirectWriting
from asyncsaver_backends.local import LocalStore

PART_BYTES = 4 * ALIGNMENT
Write = Callable[[int, memoryview, int], int]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder where files can be opened for direct writing."""
    try:
        os.close(os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"no O_DIRECT in {tmp_path}: {error}")
    (tmp_path / "probe").unlink()
    return tmp_path / "root"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[LocalStore]:
    async with small_parts(LocalStore(root)) as store:
        yield store
    assert open_below(root) == []


class TestWithoutDirectWrites(StoreContract):
    listing_count = 10  # the folders are not what differs

    @pytest.fixture
    async def store(self, root: Path) -> AsyncIterator[Store]:
        async with LocalStore(root, direct=False) as store:
            yield store

    @pytest.fixture
    async def peer(self, root: Path) -> AsyncIterator[Store]:
        async with LocalStore(root, direct=True) as peer:
            yield peer


def small_parts(store: LocalStore, part_bytes: int = PART_BYTES) -> LocalStore:
    store.capabilities = replace(store.capabilities, part_bytes=part_bytes)
    return store


def content_of(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def lying_at(address: int, content: bytes) -> memoryview:
    """A copy of some bytes at an address that is this much beyond a multiple of the alignment."""
    room = np.empty(len(content) + 2 * ALIGNMENT, np.uint8)
    start = (address - room.ctypes.data) % ALIGNMENT
    room[start : start + len(content)] = np.frombuffer(content, np.uint8)
    return room[start : start + len(content)].data


@contextmanager
def lent(view: memoryview) -> Iterator[memoryview]:
    """A part whose memory is used for something else as soon as it is left."""
    yield view
    view[:] = bytes(len(view))


class InPieces(ScatteredPart):
    """A part that is cut at some places, and whose memory is used for something else as soon as it is left."""

    def __init__(self, content: bytes, address: int) -> None:
        cuts = [0, *(cut for cut in (1, 700, ALIGNMENT + 5, len(content) - 9) if 0 < cut < len(content)), len(content)]
        self._pieces = [lying_at(address, content[start:stop]) for start, stop in pairwise(sorted(cuts))]

    def __enter__(self) -> memoryview:
        raise AssertionError("this store takes pieces")

    def __exit__(self, *_: object) -> None:
        """Not entered."""

    @contextmanager
    def pieces(self) -> Iterator[list[memoryview]]:
        yield self._pieces
        for piece in self._pieces:
            piece[:] = bytes(len(piece))


async def in_parts(
    content: bytes, part_bytes: int = PART_BYTES, address: int = 16, *, scattered: bool = False
) -> AsyncIterator[Part]:
    for start in range(0, len(content), part_bytes):
        part = content[start : start + part_bytes]
        yield InPieces(part, address) if scattered else lent(lying_at(address, part))


async def put_parts(store: LocalStore, content: bytes, address: int = 16, *, scattered: bool = False) -> None:
    parts = in_parts(content, store.capabilities.part_bytes, address, scattered=scattered)
    await store.put_parts("a/large.bin", parts, size=len(content))


def open_below(folder: Path) -> list[str]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [target for target in map(os.readlink, links) if target.startswith(str(folder))]


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


@dataclass(slots=True)
class Writes:
    """What `os.pwrite` is asked for, and something in its place for direct writes.

    Attributes:
        direct: of each direct write its length, its offset, and where its memory lies beyond the alignment.
        plain: length and offset of the others.
        instead: gets the true write and its arguments; returns what the call returns.
    """

    direct: list[tuple[int, int, int]] = field(default_factory=list)
    plain: list[tuple[int, int]] = field(default_factory=list)
    instead: Callable[[Write, int, memoryview, int], int] = lambda write, fd, data, offset: write(fd, data, offset)

    @contextmanager
    def watched(self) -> Iterator[None]:
        write = os.pwrite

        def pwrite(fd: int, data: memoryview, offset: int) -> int:
            if not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                self.plain.append((len(data), offset))
                return write(fd, data, offset)
            self.direct.append((len(data), offset, np.frombuffer(data, np.uint8).ctypes.data % ALIGNMENT))
            return self.instead(write, fd, data, offset)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            yield


@pytest.fixture
def writes() -> Iterator[Writes]:
    writes = Writes()
    with writes.watched():
        yield writes


# --- the bytes -----------------------------------------------------------------------------------------

EDGES = [
    1,
    ALIGNMENT - 1,
    ALIGNMENT,
    ALIGNMENT + 1,
    PART_BYTES - 1,
    PART_BYTES,
    PART_BYTES + 1,
    5 * PART_BYTES - ALIGNMENT,
    20 * PART_BYTES + 5,
]


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("address", [0, 16, 512])
@pytest.mark.parametrize("part_bytes", [ALIGNMENT, PART_BYTES, 5000])
async def test_objects_in_parts_of_any_size_and_from_any_memory(
    root: Path, part_bytes: int, address: int, scattered: bool
) -> None:
    async with small_parts(LocalStore(root), part_bytes) as store:
        for size in EDGES:
            await put_parts(store, content_of(size), address, scattered=scattered)
            assert (await store.get("a/large.bin")).data == content_of(size)
    assert names_in(root / "a") == ["large.bin"]


@pytest.mark.parametrize("mode", ["overwrite", "create"])
async def test_large_objects_in_one_request(root: Path, writes: Writes, mode: Any) -> None:
    async with LocalStore(root) as store:
        for size in (BLOCK_BYTES - 1, BLOCK_BYTES, 2 * store.capabilities.part_bytes + 100):
            written = await store.put(f"{size}.bin", lying_at(16, content_of(size)), mode=mode)
            assert written == await store.head(f"{size}.bin")
            assert (await store.get(f"{size}.bin")).data == content_of(size)
            replaced = await store.replace_if(f"{size}.bin", lying_at(24, content_of(size)[::-1]), written.etag or "")
            assert replaced == await store.head(f"{size}.bin")
            assert (await store.get(f"{size}.bin")).data == content_of(size)[::-1]
    assert min(length for length, *_ in writes.direct) >= BLOCK_BYTES
    assert set(writes.plain) == {(100, 2 * store.capabilities.part_bytes)}


async def test_only_the_end_goes_through_the_page_cache(store: LocalStore, writes: Writes) -> None:
    await put_parts(store, content_of(3 * PART_BYTES + ALIGNMENT + 100))
    assert writes.plain == [(100, 3 * PART_BYTES + ALIGNMENT)]
    # Where the disk does not take memory as it lies, a write is there twice: refused, and from a block.
    at_last = {offset: length for length, offset, _ in writes.direct}
    assert at_last == {0: PART_BYTES, PART_BYTES: PART_BYTES, 2 * PART_BYTES: PART_BYTES, 3 * PART_BYTES: ALIGNMENT}


async def test_direct_writes_can_be_turned_off(root: Path, writes: Writes) -> None:
    async with small_parts(LocalStore(root, direct=False)) as store:
        await put_parts(store, content_of(3 * PART_BYTES))
        await store.put("put.bin", content_of(BLOCK_BYTES))
        assert (await store.get("a/large.bin")).data == content_of(3 * PART_BYTES)
        assert (await store.get("put.bin")).data == content_of(BLOCK_BYTES)
    assert writes.direct == []
    assert len(writes.plain) == 3 + BLOCK_BYTES // PART_BYTES


async def test_objects_have_the_usual_mode(store: LocalStore, root: Path) -> None:
    for umask in (0o027, 0o222):
        before = os.umask(umask)
        try:
            await put_parts(store, content_of(PART_BYTES + 1))
        finally:
            os.umask(before)
        assert stat.S_IMODE((root / "a" / "large.bin").stat().st_mode) == 0o666 & ~umask
        assert (await store.get("a/large.bin")).data == content_of(PART_BYTES + 1)


def test_under_uvloop(root: Path) -> None:
    async def save_and_read() -> bytes:
        async with small_parts(LocalStore(root)) as store:
            await put_parts(store, content_of(EDGES[-1]))
            return (await store.get("a/large.bin")).data

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(save_and_read()) == content_of(EDGES[-1])


# --- filesystems that refuse ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.EACCES])
async def test_a_filesystem_without(
    store: LocalStore, writes: Writes, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    true_open = os.open

    def refusing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(code, os.strerror(code))
        return true_open(path, flags, mode)

    monkeypatch.setattr(os, "open", refusing)
    await put_parts(store, content_of(EDGES[-1]))
    assert (await store.get("a/large.bin")).data == content_of(EDGES[-1])
    assert writes.direct == []


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("accepted", [0, 1, 7])
async def test_a_filesystem_that_refuses_at_some_point(
    store: LocalStore, writes: Writes, accepted: int, scattered: bool
) -> None:
    def refusing(write: Write, fd: int, data: memoryview, offset: int) -> int:
        if len(writes.direct) > accepted:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(fd, data, offset)

    writes.instead = refusing
    await put_parts(store, content_of(EDGES[-1]), scattered=scattered)
    assert (await store.get("a/large.bin")).data == content_of(EDGES[-1])
    assert writes.plain


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EFAULT])
async def test_a_disk_that_wants_aligned_memory(store: LocalStore, root: Path, writes: Writes, code: int) -> None:
    def particular(write: Write, fd: int, data: memoryview, offset: int) -> int:
        if writes.direct[-1][2] if code == errno.EINVAL else len(writes.direct) == 1:
            raise OSError(code, os.strerror(code))
        return write(fd, data, offset)

    writes.instead = particular
    async with small_parts(LocalStore(root)) as other:
        other._threads._count = 1  # so that the last write noted is the one that is made
        for _ in range(2):
            await put_parts(other, content_of(EDGES[-1]))
            assert (await other.get("a/large.bin")).data == content_of(EDGES[-1])
    refused, *taken = writes.direct
    assert refused[2] == 16
    assert {address for *_, address in taken} == {0}, "it was not asked again"
    assert {length for length, _ in writes.plain} == {5}


async def test_aligned_memory_is_not_copied(store: LocalStore, writes: Writes) -> None:
    await put_parts(store, content_of(3 * PART_BYTES), address=0)
    assert len(writes.direct) == 3
    assert store._direct is not None
    assert store._direct._free == []


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("cut", [ALIGNMENT, 100, 0])
async def test_writes_that_are_cut_short(store: LocalStore, writes: Writes, cut: int, scattered: bool) -> None:
    def short(write: Write, fd: int, data: memoryview, offset: int) -> int:
        if cut % ALIGNMENT == 0:
            return write(fd, data[:cut], offset) if cut else 0
        # Nothing that a disk does, but something that a network might.
        plain = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        try:
            return write(plain, data[:cut], offset)
        finally:
            os.close(plain)

    writes.instead = short
    content = content_of(3 * PART_BYTES + 100)
    await put_parts(store, content, address=0, scattered=scattered)
    assert (await store.get("a/large.bin")).data == content


# --- room ----------------------------------------------------------------------------------------------


async def test_what_does_not_fit_is_refused_before_anything_is_written(root: Path, writes: Writes) -> None:
    root.mkdir()
    disk = os.statvfs(root)
    try:
        (root / "probe").touch()
        os.truncate(root / "probe", 2 * disk.f_blocks * disk.f_frsize)
    except OSError as error:
        pytest.skip(f"files cannot even have that size: {error}")
    finally:
        (root / "probe").unlink()
    async with LocalStore(root) as store:
        with pytest.raises(StoreError, match=r"a/large\.bin.*No space left") as caught:
            await store.put_parts("a/large.bin", in_parts(b"x"), size=2 * disk.f_blocks * disk.f_frsize)
    assert not caught.value.retryable
    assert (writes.direct, writes.plain) == ([], [])
    assert names_in(root) == []


async def test_a_filesystem_that_reserves_nothing(
    store: LocalStore, writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(_reserve, "fallocate", refuse)
    await put_parts(store, content_of(EDGES[-1]))
    assert (await store.get("a/large.bin")).data == content_of(EDGES[-1])
    assert writes.direct


async def test_parts_that_fall_short_of_the_room_leave_nothing(store: LocalStore, root: Path) -> None:
    with pytest.raises(StoreError, match=r"have \d+ bytes, not \d+"):
        await store.put_parts("a/large.bin", in_parts(content_of(PART_BYTES)), size=3 * PART_BYTES)
    assert names_in(root) == []
    assert open_below(root) == []


# --- threads and memory --------------------------------------------------------------------------------


async def test_cancelled_while_the_disk_is_at_it(store: LocalStore, root: Path, writes: Writes) -> None:
    disk_is_at_it, disk_may_go_on = threading.Event(), threading.Event()
    left: list[memoryview] = []

    def slow(write: Write, fd: int, data: memoryview, offset: int) -> int:
        disk_is_at_it.set()
        disk_may_go_on.wait()
        return write(fd, data, offset)

    @contextmanager
    def noted(view: memoryview) -> Iterator[memoryview]:
        try:
            yield view
        finally:
            left.append(view)

    async def parts() -> AsyncIterator[Part]:
        for _ in range(20):
            yield noted(lying_at(0, content_of(PART_BYTES)))

    writes.instead = slow
    task = asyncio.create_task(store.put_parts("a/large.bin", parts(), size=20 * PART_BYTES))
    try:
        await asyncio.to_thread(disk_is_at_it.wait)
        for _ in range(3):
            task.cancel()
            for _ in range(20):
                await asyncio.sleep(0)  # the loop runs on meanwhile
        assert not task.done()
        assert len(open_below(root)) == 2
        in_flight = 20 - len(left)
    finally:
        disk_may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 < in_flight <= store.capabilities.concurrency
    assert len(left) == 20
    assert names_in(root) == []
    assert open_below(root) == []


async def test_blocks_are_few_and_used_again(root: Path) -> None:
    async with small_parts(LocalStore(root)) as store:
        shared = store._direct
        assert shared is not None
        shared.any_memory = False
        for _ in range(3):
            await put_parts(store, content_of(50 * PART_BYTES))
        assert 0 < len(shared._free) <= store.capabilities.concurrency
        assert all(block.nbytes == BLOCK_BYTES and block.ctypes.data % BLOCK_BYTES == 0 for block in shared._free)
    assert shared._free == []


def test_a_block_that_comes_back_late_is_let_go() -> None:
    shared = DirectWriting()
    with shared.block():
        shared.close()
    assert shared._free == []
