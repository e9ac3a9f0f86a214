"""What Google's XML API may answer, through the obstore engine, from a server that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

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
from asyncsaver_backends.obstore import ObstoreGcsStore

from .parts import parts_of
from .refused import Refusal, assert_named

TOKEN = "ya29.secret-token"


@pytest.fixture
async def canned_store(canned_server: Any) -> AsyncIterator[ObstoreGcsStore]:
    options = {"token": google.oauth2.credentials.Credentials(TOKEN), "endpoint_url": canned_server.url}
    async with ObstoreGcsStore("gs://bucket/run", storage_options=options) as store:
        yield store


# https://cloud.google.com/storage/docs/xml-api/reference-status
REFUSALS = [
    (401, "AuthenticationRequired", AccessDeniedError, False),
    (403, "AccessDenied", AccessDeniedError, False),
    (404, "NoSuchBucket", RootNotFoundError, False),
    (404, "NoSuchUpload", StoreError, True),
    (408, "UploadTimeout", StoreTimeoutError, True),
    (412, "PreconditionFailed", ObjectExistsError, False),
    (429, "SlowDown", StoreError, True),
    (500, "InternalError", StoreError, True),
    (501, "NotImplemented", StoreError, False),
    (503, "ServiceUnavailable", StoreError, True),
    (400, "InvalidArgument", StoreError, False),
]


def _error(status: int, code: str) -> web.Response:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{TOKEN}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case[1])
async def test_refusals_are_named_once_and_tell_no_secret(
    canned_server: Any, canned_store: ObstoreGcsStore, case: Refusal
) -> None:
    status, code, kind, retryable = case
    canned_server.answer = lambda _: _error(status, code)
    write = canned_store.put("object.bin", b"content", mode="create")
    error = await assert_named(canned_server, write, kind, retryable=retryable)
    shown = repr(canned_store), repr(canned_store._options), repr(canned_store._clients), str(error)
    assert TOKEN not in "".join(shown)


async def test_replacing_what_is_gone_fails_its_precondition(canned_server: Any, canned_store: ObstoreGcsStore) -> None:
    canned_server.answer = lambda _: _error(404, "NoSuchKey")
    with pytest.raises(PreconditionFailedError):
        await canned_store.replace_if("object.bin", b"content", "7")


async def test_objects_that_could_not_be_deleted_are_reported(
    canned_server: Any, canned_store: ObstoreGcsStore
) -> None:
    refused = {"kept.bin": 403, "slow.bin": 503, "gone.bin": 404}
    canned_server.answer = lambda request: web.Response(status=refused.get(request.path.rpartition("/")[2], 204))
    failed = await canned_store.delete(["kept.bin", "slow.bin", "gone.bin", "deleted.bin"])
    assert {path: (type(error), error.retryable) for path, error in failed.items()} == {
        "kept.bin": (AccessDeniedError, False),
        "slow.bin": (StoreError, True),
    }


def _uploads(*ids: str) -> web.Response:
    told = "".join(
        f"<Upload><Key>run/large.bin</Key><UploadId>{one}</UploadId><Initiated>2024-01-01T00:00:00Z</Initiated></Upload>"
        for one in ids
    )
    text = f"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{told}</ListMultipartUploadsResult>"
    return web.Response(text=text, content_type="application/xml")


async def test_an_upload_cancelled_while_the_store_creates_it_is_aborted(
    canned_server: Any, canned_store: ObstoreGcsStore
) -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()
    created: list[str] = []

    async def create() -> web.Response:
        asked.set()
        await cancelled.wait()
        created.append("the-id")
        result = "<InitiateMultipartUploadResult><UploadId>the-id</UploadId></InitiateMultipartUploadResult>"
        return web.Response(text=result, content_type="application/xml")

    def answer(request: web.Request) -> Any:
        if request.method == "POST":
            return create()
        if request.method == "DELETE":
            created.remove(request.query["uploadId"])
            return web.Response(status=204)
        return _uploads(*created)

    canned_server.answer = answer
    part = canned_store.capabilities.part_bytes
    task = asyncio.create_task(canned_store.put_parts("large.bin", parts_of(2, part), size=2 * part))
    await asked.wait()
    task.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert created == []
    assert not [request for request in canned_server.requests if request.startswith("PUT")]


async def test_an_upload_that_is_over_when_it_is_purged_is_fine(
    canned_server: Any, canned_store: ObstoreGcsStore
) -> None:
    canned_server.answer = lambda request: (
        _error(404, "NoSuchUpload") if request.method == "DELETE" else _uploads("the-id")
    )
    assert await canned_store.purge(timedelta(0)) == 1
    assert [request.split()[0] for request in canned_server.requests] == ["GET", "DELETE"]


@pytest.mark.parametrize("status", [200, 403, 404, 501, 503])
async def test_uploads_that_cannot_be_listed(
    canned_server: Any, canned_store: ObstoreGcsStore, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    canned_server.answer = lambda _: web.Response(status=status, text="{}")
    if status in {404, 503}:
        with pytest.raises(RootNotFoundError if status == 404 else StoreError) as caught:
            await canned_store.purge(timedelta(0))
        assert caught.value.retryable is (status == 503)
    else:
        assert await canned_store.purge(timedelta(0)) == 0
        assert "they stay" in caplog.text
    await canned_store._discard("large.bin", "run/large.bin")
    assert "could not abort" in caplog.text
