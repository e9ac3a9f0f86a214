"""Fixtures that tests of several folders share: real storage servers, fresh roots, and a check for leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fsspec.asyn
import obstore
import obstore.store
import pytest
from hypothesis import HealthCheck, settings

from .servers import kinds
from .servers.kinds import Root, Server

# How fast a machine is proves nothing about the code.
settings.register_profile("asyncsaver", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("asyncsaver")


def _running(start: Callable[[Path], AbstractContextManager[Server]], folder: Path) -> Iterator[Server]:
    try:
        with start(folder) as running:
            yield running
    except kinds.UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An S3 server, one for each test worker."""
    yield from _running(kinds.s3, tmp_path_factory.mktemp("s3"))


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Google Cloud Storage server, one for each test worker."""
    yield from _running(kinds.gcs, tmp_path_factory.mktemp("gcs"))


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An Azure Blob Storage server, one for each test worker."""
    yield from _running(kinds.azure, tmp_path_factory.mktemp("azure"))


@pytest.fixture(scope="session")
def start_moto() -> Callable[..., AbstractContextManager[str]]:
    """Starts another S3 server: give it a log file and, if need be, an environment."""
    return kinds.moto


@pytest.fixture
def s3_root(s3_server: Server) -> Root:
    """A prefix in a fresh bucket."""
    return s3_server.fresh_root()


@pytest.fixture
def gcs_root(gcs_server: Server) -> Root:
    """A prefix in a fresh bucket."""
    return gcs_server.fresh_root()


@pytest.fixture
def azure_root(azure_server: Server) -> Root:
    """A prefix in a fresh container."""
    return azure_server.fresh_root()


@pytest.fixture
def memory_root() -> Root:
    """A store in this process that no other test has."""
    return Root(f"memory://test-{uuid.uuid4().hex}", {})


@pytest.fixture
def local_root(tmp_path: Path) -> Root:
    """A folder that does not exist yet."""
    return Root(str(tmp_path / "root"), {})


@pytest.fixture(params=["memory", "local", "s3", "gcs", "azure"])
def any_root(request: pytest.FixtureRequest) -> Root:
    """One root in each kind of store, in turn."""
    root: Root = request.getfixturevalue(f"{request.param}_root")
    return root


@pytest.fixture
async def no_leaks(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Ask for it after the root and before the store: no task and no open file may be left when the store is closed."""

    def open_files() -> set[str]:
        folder, found = Path("/proc/self/fd"), set()
        for entry in folder.iterdir() if folder.exists() else ():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile, on another thread, or the listing's own
                found.add(f"{entry.name} {entry.readlink()}")
        return {name for name in found if "/proc/" not in name}

    place: Any = request.getfixturevalue("anywhere") if "anywhere" in request.fixturenames else None
    late = place is not None and place.engine == "auto" and place.url.startswith(("s3:", "az:"))
    # Threads, a loop and sockets that fsspec and obstore start when first needed and keep.
    fsspec.asyn.get_loop()
    await obstore.put_async(obstore.store.MemoryStore(), "object.bin", b"content")
    tasks, files = asyncio.all_tasks(), open_files()
    yield
    # A transport closes its socket a few turns of the loop after close() was called on it.
    for _ in range(10):
        await asyncio.sleep(0)
    # The fixture's own task differs before and after.
    left = asyncio.all_tasks() - tasks - {asyncio.current_task()}
    assert not left
    if late:
        gc.collect()  # the traceback of a request that was cancelled may keep its client
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):  # obstore's threads close connections a moment after they were dropped
                while open_files() - files:  # noqa: ASYNC110 - no event tells of it
                    await asyncio.sleep(0.01)
    assert sorted(open_files() - files) == []


class Figures:
    """Counts what the tests of reliability went through; `make torture` adds the counts up and prints them.

    Args:
        file: where to, a line of JSON for each count; None to forget them.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def add(self, what: str, count: int = 1) -> None:
        """Count something under a name such as ``operations cut, local disk``."""
        if self._file is not None:
            with self._file.open("a") as file:  # one short line at a time: appended whole, whoever else writes
                file.write(json.dumps({"what": what, "count": count}) + "\n")


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Where tests of reliability count what they went through."""
    file = os.environ.get("ASYNCSAVER_FIGURES")
    return Figures(Path(file) if file else None)


@pytest.fixture(scope="session")
def scale() -> Callable[[int, int], int]:
    """Chooses between what `make test` can afford and what `make torture` wants: ``scale(2_000, 100_000)``."""
    torture = bool(os.environ.get("ASYNCSAVER_TORTURE"))
    return lambda usual, tortured: tortured if torture else usual
