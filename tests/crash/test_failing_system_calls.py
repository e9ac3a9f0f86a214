"""Each system call of each operation of the local store fails, in turn: an error of ours, nothing left, the object whole."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncsaver.errors import ObjectExistsError, ObjectNotFoundError, PreconditionFailedError, StoreError
from asyncsaver.store import Part
from asyncsaver_backends.local import LocalStore

from .grounds import Disk
from .systems import Around, Failure, full_disk, sides_of, watched

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

Scale = Callable[[int, int], int]
OLD, NEW = b"old" * 1000, b"new" * 2000
LARGE = (
    b"large" * 2**19
)  # written as large objects are, in one request: past the page cache where the filesystem lets us
STANDING, FRESH, SPARE = "a/b/standing.bin", "c/d/fresh.bin", "a/kept.bin"
# The disk is broken, full, or interrupted; a folder has just gone; permission was taken away; the server forgot the file.
CODES = (errno.EIO, errno.ENOSPC, errno.EINTR, errno.ENOENT, errno.EACCES, errno.ESTALE)
# After which of these may an operation go on: the time stamp is a nicety, and what cannot be removed is left to a purge.
HARMLESS = frozenset({"utime", "unlink", "rmdir"})
# Nor is a large object the worse for a file that cannot be opened a second time, for writing past the page cache.
OPTIONAL = ("open", errno.EACCES)
NOW = timedelta(seconds=-1)  # the digits of a file's time that are drawn may be ahead of the clock


async def one_part(content: bytes) -> AsyncIterator[Part]:
    yield nullcontext(memoryview(content))


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done, and to which object.

    Attributes:
        name: for the test's id.
        path: of the object that it changes or reads.
        run: does it; gets the etag of the standing object.
        outcome: what the path holds when it is through; None for nothing.
        refused: the error that it ends in when nothing fails.
    """

    name: str
    path: str
    run: Callable[[LocalStore, str], Awaitable[Any]]
    outcome: bytes | None
    refused: type[StoreError] | None = None


WRITES = (
    Operation("put", FRESH, lambda store, _: store.put(FRESH, NEW), NEW),
    Operation("put a large one", FRESH, lambda store, _: store.put(FRESH, LARGE), LARGE),
    Operation("put over another", STANDING, lambda store, _: store.put(STANDING, NEW), NEW),
    Operation("create", FRESH, lambda store, _: store.put(FRESH, NEW, mode="create"), NEW),
    Operation(
        "create what exists",
        STANDING,
        lambda store, _: store.put(STANDING, NEW, mode="create"),
        OLD,
        refused=ObjectExistsError,
    ),
    Operation("put_parts", FRESH, lambda store, _: store.put_parts(FRESH, one_part(NEW), size=len(NEW)), NEW),
    Operation(
        "put_parts that do not add up",
        FRESH,
        lambda store, _: store.put_parts(FRESH, one_part(NEW), size=1),
        None,
        refused=StoreError,
    ),
    Operation("replace_if", STANDING, lambda store, etag: store.replace_if(STANDING, NEW, etag), NEW),
    Operation(
        "replace_if of another version",
        STANDING,
        lambda store, _: store.replace_if(STANDING, NEW, "other"),
        OLD,
        refused=PreconditionFailedError,
    ),
    Operation("delete", STANDING, lambda store, _: delete_one(store, STANDING), None),
)
READS = (
    Operation("get", STANDING, lambda store, _: store.get(STANDING), OLD),
    Operation("get_into", STANDING, lambda store, _: get_into(store, STANDING), OLD),
    Operation("head", STANDING, lambda store, _: store.head(STANDING), OLD),
    Operation("list", STANDING, lambda store, _: store.list("a/b/"), OLD),
    Operation("list of folders", STANDING, lambda store, _: store.list("a/", delimiter=True), OLD),
)


async def delete_one(store: LocalStore, path: str) -> None:
    failed = await store.delete([path])
    for error in failed.values():
        raise error


async def get_into(store: LocalStore, path: str) -> None:
    whole = bytearray(len(OLD))
    await store.get_into(path, [(0, 10), (10, len(OLD))], [memoryview(whole)[:10], memoryview(whole)[10:]])
    assert whole == OLD


def open_below(folder: Path) -> list[str]:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return [target for target in map(os.readlink, links) if target.startswith(str(folder))]


@dataclass(frozen=True, slots=True)
class Case:
    """One run, and which of its system calls fails, and how."""

    operation: Operation
    call: str
    failure: Failure

    def __str__(self) -> str:
        side = "after" if self.failure.applied else "before"
        return f"{self.operation.name}: {errno.errorcode[self.failure.code]} {side} {self.call} ({self.failure.at})"


def standing(ground: Disk) -> None:
    """Two objects, without any store."""
    for path in (STANDING, SPARE):
        file = Path(ground.url, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(OLD)


async def failing(ground: Disk, operation: Operation, around: Around) -> StoreError | None:
    """Run an operation where the system calls go through another function; returns how it failed, if it did."""
    standing(ground)
    async with LocalStore(ground.url) as store:
        etag = (await store.head(STANDING)).etag or ""
        with watched(around):
            try:
                await operation.run(store, etag)
            except StoreError as error:
                return error
    return None


async def content_of(store: LocalStore, path: str) -> bytes | None:
    try:
        return (await store.get(path)).data
    except ObjectNotFoundError:
        return None


async def check_write(folder: Path, case: Case) -> None:
    operation, failure = case.operation, case.failure
    ground = Disk.fresh(folder)
    error = await failing(ground, operation, failure.around)
    before = OLD if operation.path == STANDING else None
    assert open_below(folder) == []
    async with LocalStore(ground.url) as store:
        found = await content_of(store, operation.path)
        if error is None:
            assert found == operation.outcome
            assert operation.refused is None
            assert case.call in HARMLESS or failure.code == errno.ENOENT or (case.call, failure.code) == OPTIONAL, (
                "nobody heard of it"
            )
        else:
            assert operation.path in str(error)
            assert found in {before, operation.outcome}
        assert await content_of(store, SPARE) == OLD
        hidden = await ground.hidden()
        if case.call == "rmdir" or (case.call == "unlink" and not failure.applied):
            await store.purge(NOW, vacant=lambda _: True)  # it could not tidy up
            hidden = await ground.hidden()
        assert not hidden, f"{hidden} are left"
        await store.put(operation.path, b"next")
        assert await content_of(store, operation.path) == b"next"
        assert await ground.hidden() == []


async def check_read(folder: Path, case: Case) -> None:
    error = await failing(Disk.fresh(folder), case.operation, case.failure.around)
    assert open_below(folder) == []
    if error is None:
        # What is gone is not listed, nor what is not ours; a file that was read whole was read whole.
        assert case.failure.code in {errno.ENOENT, errno.EACCES} or case.call == "close", "nobody heard of it"
    else:
        assert case.operation.path in str(error) or case.operation.path.startswith(str(error).split(" in ")[0])


async def check_all(
    folder: Path, operation: Operation, check: Callable[[Path, Case], Awaitable[None]], chosen: int
) -> int:
    """Fail every system call of an operation in every way, or so many of all these; returns how many."""
    counting = Failure()
    assert isinstance(await failing(Disk.fresh(folder), operation, counting.around), operation.refused or type(None))
    assert counting.made, "it makes no system call"
    cases = [
        Case(operation, name, Failure(number, code, applied=applied))
        for number, name in enumerate(counting.made)
        for code in CODES
        for applied in sides_of(name)
        if not (code == errno.ENOENT and name in HARMLESS)  # gone is what it should be, and a lie if it is not
    ]
    cases = random.Random(operation.name).sample(cases, min(chosen, len(cases)))
    for case in cases:
        try:
            await check(folder, case)
        except BaseException as error:
            error.add_note(str(case))
            raise
    return len(cases)


@pytest.mark.parametrize("operation", WRITES, ids=lambda operation: operation.name)
async def test_a_failing_call_of_a_write(tmp_path: Path, operation: Operation, scale: Scale, figures: Any) -> None:
    figures.add("system calls failed, local disk", await check_all(tmp_path, operation, check_write, scale(12, 1000)))


@pytest.mark.parametrize("operation", READS, ids=lambda operation: operation.name)
async def test_a_failing_call_of_a_read(tmp_path: Path, operation: Operation, scale: Scale, figures: Any) -> None:
    figures.add("system calls failed, local disk", await check_all(tmp_path, operation, check_read, scale(12, 1000)))


@pytest.mark.parametrize(
    "operation", [one for one in WRITES if one.outcome in {NEW, LARGE}], ids=lambda operation: operation.name
)
async def test_a_disk_that_is_full_in_mid_write(tmp_path: Path, operation: Operation) -> None:
    ground = Disk.fresh(tmp_path)
    error = await failing(ground, operation, full_disk)
    assert error is not None
    assert operation.path in str(error)
    assert "No space left" in str(error)
    assert open_below(tmp_path) == []
    assert await ground.hidden() == []
    async with LocalStore(ground.url) as store:
        assert await content_of(store, operation.path) == (OLD if operation.path == STANDING else None)
        await store.put(operation.path, b"next")
        assert await content_of(store, operation.path) == b"next"
