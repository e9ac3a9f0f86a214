"""Uploads in parts to servers that refuse some of their requests: each engine sends again just those."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

import google.oauth2.credentials
import pytest

from asyncsaver.aio.meter import metered
from asyncsaver.aio.window import RequestWindow
from asyncsaver.errors import StoreError
from asyncsaver.store import Part
from asyncsaver.store.paced import PacedStore
from asyncsaver.store.registry import open_store
from asyncsaver.store.retry import Retries, RetryingStore

from .upload_server import UploadServer

ENGINES = ["s3-fsspec", "s3-obstore", "azure-fsspec", "azure-obstore", "gcs-obstore"]
PART = 1024

pytestmark = pytest.mark.server


@pytest.fixture
def server(canned_server: Any) -> UploadServer:
    server = UploadServer(canned_server.bodies)
    canned_server.answer = server.answer
    return server


@asynccontextmanager
async def opened(engine: str, url: str, retry_timeout: float = 60.0) -> AsyncIterator[RetryingStore]:
    cloud, _, engine = engine.partition("-")
    if cloud == "s3":
        root, options = "s3://bucket/run", {"key": "key", "secret": "secret", "endpoint_url": url}
    elif cloud == "gcs":
        token = google.oauth2.credentials.Credentials("token")
        root, options = "gs://bucket/run", {"token": token, "endpoint_url": url}
    else:
        key = base64.b64encode(b"secret").decode()
        text = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={url}/devstoreaccount1"
        root, options = "az://container/run", {"connection_string": text}
    store = open_store(root, storage_options=options, engine=engine)
    store.capabilities = replace(store.capabilities, part_bytes=PART)
    retries = Retries(retry_timeout, base=0.01, cap=0.02)
    async with RetryingStore(PacedStore(store, RequestWindow(8), retries), retries) as wrapped:
        yield wrapped


async def parts_of(content: bytes) -> AsyncIterator[Part]:
    for start in range(0, len(content), PART):
        yield nullcontext(memoryview(bytearray(content[start : start + PART])))


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_tenth_of_refusals_costs_a_tenth_of_the_parts(
    engine: str, server: UploadServer, canned_server: Any
) -> None:
    rng = random.Random(5)
    server.refuse = lambda kind, _: 503 if kind == "part" and rng.random() < 0.1 else 0
    content = random.Random(1).randbytes(100 * PART)
    async with opened(engine, canned_server.url) as store:
        with metered() as meter:
            await store.put_parts("large.bin", parts_of(content), size=len(content))
    assert list(server.objects.values()) == [content]
    assert 100 < server.requests["part"] < 140
    assert server.requests["complete"] == 1
    assert server.requests["begin"] == (not engine.startswith("azure"))
    if "obstore" not in engine:  # there nobody is told
        assert meter.requests["part"] == server.requests["part"] == 100 + meter.retries


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["begin", "part", "complete"])
@pytest.mark.parametrize("status", [503, 500, 429, -1])
async def test_each_request_of_an_upload_is_sent_again_by_itself(
    engine: str, kind: str, status: int, server: UploadServer, canned_server: Any
) -> None:
    if kind == "begin" and engine.startswith("azure"):
        kind = "part"
    server.refuse = lambda what, count: status if (what, count) == (kind, 2 if kind == "part" else 1) else 0
    content = random.Random(1).randbytes(5 * PART + 10)
    async with opened(engine, canned_server.url) as store:
        await store.put_parts("large.bin", parts_of(content), size=len(content))
    assert list(server.objects.values()) == [content]
    expected = {"part": 6, "complete": 1} | ({"begin": 1} if not engine.startswith("azure") else {})
    expected[kind] += 1
    assert {what: server.requests[what] for what in expected} == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["part", "complete"])
async def test_told_to_send_everything_once_nothing_beneath_sends_twice(
    engine: str, kind: str, server: UploadServer, canned_server: Any
) -> None:
    server.refuse = lambda what, _: 503 if what == kind else 0
    content = bytes(3 * PART)
    async with opened(engine, canned_server.url, retry_timeout=0) as store:
        with pytest.raises(StoreError, match="503") as caught:
            await store.put_parts("large.bin", parts_of(content), size=len(content))
    assert caught.value.retryable
    assert server.requests["part"] <= 3
    assert server.requests["complete"] == (kind == "complete")
    assert server.requests["begin"] <= 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_is_refused_for_good_is_not_sent_again(
    engine: str, server: UploadServer, canned_server: Any
) -> None:
    server.refuse = lambda what, _: 403 if what == "part" else 0
    content = bytes(3 * PART)
    async with opened(engine, canned_server.url) as store:
        with pytest.raises(StoreError) as caught:
            await store.put_parts("large.bin", parts_of(content), size=len(content))
    assert not caught.value.retryable
    assert server.requests["part"] <= 3
    assert server.uploads == {}


@pytest.mark.parametrize("engine", ["s3-fsspec", "s3-obstore", "gcs-obstore"])
async def test_an_upload_that_the_store_has_forgotten_is_not_sent_to_again(
    engine: str, server: UploadServer, canned_server: Any
) -> None:
    def forget(kind: str, count: int) -> int:
        if (kind, count) == ("part", 2):
            server.uploads.clear()
        return 0

    server.refuse = forget
    content = bytes(3 * PART)
    async with opened(engine, canned_server.url) as store:
        with pytest.raises(StoreError, match="no more") as caught:
            await store.put_parts("large.bin", parts_of(content), size=len(content))
    assert caught.value.retryable
    assert server.requests["part"] <= 3
    assert server.objects == {}


@pytest.mark.parametrize("engine", ENGINES)
async def test_cancelling_while_a_part_pauses_leaves_nothing(
    engine: str, server: UploadServer, canned_server: Any
) -> None:
    refused = asyncio.Event()

    def refuse(kind: str, count: int) -> int:
        if kind != "part" or count < 3:
            return 0
        refused.set()
        return 503

    server.refuse = refuse
    content = bytes(4 * PART)
    async with opened(engine, canned_server.url) as store:
        upload = asyncio.create_task(store.put_parts("large.bin", parts_of(content), size=len(content)))
        await refused.wait()
        upload.cancel()
        await asyncio.wait([upload])
    assert upload.cancelled()
    assert server.objects == {}
    if not engine.startswith("azure"):
        assert server.uploads == {}
