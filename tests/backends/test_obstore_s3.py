from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import uvloop
from aiohttp import web

from asyncsaver import Saver
from asyncsaver.errors import ObjectNotFoundError, StoreError
from asyncsaver.store import Store
from asyncsaver.store.registry import open_store as open_any
from asyncsaver.testing import StoreContract, store_contract
from asyncsaver_backends.obstore import ObstoreS3Store, open_store
from asyncsaver_backends.s3 import S3Store

from .parts import parts_of, unfinished_uploads

pytestmark = pytest.mark.server


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before <= {asyncio.current_task()}


@pytest.fixture
async def obstore_s3(s3_root: Any, obstore_runtime: None, no_task_left: None) -> AsyncIterator[ObstoreS3Store]:
    async with ObstoreS3Store(s3_root.url, storage_options=s3_root.storage_options) as store:
        yield store


@pytest.fixture
async def s3fs_store(s3_root: Any) -> AsyncIterator[S3Store]:
    """The same root through the other engine."""
    async with S3Store(s3_root.url, storage_options=s3_root.storage_options) as store:
        await store.list()
        yield store


class TestObstoreS3Store(StoreContract):
    @pytest.fixture
    def store(self, obstore_s3: ObstoreS3Store) -> Store:
        return obstore_s3

    @pytest.fixture
    async def peer(self, store: Store, s3_root: Any) -> AsyncIterator[Store]:
        async with open_store(s3_root.url, storage_options=s3_root.storage_options, filesystem=None) as peer:
            yield peer


async def test_both_engines_mean_the_same_objects(obstore_s3: ObstoreS3Store, s3fs_store: S3Store) -> None:
    paths = sorted(store_contract.StoreContract.unusual_paths)
    for path in paths:
        await obstore_s3.put(path, path.encode())
    objects = (await s3fs_store.list()).objects
    assert [info.path for info in objects] == paths
    assert list((await obstore_s3.list()).objects) == list(objects)
    for path in paths:
        assert (await s3fs_store.get(path)).data == path.encode()


async def test_large_conditional_writes_are_whole_and_conditional(obstore_s3: ObstoreS3Store) -> None:
    content = bytearray(np.random.default_rng(0).bytes(20 * 2**20))
    created = await obstore_s3.put("object.bin", content, mode="create")
    assert created.etag
    content[:10] = bytes(10)
    replaced = await obstore_s3.replace_if("object.bin", content, created.etag)
    assert (await obstore_s3.head("object.bin")).etag == replaced.etag
    assert (await obstore_s3.get("object.bin")).data == content


async def test_the_markers_of_consoles_are_no_objects(obstore_s3: ObstoreS3Store, s3fs_store: S3Store) -> None:
    await obstore_s3.put("folder/object.bin", b"content")
    await obstore_s3.put("empty.bin", b"")
    for marker in ("run/", "run/folder/"):
        await s3fs_store._call("put_object", Key=marker, Body=b"")
    assert [info.path for info in (await obstore_s3.list()).objects] == ["empty.bin", "folder/object.bin"]
    top = await obstore_s3.list(delimiter=True)
    assert ([info.path for info in top.objects], list(top.prefixes)) == (["empty.bin"], ["folder/"])


# --- large objects -----------------------------------------------------------------------------------


async def test_a_cancelled_upload_is_aborted_and_no_other(obstore_s3: ObstoreS3Store, s3fs_store: S3Store) -> None:
    await s3fs_store._call("create_multipart_upload", Key="run/large.bin.other")
    part, waiting = obstore_s3.capabilities.part_bytes, asyncio.Event()
    task = asyncio.create_task(obstore_s3.put_parts("large.bin", parts_of(1, part, waiting), size=3 * part))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [upload["Key"] for upload in await unfinished_uploads(s3fs_store)] == ["run/large.bin.other"]


async def test_an_upload_that_fails_is_aborted(obstore_s3: ObstoreS3Store, s3fs_store: S3Store) -> None:
    part = obstore_s3.capabilities.part_bytes
    with pytest.raises(StoreError):
        await obstore_s3.put_parts("large.bin", parts_of(1, part), size=2 * part)
    assert await unfinished_uploads(s3fs_store) == []


async def test_an_upload_cancelled_while_the_store_creates_it_is_aborted(
    canned_server: Any, no_task_left: None
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
        uploads = "".join(f"<Upload><Key>run/large.bin</Key><UploadId>{one}</UploadId></Upload>" for one in created)
        text = f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>"
        return web.Response(text=text, content_type="application/xml")

    canned_server.answer = answer
    options = {"key": "key", "secret": "secret", "endpoint_url": canned_server.url}
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        part = store.capabilities.part_bytes
        task = asyncio.create_task(store.put_parts("large.bin", parts_of(2, part), size=2 * part))
        await asked.wait()
        task.cancel()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert created == []
    assert not [request for request in canned_server.requests if request.startswith("PUT")]
    assert [request for request in canned_server.requests if request.startswith("DELETE")]


async def test_a_part_that_is_refused_fails_the_object(canned_server: Any) -> None:
    def answer(request: web.Request) -> web.Response:
        if request.method == "PUT":
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>", content_type="application/xml")
        result = "<Result><UploadId>the-id</UploadId></Result>"
        return web.Response(text=result, content_type="application/xml")

    canned_server.answer = answer
    options = {"key": "key", "secret": "secret", "endpoint_url": canned_server.url}
    async with ObstoreS3Store("s3://bucket/run", storage_options=options) as store:
        part = store.capabilities.part_bytes
        with pytest.raises(StoreError, match="SlowDown") as caught:
            await store.put_parts("large.bin", parts_of(2, part), size=2 * part)
    assert caught.value.retryable
    assert caught.value.path == "large.bin"
    assert not [
        request for request in canned_server.requests if request == "POST /bucket/run/large.bin?uploadId=the-id"
    ]


async def test_unfinished_uploads_are_purged(obstore_s3: ObstoreS3Store, s3fs_store: S3Store) -> None:
    for key in ("run/a/one.bin", "run/b/two.bin", "elsewhere.bin"):
        await s3fs_store._call("create_multipart_upload", Key=key)
    assert await obstore_s3.purge(timedelta(0), spare=["b/"]) == 1
    assert sorted(upload["Key"] for upload in await unfinished_uploads(s3fs_store)) == [
        "elsewhere.bin",
        "run/b/two.bin",
    ]


# --- through the front door --------------------------------------------------------------------------


async def test_a_saver_saves_and_restores_with_it(s3_root: Any, no_task_left: None) -> None:
    state = {"w": np.arange(3_000_000, dtype=np.float64), "step": 7}
    options = {"storage_options": s3_root.storage_options, "engine": "obstore"}
    async with Saver(s3_root.url, **options, shard_bytes=40 * 2**20) as saver:
        await saver.save(state, step=1)
        await (await saver.save_in_background(state, step=2))
    async with Saver(s3_root.url, storage_options=s3_root.storage_options) as other:
        assert (await other.restore())["step"] == 7
    async with Saver(s3_root.url, **options) as reader:
        np.testing.assert_array_equal((await reader.restore(step=1))["w"], state["w"])


def test_it_works_under_uvloop(s3_root: Any) -> None:
    async def run() -> None:
        async with open_any(s3_root.url, storage_options=s3_root.storage_options, engine="obstore") as store:
            part = store.capabilities.part_bytes
            await store.put_parts("large.bin", parts_of(2, part), size=2 * part)
            buffer = bytearray(b"x" * part)
            await store.get_into("large.bin", [(part, 2 * part)], [memoryview(buffer)])
            assert buffer == bytes(part)
            waiting = asyncio.Event()
            task = asyncio.create_task(store.put_parts("other.bin", parts_of(1, part, waiting), size=3 * part))
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(ObjectNotFoundError):
                await store.head("other.bin")
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
