from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from asyncsaver.store import Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.obstore import open_store

pytestmark = pytest.mark.server


class TestObstoreAzureStore(StoreContract):
    @pytest.fixture
    async def store(self, azure_root: Any) -> AsyncIterator[Store]:
        async with open_store(azure_root.url, storage_options=azure_root.storage_options, filesystem=None) as store:
            yield store

    @pytest.fixture
    async def peer(self, store: Store, azure_root: Any) -> AsyncIterator[Store]:
        async with open_store(azure_root.url, storage_options=azure_root.storage_options, filesystem=None) as peer:
            yield peer
