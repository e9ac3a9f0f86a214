"""Google Cloud Storage through obstore.

obstore speaks the XML API, of which fake-gcs-server has only reads. So everything here runs against `GcsXml`, which puts that
protocol in front of fake-gcs-server; objects, generations, conditions and listings are decided by the latter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.errors import ObjectExistsError, PreconditionFailedError, RootNotFoundError, StoreError
from asyncsaver.store import Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.gcs import GcsStore
from asyncsaver_backends.obstore import ObstoreGcsStore, open_store

from ..servers.gcs_xml import GcsXml, Upload  # noqa: TID252 - test folders are no packages
from ..servers.kinds import Root  # noqa: TID252
from .parts import parts_of

pytestmark = pytest.mark.server

DAY = timedelta(days=1)


@pytest.fixture
async def xml(gcs_server: Any) -> AsyncIterator[GcsXml]:
    """The front, for one test."""
    async with GcsXml(gcs_server.endpoint_url).running() as front:
        yield front


@pytest.fixture
def root(gcs_root: Any, xml: GcsXml) -> Root:
    """A prefix in a fresh bucket, behind the front."""
    return Root(gcs_root.url, {**gcs_root.storage_options, "endpoint_url": xml.url})


@pytest.fixture
async def obstore_gcs(root: Root, obstore_runtime: None) -> AsyncIterator[ObstoreGcsStore]:
    async with ObstoreGcsStore(root.url, storage_options=root.storage_options) as store:
        yield store


@pytest.fixture
async def gcsfs_store(root: Root) -> AsyncIterator[GcsStore]:
    """The same root through the other engine."""
    async with GcsStore(root.url, storage_options=root.storage_options) as store:
        yield store


class TestObstoreGcsStore(StoreContract):
    @pytest.fixture
    def store(self, obstore_gcs: ObstoreGcsStore) -> Store:
        return obstore_gcs

    @pytest.fixture
    async def peer(self, store: Store, root: Root) -> AsyncIterator[Store]:
        async with open_store(root.url, storage_options=root.storage_options, filesystem=None) as peer:
            yield peer


async def test_etags_are_generations_for_either_engine(obstore_gcs: ObstoreGcsStore, gcsfs_store: GcsStore) -> None:
    first = await obstore_gcs.put("object.bin", b"content", mode="create")
    again = await obstore_gcs.put("object.bin", b"content")  # a new version, though nothing in it has changed
    assert first.etag != again.etag
    for store in (obstore_gcs, gcsfs_store):
        assert (await store.head("object.bin")).etag == again.etag
        assert (await store.get("object.bin")).info.etag == again.etag
        assert [info.etag for info in (await store.list()).objects] == [again.etag]
    swapped = await gcsfs_store.replace_if("object.bin", b"swapped", str(again.etag))
    with pytest.raises(PreconditionFailedError):
        await obstore_gcs.replace_if("object.bin", b"late", str(again.etag))
    await obstore_gcs.replace_if("object.bin", b"last", str(swapped.etag))
    assert (await gcsfs_store.get("object.bin")).data == b"last"


async def test_a_swap_is_one_conditional_request(obstore_gcs: ObstoreGcsStore, xml: GcsXml) -> None:
    created = await obstore_gcs.put("object.bin", b"content", mode="create")
    xml.requests.clear()
    await obstore_gcs.replace_if("object.bin", b"other", str(created.etag))
    with pytest.raises(ObjectExistsError):
        await obstore_gcs.put("object.bin", b"third", mode="create")
    sent = [(method, headers.get("x-goog-if-generation-match")) for method, _, headers in xml.requests]
    assert sent == [("PUT", created.etag), ("PUT", "0")]


async def test_large_conditional_writes_are_whole_and_conditional(obstore_gcs: ObstoreGcsStore) -> None:
    content = bytearray(np.random.default_rng(0).bytes(20 * 2**20))
    created = await obstore_gcs.put("object.bin", content, mode="create")
    content[:10] = bytes(10)
    await obstore_gcs.replace_if("object.bin", content, str(created.etag))
    assert (await obstore_gcs.get("object.bin")).data == content


async def test_a_missing_bucket_is_named(xml: GcsXml, root: Root) -> None:
    async with ObstoreGcsStore("gs://no-such-bucket/run", storage_options=root.storage_options) as store:
        part = store.capabilities.part_bytes
        for call in (
            store.list(),
            store.put("object.bin", b"x"),
            store.get("object.bin"),
            store.put_parts("large.bin", parts_of(2, part), size=2 * part),
            store.purge(DAY),
        ):
            with pytest.raises(RootNotFoundError, match="no-such-bucket") as caught:
                await call
            assert not caught.value.retryable


# --- uploads that are not complete -------------------------------------------------------------------


async def test_parts_go_up_as_one_upload(obstore_gcs: ObstoreGcsStore, xml: GcsXml) -> None:
    part = obstore_gcs.capabilities.part_bytes
    await obstore_gcs.put_parts("large.bin", parts_of(3, part), size=3 * part)
    assert sorted(method for method, path, _ in xml.requests if "upload" in path) == ["POST"] * 2 + ["PUT"] * 3
    assert xml.uploads == {}


async def test_a_cancelled_upload_is_aborted_and_no_other(obstore_gcs: ObstoreGcsStore, xml: GcsXml) -> None:
    await obstore_gcs.list()
    bucket = obstore_gcs.url.split("/")[2]
    xml.uploads["other"] = Upload(bucket, "run/large.bin.other", datetime.now(UTC))
    part, waiting = obstore_gcs.capabilities.part_bytes, asyncio.Event()
    task = asyncio.create_task(obstore_gcs.put_parts("large.bin", parts_of(1, part, waiting), size=3 * part))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(xml.uploads) == ["other"]
    assert "DELETE" in [method for method, _, _ in xml.requests]


async def test_cancelled_at_any_moment_an_upload_is_aborted_or_complete(
    obstore_gcs: ObstoreGcsStore, xml: GcsXml
) -> None:
    part, ends = obstore_gcs.capabilities.part_bytes, set()
    for turns in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 10**6):
        task = asyncio.create_task(obstore_gcs.put_parts(f"{turns}.bin", parts_of(2, part), size=2 * part))
        for _ in range(turns):
            if task.done():
                break
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        ends.add(task.cancelled())
        assert xml.uploads == {}
        assert {info.size for info in (await obstore_gcs.list()).objects} <= {2 * part}
    assert ends == {True, False}


async def test_an_upload_that_fails_is_aborted(obstore_gcs: ObstoreGcsStore, xml: GcsXml) -> None:
    part = obstore_gcs.capabilities.part_bytes
    with pytest.raises(StoreError):
        await obstore_gcs.put_parts("large.bin", parts_of(1, part), size=2 * part)
    assert xml.uploads == {}
    assert "DELETE" in [method for method, _, _ in xml.requests]


async def test_unfinished_uploads_are_purged_on_every_page(obstore_gcs: ObstoreGcsStore, xml: GcsXml) -> None:
    bucket, now = obstore_gcs.url.split("/")[2], datetime.now(UTC)
    begun = {
        "run/a/one & only.bin": now - 2 * DAY,
        "run/a/young.bin": now - DAY / 2,
        "run/b/spared.bin": now - 2 * DAY,
        "run/c/ünï.bin": now - 2 * DAY,
        "run-2/other.bin": now - 2 * DAY,
    }
    for key, when in begun.items():
        for _ in range(2):
            xml.uploads[f"upload-{len(xml.uploads)}"] = Upload(bucket, key, when)
    xml.page = 3  # two uploads to one key are told on two pages
    assert await obstore_gcs.purge(DAY, spare=["b/"]) == 4
    assert {upload.key for upload in xml.uploads.values()} == begun.keys() - {"run/a/one & only.bin", "run/c/ünï.bin"}
    assert await obstore_gcs.purge(timedelta(0)) == 4
    assert {upload.key for upload in xml.uploads.values()} == {"run-2/other.bin"}


async def test_where_there_is_no_xml_nothing_is_purged(
    gcs_root: Any, gcs_server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """fake-gcs-server by itself answers with a list of objects."""
    async with ObstoreGcsStore(gcs_root.url, storage_options=gcs_root.storage_options) as store:
        assert await store.purge(timedelta(0)) == 0
    assert caplog.text == ""


# --- through the front door --------------------------------------------------------------------------


async def test_a_saver_saves_sweeps_and_restores_with_it(root: Root, xml: GcsXml) -> None:
    state = {"w": np.arange(3_000_000, dtype=np.float64), "step": 7}
    options = {"storage_options": root.storage_options, "engine": "obstore"}
    async with Saver(root.url, **options, shard_bytes=40 * 2**20, max_to_keep=2) as saver:
        for step in (1, 2, 3):
            await saver.save(state, step=step)
        await (await saver.save_in_background({**state, "step": 8}, step=4))
        bucket = root.url.split("/")[2]
        key = "run/ckpt-00000001/20260101T000000Z-0123456789abcdef/model-00001-of-00001.safetensors"
        xml.uploads["left by a dead writer"] = Upload(bucket, key, datetime.now(UTC) - DAY)
        await saver.sweep(grace=0)
    assert xml.uploads == {}
    async with Saver(root.url, storage_options=root.storage_options) as other:  # gcsfs
        assert [one.step for one in await other.checkpoints()] == [3, 4]
        assert (await other.restore())["step"] == 8
        await other.save({**state, "step": 9}, step=5)
    async with Saver(root.url, **options) as reader:
        np.testing.assert_array_equal((await reader.restore(step=4))["w"], state["w"])
        assert (await reader.restore())["step"] == 9
