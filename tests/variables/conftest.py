"""Roots to save under, and variables to bind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.model.leaves import Adapters


@pytest.fixture
def adapters() -> Adapters:
    return Adapters.discover()


@pytest.fixture(params=["memory", "local"])
async def saver(request: pytest.FixtureRequest) -> AsyncIterator[Saver]:
    """A saver on a fresh root."""
    root: Any = request.getfixturevalue(f"{request.param}_root")
    async with Saver(root.url) as made:
        yield made
