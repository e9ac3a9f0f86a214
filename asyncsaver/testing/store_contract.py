"""The store contract as tests: a backend proves itself by subclassing `StoreContract`.

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            async with MyStore("mystore://bucket/some-fresh-prefix") as store:
                yield store

        @pytest.fixture
        async def peer(self, store):
            async with MyStore(store.url) as peer:
                yield peer

pytest-asyncio drives it: in its auto mode as above; in its strict mode decorate the fixtures with
``pytest_asyncio.fixture``.
"""

from __future__ import annotations

from typing import ClassVar

import pytest

from asyncsaver.store import Store
from asyncsaver.testing._contract_objects import ObjectTests
from asyncsaver.testing._contract_parts import PartTests
from asyncsaver.testing._contract_races import RaceTests


class StoreContract(ObjectTests, PartTests, RaceTests):
    """Every sentence of `asyncsaver.store.contract`, checked on a store.

    What a store says it cannot do (`Capabilities`) is not asked of it. Sizes follow `Capabilities.part_bytes`.

    Attributes:
        listing_count: how many objects the longest listing has; the default goes past a page of 1000 keys.
        unusual_paths: object names that must survive the way to the store and back.
    """

    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.asyncio]

    @pytest.fixture
    def store(self) -> Store:
        """A store on a fresh, empty root. Override it (an async fixture is fine), and close the store afterwards."""
        raise NotImplementedError("override the fixture `store`")

    @pytest.fixture
    def peer(self) -> Store | None:
        """A second, independent store object on the same root as `store`; tests of two clients are skipped without."""
        return None
