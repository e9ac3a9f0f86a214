from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import s3fs
from aiohttp import web

from asyncsaver.errors import StoreError
from asyncsaver.store import Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.s3 import S3Store, open_store

from .parts import parts_of, unfinished_uploads

pytestmark = pytest.mark.server


@pytest.fixture
async def s3_store(s3_root: Any, no_leaks: None) -> AsyncIterator[S3Store]:
    async with S3Store(s3_root.url, storage_options=s3_root.storage_options) as store:
        yield store


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self, s3_store: S3Store) -> Store:
        return s3_store

    @pytest.fixture
    async def peer(self, store: Store, s3_root: Any) -> AsyncIterator[Store]:
        async with open_store(s3_root.url, storage_options=s3_root.storage_options, filesystem=None) as peer:
            yield peer


async def test_a_cancelled_upload_is_aborted(s3_store: S3Store) -> None:
    part = s3_store.capabilities.part_bytes
    waiting = asyncio.Event()
    task = asyncio.create_task(s3_store.put_parts("large.bin", parts_of(1, part, waiting), size=3 * part))
    await waiting.wait()
    assert len(await unfinished_uploads(s3_store)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await unfinished_uploads(s3_store) == []


async def test_a_failed_upload_is_aborted(s3_store: S3Store) -> None:
    part = s3_store.capabilities.part_bytes
    with pytest.raises(StoreError):
        await s3_store.put_parts("large.bin", parts_of(1, part), size=2 * part)
    assert await unfinished_uploads(s3_store) == []


async def test_as_many_connections_as_requests_in_flight(s3_store: S3Store) -> None:
    await s3_store.list()
    config = s3_store._fs._s3.meta.config
    assert config.max_pool_connections == s3_store.capabilities.concurrency
    assert config.retries["total_max_attempts"] == 1


async def test_the_users_configuration_wins(s3_root: Any) -> None:
    options = {
        **s3_root.storage_options,
        "config_kwargs": {"max_pool_connections": 3, "s3": {"addressing_style": "path"}},
    }
    async with S3Store(s3_root.url, storage_options=options) as store:
        await store.put("object.bin", b"content")
        config = store._fs._s3.meta.config
        assert config.max_pool_connections == 3
        assert config.s3["addressing_style"] == "path"
        assert config.s3["payload_signing_enabled"] is False


async def test_signed_payloads_work_where_the_user_wants_them(s3_root: Any) -> None:
    config = {"s3": {"payload_signing_enabled": True}, "request_checksum_calculation": "when_required"}
    async with S3Store(s3_root.url, storage_options={**s3_root.storage_options, "config_kwargs": config}) as store:
        content = bytes(range(256)) * 4096
        await store.put("object.bin", content)
        assert (await store.get("object.bin")).data == content


async def test_a_ready_asynchronous_filesystem_is_used_and_stays_open(s3_root: Any) -> None:
    ready = s3fs.S3FileSystem(asynchronous=True, skip_instance_cache=True, **s3_root.storage_options)
    client = await ready.set_session()
    try:
        async with open_store(s3_root.url, storage_options={}, filesystem=ready) as store:
            await store.put("object.bin", b"content")
        assert [page async for page in client.get_paginator("list_objects_v2").paginate(Bucket=_bucket(s3_root))]
    finally:
        await client.close()


async def test_a_ready_synchronous_filesystem_gets_a_twin(s3_root: Any, no_leaks: None) -> None:
    ready = s3fs.S3FileSystem(**s3_root.storage_options)
    async with open_store(s3_root.url, storage_options={}, filesystem=ready) as store:
        await store.put("object.bin", b"content")
        assert (await store.get("object.bin")).data == b"content"
    assert ready._s3 is None


def _bucket(root: Any) -> str:
    return str(root.url.split("/")[2])


# --- what moto cannot be made to answer --------------------------------------------------------------


@pytest.fixture
async def canned_store(canned_server: Any) -> AsyncIterator[S3Store]:
    options = {"key": "key", "secret": "secret", "endpoint_url": canned_server.url}
    async with S3Store("s3://bucket/run", storage_options=options) as store:
        yield store


async def test_an_upload_cancelled_while_the_store_creates_it_is_aborted(
    canned_server: Any, canned_store: S3Store
) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def create() -> web.Response:
        asked.set()
        await cancelled.wait()
        result = "<InitiateMultipartUploadResult><UploadId>the-id</UploadId></InitiateMultipartUploadResult>"
        return web.Response(text=result, content_type="application/xml")

    canned_server.answer = lambda request: create() if request.method == "POST" else web.Response(status=204)
    part = canned_store.capabilities.part_bytes
    task = asyncio.create_task(canned_store.put_parts("large.bin", parts_of(2, part), size=2 * part))
    await asked.wait()
    task.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert canned_server.requests[-1].startswith("DELETE /bucket/run/large.bin?uploadId=the-id")


async def test_the_body_is_sent_without_being_asked_for(canned_store: S3Store, headers: Any) -> None:
    """Else an answer that comes first would never be seen: aiohttp goes on waiting to be asked for the body."""
    for data in (b"", b"small", bytes(2**20)):
        await canned_store.put("object.bin", data)
    assert [sent.get("Expect") for sent in headers] == [None, None, None]
