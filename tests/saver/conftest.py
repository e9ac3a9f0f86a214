"""Roots to save under, in the shape that the tests of `Saver` use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from asyncsaver import Saver

from .place import Place


def _place(root: Any) -> Place:
    return Place(root.url, root.storage_options)


@pytest.fixture(params=["memory", "local", "s3", "s3-fsspec", "gcs", "azure", "azure-fsspec"])
def anywhere(request: pytest.FixtureRequest) -> Place:
    """A fresh root in each kind of store, through each engine that serves it, in turn."""
    kind, _, engine = request.param.partition("-")
    return replace(_place(request.getfixturevalue(f"{kind}_root")), engine=engine or "auto")


@pytest.fixture
def memory(memory_root: Any) -> Place:
    """A fresh root in memory."""
    return _place(memory_root)


@pytest.fixture
def local(local_root: Any) -> Place:
    """A fresh root on the local disk."""
    return _place(local_root)


@pytest.fixture(params=["memory", "local"])
def nearby(request: pytest.FixtureRequest) -> Place:
    """A fresh root in each store that needs no server."""
    return _place(request.getfixturevalue(f"{request.param}_root"))


class _Arrival(asyncio.Event):
    """An event that tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Any:
        self.reached.set()
        return await super().wait()


@pytest.fixture
def held_back() -> Callable[[Saver], AbstractAsyncContextManager[asyncio.Event]]:
    """Within ``async with held_back(saver)``, saves write everything and wait for their turn to commit.

    The event that it gives is set when the first of them waits.
    """

    @asynccontextmanager
    async def hold(saver: Saver) -> AsyncIterator[asyncio.Event]:
        place = saver._layout.line.take_place("an earlier save")
        place.ended = arrival = _Arrival()
        try:
            yield arrival.reached
        finally:
            saver._layout.line.leave_place(place)

    return hold
