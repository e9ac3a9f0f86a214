from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncsaver.store.contract import Store
from asyncsaver.store.registry import open_store


@pytest.fixture
async def store(memory_root: Any) -> AsyncIterator[Store]:
    async with open_store(memory_root.url) as store:
        yield store
