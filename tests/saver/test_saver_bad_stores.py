"""Roots that are not there, are not ours, or are no roots: the right error, soon, and without a secret in it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import AccessDeniedError, InvalidRootError, RootNotFoundError, Saver, StoreError, latest_checkpoint

from .place import Place

SECRET = "hush/hush+not+to+be+seen"
STATE = {"x": np.arange(10)}


def told(error: BaseException) -> str:
    """All that an error says, with what it was raised from."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts += [str(cause), repr(cause), *getattr(cause, "__notes__", [])]
        cause = cause.__cause__
    return "\n".join(texts)


@pytest.mark.server
@pytest.mark.parametrize("kind", ["s3", "s3-fsspec", "gcs", "azure", "azure-fsspec"])
async def test_a_missing_bucket(kind: str, request: pytest.FixtureRequest) -> None:
    cloud, _, engine = kind.partition("-")
    root = request.getfixturevalue(f"{cloud}_root")
    scheme = root.url.partition("://")[0]
    place = Place(f"{scheme}://no-such-bucket-here/run", root.storage_options, engine or "auto")
    async with place.saver() as saver:
        for call in (saver.save(STATE, step=1), saver.restore(), saver.latest(), saver.checkpoints(), saver.prune()):
            with pytest.raises(RootNotFoundError, match="no-such-bucket-here"):
                await call
        with pytest.raises(FileNotFoundError):
            await saver.restore(step=1)
    with pytest.raises(RootNotFoundError, match="no-such-bucket-here"):
        await latest_checkpoint(place.url, storage_options=place.storage_options)


@pytest.fixture(scope="module")
def strict_s3_url(start_moto: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 server that checks credentials."""
    log = tmp_path_factory.mktemp("strict") / "moto.log"
    with start_moto(log, environment={"INITIAL_NO_AUTH_ACTION_COUNT": "0"}) as url:
        yield url


@pytest.mark.server
@pytest.mark.parametrize("engine", ["auto", "fsspec"])
async def test_wrong_credentials_on_s3(strict_s3_url: str, caplog: pytest.LogCaptureFixture, engine: str) -> None:
    options = {
        "key": "AKIAWRONGKEYID",
        "secret": SECRET,
        "endpoint_url": strict_s3_url,
        "client_kwargs": {"region_name": "us-east-1"},
    }
    with caplog.at_level(logging.DEBUG, "asyncsaver"):
        async with Saver("s3://bucket/run", storage_options=options, engine=engine) as saver:
            for call in (saver.save(STATE, step=1), saver.restore(), saver.latest()):
                with pytest.raises(AccessDeniedError) as caught:
                    await call
                assert "s3://bucket/run" in told(caught.value)
                assert SECRET not in told(caught.value)
    assert SECRET not in caplog.text


@pytest.mark.server
@pytest.mark.parametrize("engine", ["auto", "fsspec"])
async def test_wrong_credentials_on_azure(azure_root: Any, caplog: pytest.LogCaptureFixture, engine: str) -> None:
    wrong = "aHVzaCBodXNoLCBub3QgdG8gYmUgc2VlbiBieSBhbnlib2R5"
    right = azure_root.storage_options["connection_string"]
    parts = [f"AccountKey={wrong}" if part.startswith("AccountKey=") else part for part in right.split(";")]
    options = {"connection_string": ";".join(parts)}
    with caplog.at_level(logging.DEBUG, "asyncsaver"):
        async with Saver(azure_root.url, storage_options=options, engine=engine) as saver:
            for call in (saver.save(STATE, step=1), saver.restore()):
                with pytest.raises(AccessDeniedError) as caught:
                    await call
                assert azure_root.url in told(caught.value)
                assert wrong not in told(caught.value)
    assert wrong not in caplog.text


@pytest.mark.server
async def test_credentials_are_not_saved(s3_root: Any) -> None:
    place = Place(s3_root.url, {**s3_root.storage_options, "secret": SECRET})
    async with place.saver() as saver:
        saved = await saver.save(STATE, step=1)
        assert SECRET not in f"{saved!r} {saver!r} {saver.url}"
    for path, data in (await place.objects()).items():
        assert SECRET.encode() not in data, path
        assert b"test-key" not in data, path


def test_credentials_in_a_url_are_not_repeated() -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        Saver(f"s3://key:{SECRET.replace('/', '')}@bucket/run")
    assert "hush" not in told(caught.value)


@pytest.mark.parametrize("url", ["~nobody-of-that-name/run", "file://~nobody-of-that-name/run"])
def test_the_home_of_a_user_that_there_is_not(url: str) -> None:
    with pytest.raises(InvalidRootError, match="~nobody-of-that-name/run"):
        Saver(url)


async def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    for url in (file, file / "below"):
        async with Saver(url) as saver:
            with pytest.raises((InvalidRootError, NotADirectoryError), match="file"):
                await saver.save(STATE, step=1)
            with pytest.raises((InvalidRootError, NotADirectoryError), match="file"):
                await saver.restore()
    assert file.read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208 - a Path's own way counts as blocking


async def test_a_checkpoint_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "ckpt-00000001").write_bytes(b"content")
    async with Saver(tmp_path) as saver:
        with pytest.raises(StoreError, match="ckpt-00000001"):
            await saver.save(STATE, step=1)
        assert (await saver.save(STATE, step=2)).step == 2
        assert [one.step for one in await saver.checkpoints()] == [2]
    assert (tmp_path / "ckpt-00000001").read_bytes() == b"content"


async def test_a_root_without_permission(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir(mode=0o500)
    try:
        (root / "probe").touch()
    except PermissionError:
        pass
    else:
        pytest.skip("this user may write anywhere")
    async with Saver(root) as saver:
        with pytest.raises(AccessDeniedError, match="root"):
            await saver.save(STATE, step=1)
