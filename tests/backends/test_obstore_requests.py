"""What the obstore engine sends, and what it makes of answers that the storage servers cannot be made to give."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from aiohttp import web

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectExistsError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    PreconditionFailedError,
    RootNotFoundError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver_backends.obstore import ObstoreAzureStore, ObstoreS3Store

KEY, SECRET, TOKEN = "AKIAWRONGKEYID", "wrong-secret-value", "wrong-session-token"
KEYS = {"key": KEY, "secret": SECRET, "token": TOKEN}


@pytest.fixture
def options(canned_server: Any) -> dict[str, Any]:
    return {**KEYS, "endpoint_url": canned_server.url, "client_kwargs": {"region_name": "us-east-1"}}


@pytest.fixture
async def canned_store(options: dict[str, Any]) -> AsyncIterator[ObstoreS3Store]:
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        yield store


@pytest.fixture
def headers(canned_server: Any) -> list[Any]:
    """Those of each request; all are answered with 200."""
    seen: list[Any] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.Response(headers={"ETag": '"etag"'})

    canned_server.answer = answer
    return seen


def _error(status: int, code: str, extra: str = "") -> web.Response:
    said = escape(f"{KEY} {SECRET} {TOKEN}")
    body = f"<Error><Code>{code}</Code><Message>{said}</Message><AWSAccessKeyId>{KEY}</AWSAccessKeyId>{extra}</Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


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

REFUSALS = [
    (403, "AccessDenied", AccessDeniedError, False),
    (403, "InvalidAccessKeyId", AccessDeniedError, False),
    (403, "SignatureDoesNotMatch", AccessDeniedError, False),
    (400, "ExpiredToken", AccessDeniedError, False),
    (503, "SlowDown", StoreError, True),
    (500, "InternalError", StoreError, True),
    (429, "TooManyRequests", StoreError, True),
    (400, "RequestTimeout", StoreTimeoutError, True),
    (409, "ConditionalRequestConflict", StoreError, True),
    (409, "OperationAborted", StoreError, True),
    (404, "NoSuchUpload", StoreError, True),
    (501, "NotImplemented", StoreError, False),
    (400, "InvalidArgument", StoreError, False),
    (301, "PermanentRedirect", StoreError, False),
    (404, "NoSuchBucket", RootNotFoundError, False),
    (412, "PreconditionFailed", ObjectExistsError, False),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case[1])
async def test_refusals_are_named_once_and_tell_no_secret(
    canned_server: Any, canned_store: ObstoreS3Store, case: tuple[int, str, type[StoreError], bool]
) -> None:
    status, code, kind, retryable = case
    canned_server.answer = lambda _: _error(status, code)
    with pytest.raises(StoreError) as caught:
        await canned_store.put("object.bin", b"content", mode="create")
    error = caught.value
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.path == "object.bin"
    assert len(canned_server.requests) == 1
    for secret in (KEY, SECRET, TOKEN):
        assert secret not in str(error)


async def test_a_412_about_another_condition_is_unclear(canned_server: Any, canned_store: ObstoreS3Store) -> None:
    canned_server.answer = lambda _: _error(412, "PreconditionFailed", "<Condition>Bucket POST</Condition>")
    with pytest.raises(StoreError) as caught:
        await canned_store.put("object.bin", b"content", mode="create")
    assert not isinstance(caught.value, ObjectExistsError)


async def test_replacing_what_is_gone_fails_its_precondition(canned_server: Any, canned_store: ObstoreS3Store) -> None:
    canned_server.answer = lambda _: _error(404, "NoSuchKey")
    with pytest.raises(PreconditionFailedError):
        await canned_store.replace_if("object.bin", b"content", '"etag"')


async def test_keys_that_could_not_be_deleted_are_reported(canned_server: Any, canned_store: ObstoreS3Store) -> None:
    refused = {"kept.bin": (403, "AccessDenied"), "slow.bin": (503, "SlowDown"), "gone.bin": (404, "NoSuchKey")}

    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            errors = "".join(
                f"<Error><Key>run/{name}</Key><Code>{code}</Code><Message>no</Message></Error>"
                for name, (_, code) in refused.items()
            )
            return web.Response(text=f"<DeleteResult>{errors}</DeleteResult>", content_type="application/xml")
        name = request.path.rpartition("/")[2]
        return _error(*refused[name]) if name in refused else web.Response(status=204)

    canned_server.answer = answer
    failed = await canned_store.delete(["kept.bin", "slow.bin", "gone.bin", "deleted.bin"])
    assert {path: (type(error), error.retryable, error.path) for path, error in failed.items()} == {
        "kept.bin": (AccessDeniedError, False, "kept.bin"),
        "slow.bin": (StoreError, True, "slow.bin"),
    }


async def test_a_batch_that_may_pass_is_for_the_caller_to_retry(
    canned_server: Any, canned_store: ObstoreS3Store
) -> None:
    canned_server.answer = lambda _: _error(503, "SlowDown")
    with pytest.raises(StoreError) as caught:
        await canned_store.delete(["a.bin", "b.bin"])
    assert caught.value.retryable
    assert len(canned_server.requests) == 1


async def test_without_batch_deletion_keys_are_deleted_singly(canned_server: Any, canned_store: ObstoreS3Store) -> None:
    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return _error(501, "NotImplemented")
        return _error(403, "AccessDenied") if request.path.endswith("kept.bin") else web.Response(status=204)

    canned_server.answer = answer
    failed = await canned_store.delete(["kept.bin", "deleted.bin"])
    assert list(failed) == ["kept.bin"]
    assert isinstance(failed["kept.bin"], AccessDeniedError)
    assert sorted(canned_server.requests)[:2] == ["DELETE /bucket/run/deleted.bin", "DELETE /bucket/run/kept.bin"]


def _range(body: bytes, said: str, length: int, status: int = 206) -> web.Response:
    headers = {"Content-Range": said, "ETag": '"etag"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    response = web.Response(status=status, body=body, headers=headers)
    response.headers["Content-Length"] = str(length)
    response.force_close()
    return response


async def test_an_answer_that_ends_early_may_be_retried(canned_server: Any, canned_store: ObstoreS3Store) -> None:
    canned_server.answer = lambda _: _range(b"0123", "bytes 2-11/20", 10)
    with pytest.raises(StoreError, match=r"127\.0\.0\.1") as caught:
        await canned_store.get_into("object.bin", [(2, 12)], [memoryview(bytearray(10))])
    assert caught.value.retryable


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


async def test_a_server_that_is_not_there_may_be_retried(unused_port: int) -> None:
    options = {**KEYS, "endpoint_url": f"http://127.0.0.1:{unused_port}"}
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        with pytest.raises(StoreError, match=f"127.0.0.1:{unused_port}") as caught:
            await store.get("object.bin")
    assert caught.value.retryable
    assert not isinstance(caught.value, ObjectNotFoundError)


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


@pytest.fixture(scope="module")
def strict_s3_url(start_moto: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log: Path = tmp_path_factory.mktemp("strict") / "moto.log"
    with start_moto(log, environment={"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as url:
        yield url


@pytest.mark.server
async def test_wrong_credentials_are_refused_and_never_repeated(strict_s3_url: str) -> None:
    options = {**KEYS, "endpoint_url": strict_s3_url}
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        with pytest.raises(AccessDeniedError) as caught:
            await store.put("object.bin", b"content")
        shown = repr(store), repr(store._options), repr(store._clients)
    text = "".join(traceback.format_exception(caught.value, limit=0)) + "".join(shown)
    assert "bucket/run/object.bin" in text
    for secret in (KEY, SECRET, TOKEN):
        assert secret not in text


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
