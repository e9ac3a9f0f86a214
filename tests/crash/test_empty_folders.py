# ruff: noqa: ASYNC240 - these tests look at the folder behind the store
"""Empty folders on a disk: a dead process leaves them, a purge removes them, and no writer trips over that."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.errors import StoreError
from asyncsaver.store import Part
from asyncsaver_backends import _posix
from asyncsaver_backends._posix import TEMPORARY_PREFIX
from asyncsaver_backends.local import LocalStore

from .systems import watched

pytestmark = pytest.mark.torture

DAY, NOW = timedelta(days=1), timedelta(0)
LONG_AGO = 1_600_000_000
PATH = "a/b/object.bin"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[LocalStore]:
    async with LocalStore(root) as store:
        yield store


def make(folder: Path, *, modified: float = LONG_AGO) -> None:
    """Make a folder; it and those that it is the only one in get that time."""
    folder.mkdir(parents=True)
    age(folder, modified)


def age(path: Path, modified: float = LONG_AGO) -> None:
    os.utime(path, (modified, modified))


def any_folder(path: str) -> bool:
    return path.endswith("/")


def folders_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir())


# --- which go, and which stay --------------------------------------------------------------------------


async def test_old_empty_folders_go_with_those_that_hold_nothing_else(store: LocalStore, root: Path) -> None:
    for folder in ("a/b/c", "a/d", "e"):
        make(root / folder)
    for folder in ("a/b", "a", "."):
        age(root / folder)
    assert await store.purge(DAY, vacant=any_folder) == 0  # only files count
    assert folders_below(root) == []
    assert root.is_dir()


async def test_young_folders_stay_and_so_do_those_above(store: LocalStore, root: Path) -> None:
    make(root / "old/young", modified=time.time() - 3600)
    make(root / "young/old")
    age(root / "old")
    await store.purge(DAY, vacant=any_folder)
    assert folders_below(root) == ["old", "old/young", "young"]
    await store.purge(
        timedelta(minutes=30), vacant=any_folder
    )  # young/old went just now, but that tells nothing about what was in it
    assert folders_below(root) == ["young"]


async def test_a_folder_with_anything_in_it_stays(store: LocalStore, root: Path) -> None:
    await store.put("object/x.bin", b"x")
    make(root / "foreign")
    (root / "foreign/.hidden").touch()
    make(root / "linking")
    (root / "linking/link").symlink_to("nowhere")
    make(root / "writing")
    (root / f"writing/{TEMPORARY_PREFIX}0123").touch()
    make(root / "piping")
    os.mkfifo(root / f"piping/{TEMPORARY_PREFIX}0123")
    before = folders_below(root)
    for folder in before:
        age(root / folder)
    assert await store.purge(DAY, vacant=any_folder) == 0
    assert folders_below(root) == before


async def test_with_an_old_draft_goes_its_folder(store: LocalStore, root: Path) -> None:
    make(root / "a/b")
    draft = root / f"a/b/{TEMPORARY_PREFIX}0123"
    draft.touch()
    for path in (draft, root / "a/b", root / "a"):
        age(path)
    assert await store.purge(DAY, vacant=any_folder) == 1
    assert folders_below(root) == []


async def test_spared_folders_stay(store: LocalStore, root: Path) -> None:
    for folder in ("mine/save", "mine/other", "yours/save"):
        make(root / folder)
    await store.purge(NOW, spare=["mine/save/"], vacant=any_folder)
    assert folders_below(root) == ["mine", "mine/save"]


async def test_nothing_behind_a_link_is_touched(store: LocalStore, root: Path, tmp_path: Path) -> None:
    make(tmp_path / "outside/empty")
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    await store.purge(NOW, vacant=any_folder)
    assert (root / "link").is_symlink()
    assert (tmp_path / "outside/empty").is_dir()


async def test_folders_that_are_not_ours_stay(store: LocalStore, root: Path) -> None:
    for folder in (
        "lost+found",
        "logs",
        "ckpt-00000001/20200101T000000Z-0123456789abcdef",
        "ckpt-latest",
        ".asyncsaver-probe",
    ):
        make(root / folder)
        age(root / folder.split("/")[0])
    await store.purge(DAY)
    assert len(folders_below(root)) == 6
    async with Saver(root) as saver:
        await saver.sweep()
    assert folders_below(root) == ["ckpt-latest", "logs", "lost+found"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look anywhere")
async def test_what_may_not_be_looked_at_stays(store: LocalStore, root: Path) -> None:
    make(root / "a/secret")
    make(root / "b")
    (root / "a/secret").chmod(0)
    await store.purge(NOW, vacant=any_folder)
    assert folders_below(root) == ["a", "a/secret"]


async def test_a_root_that_does_not_exist(store: LocalStore, root: Path) -> None:
    assert await store.purge(NOW, vacant=any_folder) == 0
    assert not root.exists()


async def test_a_delete_that_is_repeated_removes_the_folder_that_the_first_one_left(
    store: LocalStore, root: Path
) -> None:
    make(root / "a/b")
    assert dict(await store.delete([PATH])) == {}
    assert folders_below(root) == []


# --- while somebody writes -----------------------------------------------------------------------------


async def one_part(content: bytes) -> AsyncIterator[Part]:
    yield nullcontext(memoryview(content))


Write = Callable[[LocalStore], Awaitable[Any]]
WRITES: dict[str, Write] = {
    "put": lambda store: store.put(PATH, b"content"),
    "create": lambda store: store.put(PATH, b"content", mode="create"),
    "put_parts": lambda store: store.put_parts(PATH, one_part(b"content"), size=7),
}


def remove_empty(root: Path) -> None:
    """What a purge and a delete do to folders that they have found empty."""
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            folder.rmdir()


class Meddler:
    """Does things between the system calls of a writer: before the calls of given numbers."""

    def __init__(self, deeds: dict[int, Callable[[], object]]) -> None:
        self.deeds = deeds
        self.calls: list[str] = []
        self._lock = threading.RLock()  # a deed may make such calls itself

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        with self._lock:
            if (deed := self.deeds.pop(len(self.calls), None)) is not None:
                deed()
            self.calls.append(name)
        return call()


async def met(root: Path, write: Write, deeds: dict[int, Callable[[], object]]) -> list[str]:
    """Write while somebody meddles; it must succeed. Returns the system calls of the writer."""
    meddler = Meddler(deeds)
    async with LocalStore(root) as store:
        with watched(meddler.around):
            await write(store)
        assert (await store.get(PATH)).data == b"content"
        assert [info.path for info in (await store.list()).objects] == [PATH]
    assert folders_below(root) == ["a", "a/b"]
    return meddler.calls


@pytest.mark.parametrize("name", WRITES)
async def test_folders_that_vanish_before_any_call_of_a_writer(tmp_path: Path, name: str, figures: Any) -> None:
    calls = await met(tmp_path / "alone", WRITES[name], {})
    assert calls.index("mkdir") < len(calls) - 1 - calls[::-1].index("open")
    began_anew = 0
    for number in range(len(calls)):
        root = tmp_path / str(number)
        made = await met(root, WRITES[name], {number: lambda root=root: remove_empty(root)})
        began_anew += made.count("mkdir") > calls.count("mkdir")
    assert began_anew >= 2  # where the folder went between mkdir and open
    figures.add("folders removed under a writer", len(calls))


@pytest.mark.parametrize("name", WRITES)
async def test_folders_that_come_and_go_between_the_calls_of_a_writer(tmp_path: Path, name: str, figures: Any) -> None:
    calls = await met(tmp_path / "alone", WRITES[name], {})
    for number in range(len(calls)):
        root = tmp_path / str(number)
        # Somebody else makes the folder before the writer does, and it is gone when the writer looks.
        appear = lambda root=root: (root / PATH).parent.mkdir(parents=True, exist_ok=True)  # noqa: E731 - done later
        await met(root, WRITES[name], {number: appear, number + 1: lambda root=root: remove_empty(root)})
    figures.add("folders removed under a writer", len(calls))


async def test_a_purge_between_making_the_folder_and_writing_there(tmp_path: Path) -> None:
    calls = await met(tmp_path / "alone", WRITES["put"], {})
    # Until there is a draft: from then on, its own age protects it.
    for number in range(calls.index("utime") - 1):
        root = tmp_path / str(number)
        await met(root, WRITES["put"], {number: lambda root=root: _posix.purge(str(root), -10, (), any_folder)})


async def test_a_writer_comes_between_looking_and_removing(root: Path) -> None:
    make(root / "a/b")

    def write_before_removal(name: str, call: Callable[[], Any]) -> Any:
        if name == "rmdir":
            (root / PATH).write_bytes(b"content")
        return call()

    async with LocalStore(root) as store:
        with watched(write_before_removal):
            await store.purge(NOW, vacant=any_folder)
        assert (await store.get(PATH)).data == b"content"


async def test_a_folder_that_is_removed_for_ever_ends_in_an_error_worth_a_retry(root: Path) -> None:
    def remove_before_opening(name: str, call: Callable[[], Any]) -> Any:
        if name == "open":
            remove_empty(root)
        return call()

    async with LocalStore(root) as store:
        await store.put("kept.bin", b"content")
        with watched(remove_before_opening), pytest.raises(StoreError, match="keeps being removed") as caught:
            await store.put(PATH, b"content")
        assert caught.value.retryable
    assert folders_below(root) == []
