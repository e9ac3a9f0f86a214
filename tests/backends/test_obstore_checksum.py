"""Servers that do not know the checksum which uploads of the obstore engine carry: it is given up, once and by itself."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from yarl import URL

from asyncsaver import Saver
from asyncsaver.errors import StoreError
from asyncsaver.store.resend import NEVER
from asyncsaver.store.retry import Retries
from asyncsaver_backends.obstore import ObstoreS3Store

from .parts import parts_of
from .upload_server import UploadServer

# What servers have been seen to answer, to a put and to the beginning of an upload alike.
REFUSALS = {
    "backblaze": (400, "InvalidArgument", "Unsupported header 'x-amz-checksum-algorithm' received for this API call."),
    "cloudflare": (501, "NotImplemented", "Header 'x-amz-checksum-algorithm' with value 'CRC64NVME' not implemented"),
    "minio": (400, "InvalidArgument", "Invalid checksum provided."),
    "older minio": (
        400,
        "InvalidArgument",
        "Invalid arguments for b/o: (invalid/unknown checksum sent: invalid checksum)",
    ),
    "swift": (400, "InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid."),
    "ceph": (400, "InvalidArgument", ""),
}
GIVEN_UP = "the server does not know the checksum CRC64NVME"


def _carries_checksum(request: web.Request) -> bool:
    return any(name.lower().startswith("x-amz-checksum") for name in request.headers)


def _refusal(status: int, code: str, message: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _backblaze() -> web.Response:
    return _refusal(*REFUSALS["backblaze"])


@pytest.fixture
def options(canned_server: Any) -> dict[str, Any]:
    return {"key": "key", "secret": "secret", "endpoint_url": canned_server.url}


@pytest.fixture
async def store(options: dict[str, Any]) -> AsyncIterator[ObstoreS3Store]:
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        yield store


@pytest.fixture
def server(canned_server: Any) -> UploadServer:
    """Takes uploads in parts, in requests without a checksum."""
    server = UploadServer(canned_server.bodies)

    def answer(request: web.Request) -> web.Response:
        if _carries_checksum(request):
            canned_server.bodies.pop()
            return _backblaze()
        return server.answer(request)

    canned_server.answer = answer
    return server


@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_write_goes_without_the_checksum_and_later_ones_at_once(
    kind: str, canned_server: Any, store: ObstoreS3Store, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return _refusal(*REFUSALS[kind]) if _carries_checksum(request) else web.Response(headers={"ETag": '"etag"'})

    canned_server.answer = answer
    with caplog.at_level("INFO", "asyncsaver_backends"):
        assert (await store.put("object.bin", b"content", mode="create")).etag == '"etag"'
        await store.replace_if("object.bin", b"content", '"etag"')
    assert canned_server.bodies == [b"content"] * 3
    assert [headers.get("If-None-Match") for headers in seen] == ["*", "*", None]
    assert [headers.get("If-Match") for headers in seen] == [None, None, '"etag"']
    signed = [len(headers["x-amz-content-sha256"]) == 64 for headers in seen]
    assert signed == [False, True, True]
    assert caplog.text.count(GIVEN_UP) == 1


@pytest.mark.parametrize("seconds", [0, 60])
async def test_an_upload_in_parts_is_begun_without_the_checksum(
    seconds: float, server: UploadServer, canned_server: Any, store: ObstoreS3Store
) -> None:
    size = 2 * store.capabilities.part_bytes
    resend = Retries(seconds).begin_upload("put") if seconds else NEVER
    await store.put_parts("large.bin", parts_of(2, size // 2), size=size, resend=resend)
    assert server.objects == {"/bucket/run/large.bin": bytes(size)}
    assert server.requests == {"begin": 1, "part": 2, "complete": 1}
    assert server.uploads == {}
    assert len(canned_server.requests) == 5  # those, and the one that was refused


async def test_writes_at_a_time_give_it_up_together(
    canned_server: Any, store: ObstoreS3Store, caplog: pytest.LogCaptureFixture
) -> None:
    together = asyncio.Barrier(8)

    async def refuse() -> web.Response:
        await together.wait()
        return _backblaze()

    canned_server.answer = lambda request: (
        refuse() if _carries_checksum(request) else web.Response(headers={"ETag": '"etag"'})
    )
    with caplog.at_level("INFO", "asyncsaver_backends"):
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(store.put(f"{number}.bin", b"content"))
    assert len(canned_server.requests) == 16
    assert caplog.text.count(GIVEN_UP) == 1


async def test_refused_with_its_parts_an_upload_may_be_begun_anew(
    server: UploadServer, canned_server: Any, store: ObstoreS3Store
) -> None:
    """Where the server takes no notice of what the beginning of the upload says."""

    def answer(request: web.Request) -> web.Response:
        if "x-amz-checksum-crc64nvme" in request.headers:
            canned_server.bodies.pop()
            return _backblaze()
        return server.answer(request)

    canned_server.answer = answer
    size = 2 * store.capabilities.part_bytes
    with pytest.raises(StoreError, match=GIVEN_UP) as caught:
        await store.put_parts("large.bin", parts_of(2, size // 2), size=size)
    assert caught.value.retryable
    assert caught.value.path == "large.bin"
    assert server.uploads == {}
    await store.put_parts("large.bin", parts_of(2, size // 2), size=size)
    assert server.objects == {"/bucket/run/large.bin": bytes(size)}


async def test_what_is_refused_without_it_too_is_not_sent_for_ever(canned_server: Any, store: ObstoreS3Store) -> None:
    canned_server.answer = lambda _: _backblaze()
    for sent in (2, 3):
        with pytest.raises(StoreError, match="InvalidArgument") as caught:
            await store.put("object.bin", b"content")
        assert not caught.value.retryable
        assert len(canned_server.requests) == sent


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("BadDigest", "The CRC64NVME you specified did not match the calculated checksum."),
        ("InvalidArgument", "The tag is no good."),
    ],
)
async def test_what_is_refused_for_something_else_stays_refused(
    canned_server: Any, store: ObstoreS3Store, code: str, message: str
) -> None:
    canned_server.answer = lambda _: _refusal(400, code, message)
    with pytest.raises(StoreError, match=code):
        await store.put("checksum-crc64nvme.bin", b"content")
    assert len(canned_server.requests) == 1


async def test_whoever_asks_for_the_checksum_is_told(canned_server: Any, options: Any) -> None:
    canned_server.answer = lambda _: _backblaze()
    config = {"request_checksum_calculation": "when_supported"}
    async with ObstoreS3Store("s3://bucket/run", storage_options={**options, "config_kwargs": config}) as store:
        with pytest.raises(StoreError, match=r"InvalidArgument.*'when_required'") as caught:
            await store.put("object.bin", b"content")
    assert not caught.value.retryable
    assert len(canned_server.requests) == 1


async def test_closed_meanwhile_nothing_is_sent_any_more(canned_server: Any, options: Any) -> None:
    asked, closed = asyncio.Event(), asyncio.Event()

    async def refuse() -> web.Response:
        asked.set()
        await closed.wait()
        return _backblaze()

    canned_server.answer = lambda _: refuse()
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        writing = asyncio.create_task(store.put("object.bin", b"content"))
        await asked.wait()
    closed.set()
    with pytest.raises(StoreError, match="was closed"):
        await writing
    assert len(canned_server.requests) == 1


# --- through the front door --------------------------------------------------------------------------


def _forwarding(upstream: str, client: aiohttp.ClientSession) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A server that knows no checksums, in front of one that does."""

    async def answer(request: web.Request) -> web.Response:
        if _carries_checksum(request):
            return _backblaze()
        url, body = URL(upstream + request.raw_path, encoded=True), io.BytesIO(await request.read())
        headers = {name: value for name, value in request.headers.items() if name != "Host"}
        async with client.request(request.method, url, data=body, headers=headers) as told:
            content = await told.read()
            dropped = {"Transfer-Encoding", "Connection", "Date", "Server"}
            kept = {name: value for name, value in told.headers.items() if name.title() not in dropped}
            return web.Response(status=told.status, body=content, headers=kept)

    return answer


@pytest.mark.server
async def test_a_saver_saves_and_restores_where_the_checksum_is_unknown(
    canned_server: Any, s3_root: Any, s3_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**s3_root.storage_options, "endpoint_url": canned_server.url}
    state = {"w": np.arange(5_000_000, dtype=np.float64), "step": 7}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        canned_server.answer = _forwarding(s3_server.endpoint_url, client)
        with caplog.at_level("INFO", "asyncsaver_backends"):
            async with Saver(s3_root.url, storage_options=options, shard_bytes=60 * 2**20, max_to_keep=1) as saver:
                await saver.save(state, step=1)
                await (await saver.save_in_background({**state, "step": 8}, step=2))
                await saver.sweep(grace=0)
        assert caplog.text.count(GIVEN_UP) == 1
        async with Saver(s3_root.url, storage_options=s3_root.storage_options, engine="fsspec") as other:
            assert [one.step for one in await other.checkpoints()] == [2]
            restored = await other.restore()
    assert restored["step"] == 8
    np.testing.assert_array_equal(restored["w"], state["w"])
    assert any("uploadId" in request for request in canned_server.requests)
