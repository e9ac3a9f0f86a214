from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import adlfs
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
from asyncsaver_backends.azure import AzureStore, open_store

from .refused import Refusal, assert_named

KEY = base64.b64encode(b"not the key of that account").decode()

pytestmark = pytest.mark.server


class TestAzureStore(StoreContract):
    @pytest.fixture
    async def store(self, azure_root: Any, no_leaks: None) -> AsyncIterator[Store]:
        async with open_store(azure_root.url, storage_options=azure_root.storage_options, filesystem=None) as store:
            yield store

    @pytest.fixture
    async def peer(self, store: Store, azure_root: Any) -> AsyncIterator[Store]:
        async with open_store(azure_root.url, storage_options=azure_root.storage_options, filesystem=None) as peer:
            yield peer


async def test_large_conditional_writes_are_whole_and_conditional(azure_root: Any, no_leaks: None) -> None:
    content = bytes(range(256)) * 8192
    async with AzureStore(azure_root.url, storage_options=azure_root.storage_options) as store:
        created = await store.put("object.bin", content, mode="create")
        assert (await store.get("object.bin")).data == content
        with pytest.raises(ObjectExistsError):
            await store.put("object.bin", content, mode="create")
        assert created.etag
        replaced = await store.replace_if("object.bin", content, created.etag)
        assert replaced.etag != created.etag
        with pytest.raises(PreconditionFailedError):
            await store.replace_if("object.bin", content, created.etag)


async def test_listed_etags_are_those_of_head(azure_root: Any) -> None:
    async with AzureStore(azure_root.url, storage_options=azure_root.storage_options) as store:
        written = await store.put("object.bin", b"content")
        (listed,) = (await store.list()).objects
        assert listed.etag == written.etag == (await store.head("object.bin")).etag


async def test_a_missing_container_is_named(azure_server: Any) -> None:
    async with AzureStore("az://no-such-container/run", storage_options=azure_server.storage_options) as store:
        for call in (store.list(), store.put("object.bin", b"x"), store.get("object.bin")):
            with pytest.raises(RootNotFoundError, match="no-such-container") as caught:
                await call
            assert not caught.value.retryable


async def test_wrong_credentials_are_refused_and_never_repeated(azure_server: Any) -> None:
    url = azure_server.endpoint_url
    connection = f"AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint={url}/devstoreaccount1;"
    async with AzureStore("az://container/run", storage_options={"connection_string": connection}) as store:
        with pytest.raises(AccessDeniedError, match=r"container/run/object\.bin") as caught:
            await store.put("object.bin", b"content")
    assert KEY not in str(caught.value)
    assert "signature" not in str(caught.value).lower()


async def test_unusable_connection_strings_are_refused_without_repeating_them() -> None:
    async with AzureStore("az://container/run", storage_options={"connection_string": "AccountKey=hush"}) as store:
        with pytest.raises(AccessDeniedError) as caught:
            await store.list()
    assert "hush" not in str(caught.value)


async def test_ready_filesystems(azure_root: Any, no_leaks: None) -> None:
    blocking = adlfs.AzureBlobFileSystem(skip_instance_cache=True, **azure_root.storage_options)
    async with open_store(azure_root.url, storage_options={}, filesystem=blocking) as store:
        await store.put("object.bin", b"content")
        assert (await store.get("object.bin")).data == b"content"


@pytest.mark.parametrize(
    ("url", "account_url"),
    [
        ("abfs://container@account.dfs.core.windows.net/run", "https://account.blob.core.windows.net"),
        ("abfss://container@account.blob.core.windows.net/run", "https://account.blob.core.windows.net"),
        ("abfs://container@account.dfs.core.chinacloudapi.cn/run", "https://account.blob.core.chinacloudapi.cn"),
    ],
)
async def test_the_url_may_name_the_account(url: str, account_url: str) -> None:
    async with AzureStore(url, storage_options={"account_key": KEY}) as store:
        await store._ready()
        assert store._container.url == f"{account_url}/container"


# --- what Azurite cannot be made to answer -----------------------------------------------------------


@pytest.fixture
async def canned_store(canned_server: Any) -> AsyncIterator[AzureStore]:
    connection = f"AccountName=account;AccountKey={KEY};BlobEndpoint={canned_server.url}/account;"
    async with AzureStore("az://container/run", storage_options={"connection_string": connection}) as store:
        yield store


@pytest.mark.parametrize(
    "case",
    [
        (403, "AuthenticationFailed", AccessDeniedError, False),
        (403, "AuthorizationFailure", AccessDeniedError, False),
        (404, "ContainerNotFound", RootNotFoundError, False),
        (409, "ContainerBeingDeleted", RootNotFoundError, False),
        (409, "LeaseIdMissing", StoreError, False),
        (409, "BlobAlreadyExists", PreconditionFailedError, False),
        (412, "ConditionNotMet", PreconditionFailedError, False),
        (500, "InternalError", StoreError, True),
        (500, "OperationTimedOut", StoreTimeoutError, True),
        (503, "ServerBusy", StoreError, True),
        (429, "TooManyRequests", StoreError, True),
    ],
    ids=lambda case: case[1],
)
async def test_refusals_are_named_once_and_tell_no_secret(
    canned_server: Any, canned_store: AzureStore, case: Refusal
) -> None:
    status, code, kind, retryable = case
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{KEY}</Message></Error>"
    canned_server.answer = lambda _: web.Response(
        status=status, text=body, content_type="application/xml", headers={"x-ms-error-code": code}
    )
    write = canned_store.replace_if("object.bin", b"content", '"etag"')
    error = await assert_named(canned_server, write, kind, retryable=retryable)
    assert KEY not in str(error)


async def test_a_cancelled_upload_commits_nothing(canned_server: Any, canned_store: AzureStore) -> None:
    canned_server.answer = lambda _: web.Response(status=201)
    full = canned_store.capabilities.part_bytes
    waiting = asyncio.Event()

    async def parts() -> AsyncIterator[Part]:
        yield nullcontext(memoryview(bytes(full)))
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(canned_store.put_parts("large.bin", parts(), size=2 * full))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [request for request in canned_server.requests if "comp=blocklist" in request]
