from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
import s3fs
from aiohttp import web

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    RootNotFoundError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver.store import Part, Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.s3 import S3Store, open_store

KEY, SECRET, TOKEN = "AKIAWRONGKEYID", "wrong-secret-value", "wrong-session-token"

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


async def _parts(count: int, size: int, then: asyncio.Event | None = None) -> AsyncIterator[Part]:
    for _ in range(count):
        yield nullcontext(memoryview(bytes(size)))
    if then is not None:
        then.set()
        await asyncio.Event().wait()


async def _unfinished_uploads(store: S3Store) -> list[Any]:
    found: list[Any] = (await store._call("list_multipart_uploads")).get("Uploads", [])
    return found


async def test_a_cancelled_upload_is_aborted(s3_store: S3Store) -> None:
    part = s3_store.capabilities.part_bytes
    waiting = asyncio.Event()
    task = asyncio.create_task(s3_store.put_parts("large.bin", _parts(1, part, waiting), size=3 * part))
    await waiting.wait()
    assert len(await _unfinished_uploads(s3_store)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _unfinished_uploads(s3_store) == []


async def test_a_failed_upload_is_aborted(s3_store: S3Store) -> None:
    part = s3_store.capabilities.part_bytes
    with pytest.raises(StoreError):
        await s3_store.put_parts("large.bin", _parts(1, part), size=2 * part)
    assert await _unfinished_uploads(s3_store) == []


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


async def test_a_missing_bucket_is_named(s3_server: Any) -> None:
    async with S3Store("s3://no-such-bucket/run", storage_options=s3_server.storage_options) as store:
        for call in (store.list(), store.put("object.bin", b"x"), store.get("object.bin"), store.delete(["a.bin"])):
            with pytest.raises(RootNotFoundError, match="no-such-bucket") as caught:
                await call
            assert not caught.value.retryable


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
    options = {
        "key": KEY,
        "secret": SECRET,
        "token": TOKEN,
        "endpoint_url": canned_server.url,
        "client_kwargs": {"region_name": "us-east-1"},
    }
    async with S3Store("s3://bucket/run", storage_options=options) as store:
        yield store


def _error(status: int, code: str, extra: str = "") -> web.Response:
    said = escape(f"{KEY} {SECRET} {TOKEN}")
    body = f"<Error><Code>{code}</Code><Message>{said}</Message><AWSAccessKeyId>{KEY}</AWSAccessKeyId>{extra}</Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


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
    (501, "NotImplemented", StoreError, False),
    (400, "InvalidArgument", StoreError, False),
    (404, "NoSuchBucket", RootNotFoundError, False),
    (412, "PreconditionFailed", ObjectExistsError, False),
]


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
    task = asyncio.create_task(canned_store.put_parts("large.bin", _parts(2, part), size=2 * part))
    await asked.wait()
    task.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert canned_server.requests[-1].startswith("DELETE /bucket/run/large.bin?uploadId=the-id")


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case[1])
async def test_refusals_are_named_once_and_tell_no_secret(
    canned_server: Any, canned_store: S3Store, case: tuple[int, str, type[StoreError], bool]
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


async def test_a_412_about_another_condition_is_unclear(canned_server: Any, canned_store: S3Store) -> None:
    canned_server.answer = lambda _: _error(412, "PreconditionFailed", "<Condition>Bucket POST</Condition>")
    with pytest.raises(StoreError) as caught:
        await canned_store.put("object.bin", b"content", mode="create")
    assert not isinstance(caught.value, ObjectExistsError)


async def test_replacing_what_is_gone_fails_its_precondition(canned_server: Any, canned_store: S3Store) -> None:
    canned_server.answer = lambda _: _error(404, "NoSuchKey")
    with pytest.raises(PreconditionFailedError):
        await canned_store.replace_if("object.bin", b"content", '"etag"')


async def test_keys_that_could_not_be_deleted_are_reported(canned_server: Any, canned_store: S3Store) -> None:
    canned_server.answer = lambda _: web.Response(
        text="<DeleteResult>"
        "<Error><Key>run/kept.bin</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        "<Error><Key>run/slow.bin</Key><Code>SlowDown</Code><Message>no</Message></Error>"
        "<Error><Key>run/gone.bin</Key><Code>NoSuchKey</Code><Message>no</Message></Error>"
        "</DeleteResult>",
        content_type="application/xml",
    )
    failed = await canned_store.delete(["kept.bin", "slow.bin", "gone.bin", "deleted.bin"])
    assert {path: (type(error), error.retryable, error.path) for path, error in failed.items()} == {
        "kept.bin": (AccessDeniedError, False, "kept.bin"),
        "slow.bin": (StoreError, True, "slow.bin"),
    }
    assert len(canned_server.requests) == 1


async def test_without_batch_deletion_keys_are_deleted_singly(canned_server: Any, canned_store: S3Store) -> None:
    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return _error(501, "NotImplemented")
        return _error(403, "AccessDenied") if request.path.endswith("kept.bin") else web.Response(status=204)

    canned_server.answer = answer
    failed = await canned_store.delete(["kept.bin", "deleted.bin"])
    assert list(failed) == ["kept.bin"]
    assert isinstance(failed["kept.bin"], AccessDeniedError)
    assert sorted(canned_server.requests)[:2] == ["DELETE /bucket/run/deleted.bin", "DELETE /bucket/run/kept.bin"]


async def test_an_answer_that_ends_early_may_be_retried(canned_server: Any, canned_store: S3Store) -> None:
    def answer(_: web.Request) -> web.Response:
        response = web.Response(status=206, body=b"0123", headers={"Content-Range": "bytes 2-11/20"})
        response.headers["Content-Length"] = "10"
        response.force_close()
        return response

    canned_server.answer = answer
    with pytest.raises(StoreError) as caught:
        await canned_store.get_into("object.bin", [(2, 12)], [memoryview(bytearray(10))])
    assert caught.value.retryable


async def test_a_server_that_is_not_there_may_be_retried(no_leaks: None, unused_port: int) -> None:
    options = {"key": KEY, "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{unused_port}"}
    async with S3Store("s3://bucket/run", storage_options=options) as store:
        with pytest.raises(StoreError) as caught:
            await store.get("object.bin")
    assert caught.value.retryable
    assert not isinstance(caught.value, ObjectNotFoundError)


async def test_the_body_is_sent_without_being_asked_for(canned_server: Any, canned_store: S3Store) -> None:
    """Else an answer that comes first would never be seen: aiohttp goes on waiting to be asked for the body."""
    asked: list[str | None] = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Expect"))
        return web.Response(headers={"ETag": '"etag"'})

    canned_server.answer = answer
    for data in (b"", b"small", bytes(2**20)):
        await canned_store.put("object.bin", data)
    assert asked == [None, None, None]


# --- a server that checks credentials ----------------------------------------------------------------


@pytest.fixture(scope="module")
def strict_s3_url(start_moto: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log: Path = tmp_path_factory.mktemp("strict") / "moto.log"
    with start_moto(log, environment={"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as url:
        yield url


async def test_wrong_credentials_are_refused_and_never_repeated(strict_s3_url: str) -> None:
    options = {
        "key": KEY,
        "secret": SECRET,
        "endpoint_url": strict_s3_url,
        "client_kwargs": {"region_name": "us-east-1"},
    }
    async with S3Store("s3://bucket/run", storage_options=options) as store:
        with pytest.raises(AccessDeniedError) as caught:
            await store.put("object.bin", b"content")
    text = "".join(traceback.format_exception(caught.value, limit=0))
    assert "bucket/run/object.bin" in text
    assert KEY not in text
    assert SECRET not in text
