"""What both engines of S3 make of the same answers, most of which the storage servers cannot be made to give."""

from __future__ import annotations

import itertools
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
    PreconditionFailedError,
    RootNotFoundError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver.store import Store
from asyncsaver_backends.obstore import ObstoreS3Store
from asyncsaver_backends.s3 import S3Store

from .refused import Refusal, assert_named

ENGINES = {"s3fs": S3Store, "obstore": ObstoreS3Store}
AWS_KEYS = {"key": "AKIAWRONGKEYID", "secret": "wrong-secret-value", "token": "wrong-session-token"}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    return ENGINES[request.param]


@pytest.fixture
async def canned_store(engine: Any, canned_server: Any) -> AsyncIterator[Store]:
    options = {**AWS_KEYS, "endpoint_url": canned_server.url, "client_kwargs": {"region_name": "us-east-1"}}
    async with engine("s3://bucket/run", storage_options=options) as store:
        yield store


def _error(status: int, code: str, extra: str = "") -> web.Response:
    said = escape(" ".join(AWS_KEYS.values()))
    key = AWS_KEYS["key"]
    body = f"<Error><Code>{code}</Code><Message>{said}</Message><AWSAccessKeyId>{key}</AWSAccessKeyId>{extra}</Error>"
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
    (409, "OperationAborted", StoreError, True),
    (501, "NotImplemented", StoreError, False),
    (400, "InvalidArgument", StoreError, False),
    (404, "NoSuchBucket", RootNotFoundError, False),
    (412, "PreconditionFailed", ObjectExistsError, False),
]
OF_ONE_ENGINE = [
    ("s3fs", (404, "NoSuchUpload", StoreError, False)),
    ("obstore", (404, "NoSuchUpload", StoreError, True)),  # to it, that of a completion whose answer was lost
    ("obstore", (301, "PermanentRedirect", StoreError, False)),  # botocore follows it
]


@pytest.mark.parametrize(
    ("engine", "case"),
    [*itertools.product(ENGINES, REFUSALS), *OF_ONE_ENGINE],
    indirect=["engine"],
    ids=lambda value: value if isinstance(value, str) else value[1],
)
async def test_refusals_are_named_once_and_tell_no_secret(
    canned_server: Any, canned_store: Store, case: Refusal
) -> None:
    status, code, kind, retryable = case
    canned_server.answer = lambda _: _error(status, code)
    write = canned_store.put("object.bin", b"content", mode="create")
    error = await assert_named(canned_server, write, kind, retryable=retryable)
    for secret in AWS_KEYS.values():
        assert secret not in str(error)


async def test_a_412_about_another_condition_is_unclear(canned_server: Any, canned_store: Store) -> None:
    canned_server.answer = lambda _: _error(412, "PreconditionFailed", "<Condition>Bucket POST</Condition>")
    with pytest.raises(StoreError) as caught:
        await canned_store.put("object.bin", b"content", mode="create")
    assert not isinstance(caught.value, ObjectExistsError)


async def test_replacing_what_is_gone_fails_its_precondition(canned_server: Any, canned_store: Store) -> None:
    canned_server.answer = lambda _: _error(404, "NoSuchKey")
    with pytest.raises(PreconditionFailedError):
        await canned_store.replace_if("object.bin", b"content", '"etag"')


# obstore tells of one failure at most, so each key is then deleted by itself.
@pytest.mark.parametrize(("engine", "requests"), [("s3fs", 1), ("obstore", 1 + 4)], indirect=["engine"])
async def test_keys_that_could_not_be_deleted_are_reported(
    canned_server: Any, canned_store: Store, requests: int
) -> None:
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
    assert len(canned_server.requests) == requests


async def test_a_batch_that_may_pass_is_for_the_caller_to_retry(canned_server: Any, canned_store: Store) -> None:
    canned_server.answer = lambda _: _error(503, "SlowDown")
    with pytest.raises(StoreError) as caught:
        await canned_store.delete(["a.bin", "b.bin"])
    assert caught.value.retryable
    assert len(canned_server.requests) == 1


async def test_without_batch_deletion_keys_are_deleted_singly(canned_server: Any, canned_store: Store) -> None:
    def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return _error(501, "NotImplemented")
        return _error(403, "AccessDenied") if request.path.endswith("kept.bin") else web.Response(status=204)

    canned_server.answer = answer
    failed = await canned_store.delete(["kept.bin", "deleted.bin"])
    assert list(failed) == ["kept.bin"]
    assert isinstance(failed["kept.bin"], AccessDeniedError)
    assert sorted(canned_server.requests)[:2] == ["DELETE /bucket/run/deleted.bin", "DELETE /bucket/run/kept.bin"]


async def test_an_answer_that_ends_early_may_be_retried(canned_server: Any, canned_store: Store) -> None:
    def answer(_: web.Request) -> web.Response:
        headers = {
            "Content-Range": "bytes 2-11/20",
            "ETag": '"etag"',
            "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT",
            "Content-Length": "10",
        }
        response = web.Response(status=206, body=b"0123")
        response.headers.update(headers)
        response.force_close()
        return response

    canned_server.answer = answer
    with pytest.raises(StoreError, match=r"127\.0\.0\.1") as caught:
        await canned_store.get_into("object.bin", [(2, 12)], [memoryview(bytearray(10))])
    assert caught.value.retryable


async def test_a_server_that_is_not_there_may_be_retried(
    obstore_runtime: None, no_leaks: None, engine: Any, unused_port: int
) -> None:
    options = {**AWS_KEYS, "endpoint_url": f"http://127.0.0.1:{unused_port}"}
    async with engine("s3://bucket/run", storage_options=options) as store:
        with pytest.raises(StoreError, match=f"127.0.0.1:{unused_port}") as caught:
            await store.get("object.bin")
    assert caught.value.retryable
    assert not isinstance(caught.value, ObjectNotFoundError)


# --- real servers ------------------------------------------------------------------------------------


@pytest.mark.server
async def test_a_missing_bucket_is_named(s3_server: Any, engine: Any) -> None:
    async with engine("s3://no-such-bucket/run", storage_options=s3_server.storage_options) as store:
        for call in (store.list(), store.put("object.bin", b"x"), store.get("object.bin"), store.delete(["a.bin"])):
            with pytest.raises(RootNotFoundError, match="no-such-bucket") as caught:
                await call
            assert not caught.value.retryable


@pytest.fixture(scope="module")
def strict_s3_url(start_moto: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that checks credentials."""
    log: Path = tmp_path_factory.mktemp("strict") / "moto.log"
    with start_moto(log, environment={"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as url:
        yield url


@pytest.mark.server
async def test_wrong_credentials_are_refused_and_never_repeated(strict_s3_url: str, engine: Any) -> None:
    options = {**AWS_KEYS, "endpoint_url": strict_s3_url, "client_kwargs": {"region_name": "us-east-1"}}
    async with engine("s3://bucket/run", storage_options=options) as store:
        with pytest.raises(AccessDeniedError) as caught:
            await store.put("object.bin", b"content")
        shown = repr(store)
    text = "".join(traceback.format_exception(caught.value, limit=0)) + shown
    assert "bucket/run/object.bin" in text
    for secret in AWS_KEYS.values():
        assert secret not in text
