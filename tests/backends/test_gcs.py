from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import gcsfs.core
import google.oauth2.credentials
import pytest
from aiohttp import web

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectExistsError,
    PreconditionFailedError,
    RootNotFoundError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver.store import Part, Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.gcs import GcsStore, open_store

from .refused import assert_named

TOKEN = "ya29.secret-token"

pytestmark = pytest.mark.server


class TestGcsStore(StoreContract):
    @pytest.fixture
    async def store(self, gcs_root: Any, no_leaks: None) -> AsyncIterator[Store]:
        async with open_store(gcs_root.url, storage_options=gcs_root.storage_options, filesystem=None) as store:
            yield store

    @pytest.fixture
    async def peer(self, store: Store, gcs_root: Any) -> AsyncIterator[Store]:
        async with open_store(gcs_root.url, storage_options=gcs_root.storage_options, filesystem=None) as peer:
            yield peer


async def _parts(count: int, size: int, then: asyncio.Event | None = None) -> AsyncIterator[Part]:
    for index in range(count):
        yield nullcontext(memoryview(bytes([index]) * size))
    if then is not None:
        then.set()
        await asyncio.Event().wait()


async def test_large_conditional_writes_are_whole_and_conditional(gcs_root: Any, no_leaks: None) -> None:
    content = bytes(range(256)) * 8192
    async with GcsStore(gcs_root.url, storage_options=gcs_root.storage_options) as store:
        await store.put("object.bin", content, mode="create")
        assert (await store.get("object.bin")).data == content
        with pytest.raises(ObjectExistsError):
            await store.put("object.bin", content, mode="create")


async def test_a_missing_bucket_is_named(gcs_server: Any) -> None:
    async with GcsStore("gs://no-such-bucket/run", storage_options=gcs_server.storage_options) as store:
        for call in (store.list(), store.put("object.bin", b"x")):
            with pytest.raises(RootNotFoundError, match="no-such-bucket") as caught:
                await call
            assert not caught.value.retryable


async def test_ready_filesystems(gcs_root: Any, no_leaks: None) -> None:
    kind = gcsfs.core.GCSFileSystem
    ready = kind(asynchronous=True, skip_instance_cache=True, **gcs_root.storage_options)
    session = await ready._set_session()
    async with open_store(gcs_root.url, storage_options={}, filesystem=ready) as store:
        await store.put("object.bin", b"content")
    assert not session.closed
    await session.close()

    blocking = kind(skip_instance_cache=True, **gcs_root.storage_options)
    async with open_store(gcs_root.url, storage_options={}, filesystem=blocking) as store:
        assert (await store.get("object.bin")).data == b"content"
    assert blocking._session is None


# --- what fake-gcs-server cannot be made to answer ---------------------------------------------------


@pytest.fixture
async def canned_store(canned_server: Any) -> AsyncIterator[GcsStore]:
    credentials = google.oauth2.credentials.Credentials(TOKEN)
    options = {"token": credentials, "endpoint_url": canned_server.url}
    async with GcsStore("gs://bucket/run", storage_options=options) as store:
        yield store


def _error(status: int) -> web.Response:
    return web.json_response({"error": {"code": status, "message": f"Invalid Credentials {TOKEN}"}}, status=status)


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (401, AccessDeniedError, False),
        (403, AccessDeniedError, False),
        (404, RootNotFoundError, False),
        (408, StoreTimeoutError, True),
        (412, PreconditionFailedError, False),
        (429, StoreError, True),
        (500, StoreError, True),
        (501, StoreError, False),
        (503, StoreError, True),
        (400, StoreError, False),
    ],
)
async def test_refusals_are_named_once_and_tell_no_secret(
    canned_server: Any, canned_store: GcsStore, status: int, kind: type[StoreError], retryable: bool
) -> None:
    canned_server.answer = lambda _: _error(status)
    write = canned_store.replace_if("object.bin", b"content", "7")
    error = await assert_named(canned_server, write, kind, retryable=retryable)
    assert TOKEN not in str(error)


async def test_requests_carry_the_token(canned_server: Any, canned_store: GcsStore) -> None:
    seen: list[str | None] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"name": "run/object.bin", "size": "7", "generation": "11"})

    canned_server.answer = answer
    written = await canned_store.put("object.bin", b"content")
    assert written.etag == "11"
    assert seen == [f"Bearer {TOKEN}"]


async def test_the_rest_of_a_part_is_sent_when_only_its_beginning_was_kept(
    canned_server: Any, canned_store: GcsStore
) -> None:
    full = canned_store.capabilities.part_bytes
    received = bytearray()

    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.Response(headers={"Location": f"{canned_server.url}/session"})
        start = int(request.headers["Content-Range"].removeprefix("bytes ").split("-")[0])
        assert start == len(received)
        body = canned_server.bodies[-1]
        keep = len(body) if start else len(body) // 2  # half of the first chunk is lost
        received.extend(body[:keep])
        if len(received) == full + 5:
            return web.json_response({"name": "run/large.bin", "generation": "3"})
        return web.Response(status=308, headers={"Range": f"bytes=0-{len(received) - 1}"})

    canned_server.answer = answer

    async def parts() -> AsyncIterator[Part]:
        yield nullcontext(memoryview(b"a" * full))
        yield nullcontext(memoryview(b"bcdef"))

    await canned_store.put_parts("large.bin", parts(), size=full + 5)
    assert received == b"a" * full + b"bcdef"
    assert [request.split()[0] for request in canned_server.requests] == ["POST", "PUT", "PUT", "PUT"]


async def test_a_cancelled_upload_is_given_up_at_the_store(canned_server: Any, canned_store: GcsStore) -> None:
    full = canned_store.capabilities.part_bytes

    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.Response(headers={"Location": f"{canned_server.url}/session"})
        if request.method == "DELETE":
            return web.Response(status=499)
        return web.Response(status=308, headers={"Range": f"bytes=0-{full - 1}"})

    canned_server.answer = answer
    waiting = asyncio.Event()
    task = asyncio.create_task(canned_store.put_parts("large.bin", _parts(1, full, waiting), size=3 * full))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert canned_server.requests[-1] == "DELETE /session"


async def test_listings_follow_their_pages(canned_server: Any, canned_store: GcsStore) -> None:
    def answer(request: web.Request) -> web.Response:
        name, token = ("b", None) if request.query.get("pageToken") == "next" else ("a", "next")
        item = {"name": f"run/{name}.bin", "size": "1", "generation": "5", "updated": "2024-05-01T10:00:00.123Z"}
        return web.Response(text=json.dumps({"items": [item], "nextPageToken": token}), content_type="application/json")

    canned_server.answer = answer
    listing = await canned_store.list()
    assert [info.path for info in listing.objects] == ["a.bin", "b.bin"]
    assert listing.objects[0].modified is not None
    assert listing.objects[0].modified.isoformat() == "2024-05-01T10:00:00.123000+00:00"


async def test_unusable_credentials_are_refused_without_repeating_them() -> None:
    options = {"token": {"client_secret": "hush"}, "endpoint_url": "http://127.0.0.1:1"}
    async with GcsStore("gs://bucket/run", storage_options=options) as store:
        with pytest.raises(AccessDeniedError) as caught:
            await store.list()
    assert "hush" not in str(caught.value)
