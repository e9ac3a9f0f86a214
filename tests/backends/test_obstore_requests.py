"""What the obstore engine sends, and what it makes of answers that the storage servers cannot be made to give."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver_backends.obstore import ObstoreAzureStore, ObstoreS3Store

KEYS = {"key": "AKIAWRONGKEYID", "secret": "wrong-secret-value", "token": "wrong-session-token"}


@pytest.fixture
def options(canned_server: Any) -> dict[str, Any]:
    return {**KEYS, "endpoint_url": canned_server.url, "client_kwargs": {"region_name": "us-east-1"}}


@pytest.fixture
async def canned_store(options: dict[str, Any]) -> AsyncIterator[ObstoreS3Store]:
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        yield store


# --- what is sent ------------------------------------------------------------------------------------


async def test_a_write_is_one_request_with_a_checksum(canned_server: Any, canned_store: Any, headers: Any) -> None:
    for data in (b"", b"small", bytes(2**20)):
        await canned_store.put("object.bin", data)
    assert canned_server.requests == ["PUT /bucket/run/object.bin"] * 3
    assert [len(body) for body in canned_server.bodies] == [0, 5, 2**20]
    for sent in headers:
        assert "Expect" not in sent
        assert sent["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        assert sent["x-amz-checksum-crc64nvme"]


async def test_conditions_are_sent(canned_store: Any, headers: Any) -> None:
    await canned_store.put("object.bin", b"content", mode="create")
    await canned_store.replace_if("object.bin", b"content", '"old"')
    assert (headers[0]["If-None-Match"], headers[1]["If-Match"]) == ("*", '"old"')


@pytest.mark.parametrize("signed", [True, None])
async def test_payloads_are_signed_where_there_is_no_checksum(options: Any, headers: Any, signed: bool | None) -> None:
    config = {"request_checksum_calculation": "when_required", "s3": {"payload_signing_enabled": signed}}
    async with ObstoreS3Store("s3://bucket/run", storage_options={**options, "config_kwargs": config}) as store:
        await store.put("object.bin", b"content")
    assert len(headers[0]["x-amz-content-sha256"]) == 64
    assert "x-amz-checksum-crc64nvme" not in headers[0]


async def test_what_requests_are_to_carry_is_sent(options: Any, headers: Any) -> None:
    more = {
        "requester_pays": True,
        "s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "the-id"},
    }
    async with ObstoreS3Store("s3://bucket/run", storage_options={**options, **more}) as store:
        await store.put("object.bin", b"content")
    assert headers[0]["x-amz-server-side-encryption"] == "aws:kms"
    assert headers[0]["x-amz-server-side-encryption-aws-kms-key-id"] == "the-id"
    assert headers[0]["x-amz-request-payer"] == "requester"


async def test_anonymous_requests_are_not_signed(canned_server: Any, headers: Any) -> None:
    options = {"anon": True, "endpoint_url": canned_server.url}
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        await store.put("object.bin", b"content")
    assert "Authorization" not in headers[0]


async def test_only_uploads_go_without_a_read_timeout(options: Any) -> None:
    """obstore's timeout starts with the request: it would cut an upload that is slow and moves."""
    config = {"read_timeout": 7, "connect_timeout": 3}
    async with ObstoreS3Store("s3://bucket/run", storage_options={**options, "config_kwargs": config}) as store:
        await store._ready()
        clients = store._open_clients
        assert "read_timeout" in (clients.reader.client_options or {})
        assert "read_timeout" not in (clients.writer.client_options or {})
        assert clients.patience(2**20) == pytest.approx(7 * 4.25)


# --- what is answered --------------------------------------------------------------------------------


def _range(body: bytes, said: str, length: int, status: int = 206) -> web.Response:
    headers = {"Content-Range": said, "ETag": '"etag"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    response = web.Response(status=status, body=body, headers=headers)
    response.headers["Content-Length"] = str(length)
    response.force_close()
    return response


@pytest.mark.parametrize("said", ["bytes 2-5/6", "bytes 0-9/20"])
async def test_another_range_than_asked_for_fills_no_buffer(
    canned_server: Any, canned_store: ObstoreS3Store, said: str
) -> None:
    body = b"0123" if said.endswith("6") else b"0123456789"
    canned_server.answer = lambda _: _range(body, said, len(body))
    buffer = bytearray(10)
    with pytest.raises(StoreError) as caught:
        await canned_store.get_into("object.bin", [(2, 12)], [memoryview(buffer)])
    assert buffer == bytes(10)
    assert isinstance(caught.value, ObjectTruncatedError) is (len(body) < 10)


async def test_a_store_without_ranges_is_named(canned_server: Any, canned_store: ObstoreS3Store) -> None:
    canned_server.answer = lambda _: _range(b"0123456789", "", 10, status=200)
    with pytest.raises(StoreError, match="ranges"):
        await canned_store.get_into("object.bin", [(2, 4)], [memoryview(bytearray(2))])


@pytest.mark.parametrize("call", ["get", "put", "put_parts"])
async def test_a_server_that_never_answers_is_given_up(canned_server: Any, options: Any, call: str) -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        await over.wait()
        return web.Response()

    async def parts() -> AsyncIterator[Any]:
        await asked.wait()  # the timeout ends the wait for parts that never come, too
        await asyncio.Event().wait()
        yield

    canned_server.answer = answer
    config = {"read_timeout": 0.05}
    async with ObstoreS3Store("s3://bucket/run", storage_options={**options, "config_kwargs": config}) as store:
        calls = {
            "get": lambda: store.get("object.bin"),
            "put": lambda: store.put("object.bin", b"content"),
            "put_parts": lambda: store.put_parts("object.bin", parts(), size=2**30),
        }
        with pytest.raises(StoreTimeoutError, match=r"object\.bin.*127\.0\.0\.1") as caught:
            await calls[call]()
        over.set()
    assert caught.value.retryable


# --- closing -----------------------------------------------------------------------------------------


async def test_closing_closes_the_connections() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        options = {**KEYS, "endpoint_url": f"http://{host}:{port}"}
        async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
            with pytest.raises(ObjectNotFoundError):
                await store.head("object.bin")
            assert not gone.is_set()
        await gone.wait()


# --- secrets -----------------------------------------------------------------------------------------


async def test_keys_are_not_shown(canned_store: ObstoreS3Store) -> None:
    await canned_store._ready()
    for shown in map(repr, (canned_store, canned_store._options, canned_store._open_clients)):
        for secret in KEYS.values():
            assert secret not in shown


@pytest.mark.server
async def test_azure_repeats_no_signature(azure_server: Any) -> None:
    endpoint = f"{azure_server.endpoint_url}/devstoreaccount1"
    connection = f"BlobEndpoint={endpoint};AccountName=devstoreaccount1;SharedAccessSignature=sv=2024-08-04&sig=hush%3D"
    async with ObstoreAzureStore("az://container/run", storage_options={"connection_string": connection}) as store:
        with pytest.raises(AccessDeniedError) as caught:
            await store.put("object.bin", b"content")
        shown = repr(store), repr(store._options), repr(store._clients)
    text = "".join(traceback.format_exception(caught.value, limit=0)) + "".join(shown)
    assert "container/run/object.bin" in text
    assert "hush" not in text


# --- servers that know less --------------------------------------------------------------------------


async def test_ranges_that_are_called_whole_are_read_through_s3fs(
    canned_server: Any, canned_store: ObstoreS3Store, caplog: pytest.LogCaptureFixture
) -> None:
    """As rclone answers them."""
    content = bytes(range(200))

    def answer(request: web.Request) -> web.Response:
        start, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        part = content[int(start) : int(last) + 1]
        said = {
            "Content-Range": f"bytes {start}-{last}/200",
            "ETag": '"etag"',
            "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT",
        }
        return web.Response(status=200, body=part, headers=said)

    canned_server.answer = answer
    buffers = [bytearray(10) for _ in range(4)]
    ranges = [(start, start + 10) for start in (0, 30, 60, 190)]
    with caplog.at_level("INFO", "asyncsaver_backends"):
        await canned_store.get_into("object.bin", ranges, [memoryview(buffer) for buffer in buffers])
        assert buffers == [content[start:stop] for start, stop in ranges]
        before = len(canned_server.requests)
        await canned_store.get_into("object.bin", [(7, 17)], [memoryview(buffers[0])])
    assert buffers[0] == content[7:17]
    assert len(canned_server.requests) == before + 1  # obstore is not asked again
    assert caplog.text.count("read through s3fs") == 1
