from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import s3_endpoint
from asyncsaver.store import Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.s3 import open_store

BUCKET = "bench"

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    with s3_endpoint.endpoint(BUCKET) as url:
        yield url


@pytest.fixture
def endpoint(running: str) -> Iterator[str]:
    yield running
    s3_endpoint.reset(running)


def _open(endpoint: str) -> Store:
    options: dict[str, Any] = {"key": "any", "secret": "any", "endpoint_url": endpoint}
    return open_store(f"s3://{BUCKET}/run", storage_options=options, filesystem=None)


class TestS3OnTheEndpoint(StoreContract):
    @pytest.fixture
    async def store(self, endpoint: str) -> AsyncIterator[Store]:
        async with _open(endpoint) as store:
            yield store

    @pytest.fixture
    async def peer(self, store: Store, endpoint: str) -> AsyncIterator[Store]:
        async with _open(endpoint) as peer:
            yield peer


async def test_requests_are_counted_by_kind_until_a_reset(endpoint: str) -> None:
    s3_endpoint.reset(endpoint)
    async with _open(endpoint) as store:
        await store.put("one.bin", b"12345678")
        await store.put("two.bin", b"12345678")
        buffer = memoryview(bytearray(4))
        await store.get_into("one.bin", [(2, 6)], [buffer])
        await store.list()
    counts = s3_endpoint.stats(endpoint)["requests"]
    assert bytes(buffer) == b"3456"
    assert counts == {"put": 2, "get_range": 1, "list": 1}
    s3_endpoint.reset(endpoint)
    assert s3_endpoint.stats(endpoint)["requests"] == {}
