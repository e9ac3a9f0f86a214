"""What a dead client leaves and no listing shows: unfinished uploads, temporary files. `Store.purge` removes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from asyncsaver import Saver, StoreError
from asyncsaver.store.registry import open_store
from asyncsaver_backends._posix import TEMPORARY_PREFIX
from asyncsaver_backends.s3 import S3Store

NOW, DAY = timedelta(0), timedelta(days=1)
DRAFT = f"{TEMPORARY_PREFIX}0123456789abcdef"


@pytest.fixture
async def store(s3_root: Any, no_leaks: None) -> AsyncIterator[S3Store]:
    async with S3Store(s3_root.url, storage_options=s3_root.storage_options) as store:
        await store.list()
        yield store


async def begin(store: S3Store, *keys: str) -> None:
    for key in keys:
        await store._call("create_multipart_upload", Key=key)


async def unfinished(store: S3Store) -> list[str]:
    answer = await store._call("list_multipart_uploads")
    return sorted(upload["Key"] for upload in answer.get("Uploads", ()))


@pytest.mark.server
async def test_unfinished_uploads_are_aborted(store: S3Store) -> None:
    await begin(store, "run/a/one.bin", "run/a/one.bin", "run/b/two.bin")
    assert await store.purge(NOW) == 3
    assert await unfinished(store) == []
    assert await store.purge(NOW) == 0


@pytest.mark.server
async def test_those_of_other_roots_and_those_spared_stay(store: S3Store) -> None:
    await begin(store, "run/a/one.bin", "run/b/two.bin", "run-2/a/three.bin", "elsewhere.bin")
    assert await store.purge(NOW, spare=["b/"]) == 1
    assert await unfinished(store) == ["elsewhere.bin", "run-2/a/three.bin", "run/b/two.bin"]


@pytest.fixture
async def canned_store(canned_server: Any) -> AsyncIterator[S3Store]:
    options = {
        "key": "key",
        "secret": "secret",
        "endpoint_url": canned_server.url,
        "client_kwargs": {"region_name": "us-east-1"},
    }
    async with S3Store("s3://bucket/run", storage_options=options) as store:
        yield store


def page(names: Mapping[str, datetime], following: str = "") -> web.Response:
    uploads = "".join(
        f"<Upload><Key>run/{name}</Key><UploadId>id-{name}</UploadId><Initiated>{begun:%Y-%m-%dT%H:%M:%SZ}</Initiated>"
        "</Upload>"
        for name, begun in names.items()
    )
    more = f"<NextKeyMarker>{following}</NextKeyMarker><NextUploadIdMarker>id</NextUploadIdMarker>" if following else ""
    told = f"<IsTruncated>{'true' if following else 'false'}</IsTruncated>{more}{uploads}"
    return web.Response(
        text=f"<ListMultipartUploadsResult>{told}</ListMultipartUploadsResult>", content_type="application/xml"
    )


async def test_young_uploads_stay_on_every_page(canned_server: Any, canned_store: S3Store) -> None:
    old, young = datetime.now(UTC) - 2 * DAY, datetime.now(UTC) - DAY / 2
    aborted: list[str] = []

    def answer(request: web.Request) -> web.Response:
        if request.method == "DELETE":
            aborted.append(request.query["uploadId"])
            return web.Response(status=204)
        assert request.query["prefix"] == "run/"
        if "key-marker" in request.query:
            return page({"c": young, "d": old})
        return page({"a": old, "b": young}, following="run/b")

    canned_server.answer = answer
    assert await canned_store.purge(DAY) == 2
    assert sorted(aborted) == ["id-a", "id-d"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (404, "NoSuchUpload"), (403, "AccessDenied"), (405, "MethodNotAllowed")],
)
async def test_where_uploads_cannot_be_listed_they_stay(
    canned_server: Any, canned_store: S3Store, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    canned_server.answer = lambda _: web.Response(
        status=status, text=f"<Error><Code>{code}</Code></Error>", content_type="application/xml"
    )
    assert await canned_store.purge(NOW) == 0
    assert "they stay" in caplog.text


async def test_what_may_pass_is_for_the_caller_to_retry(canned_server: Any, canned_store: S3Store) -> None:
    canned_server.answer = lambda _: web.Response(
        status=503, text="<Error><Code>SlowDown</Code></Error>", content_type="application/xml"
    )
    with pytest.raises(StoreError) as caught:
        await canned_store.purge(NOW)
    assert caught.value.retryable


@pytest.mark.server
async def test_objects_stay(store: S3Store) -> None:
    await store.put("a/one.bin", b"content")
    await begin(store, "run/a/one.bin")
    assert await store.purge(NOW) == 1
    assert (await store.get("a/one.bin")).data == b"content"


@pytest.mark.server
async def test_a_sweep_aborts_them(store: S3Store, s3_root: Any) -> None:
    folder = "run/ckpt-00000001/20260101T000000Z-0123456789abcdef"
    async with Saver(s3_root.url, storage_options=s3_root.storage_options) as saver:
        await saver.save({"x": np.arange(3)}, step=2)
        await begin(store, f"{folder}/model-00001-of-00001.safetensors")
        await saver.sweep(grace=0, dry_run=True)
        assert len(await unfinished(store)) == 1
        await saver.sweep(grace=0)
        assert await unfinished(store) == []
        assert (await saver.restore())["x"].tolist() == [0, 1, 2]


def drafts(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name.startswith("."))


async def test_temporary_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "root" / folder).mkdir(parents=True)
        (tmp_path / "root" / folder / DRAFT).write_bytes(b"half")
    async with open_store(str(tmp_path / "root")) as store:
        await store.put("a/kept.bin", b"content")
        assert [item.path for item in (await store.list()).objects] == ["a/kept.bin"]
        assert await store.purge(DAY) == 0
        assert await store.purge(NOW, spare=["b/"]) == 1
        assert drafts(tmp_path / "root" / "a") == []
        assert drafts(tmp_path / "root" / "b") == [DRAFT]
        assert await store.purge(NOW) == 1
        assert (await store.get("a/kept.bin")).data == b"content"


async def test_a_sweep_removes_them(tmp_path: Path) -> None:
    async with Saver(tmp_path / "root") as saver:
        await saver.save({"x": np.arange(3)}, step=1)
        draft = tmp_path / "root" / "ckpt-00000001" / DRAFT
        draft.write_bytes(b"half")
        await saver.sweep()
        assert draft.exists()
        await saver.sweep(grace=0)
        assert not draft.exists()
        assert (await saver.restore())["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("url", ["memory://purge"])
async def test_where_there_is_nothing_to_purge(url: str) -> None:
    async with open_store(url) as store:
        await store.put("a.bin", b"content")
        assert await store.purge(NOW) == 0
        assert (await store.get("a.bin")).data == b"content"
