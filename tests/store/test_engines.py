"""Which engine serves a URL, and what the log says where it is not the one that one would expect."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import fsspec.config
import numpy as np
import pytest
import s3fs

from asyncsaver import InvalidRootError, Saver, blocking
from asyncsaver.store.registry import open_store
from asyncsaver_backends.azure import AzureStore
from asyncsaver_backends.gcs import GcsStore
from asyncsaver_backends.obstore import ObstoreAzureStore, ObstoreS3Store
from asyncsaver_backends.s3 import S3Store

AZURE = {"account_name": "account", "account_key": "a2V5"}
STATE = {"x": np.arange(10)}


@pytest.mark.parametrize(
    ("url", "options", "kind"),
    [
        ("s3://bucket/run", {}, ObstoreS3Store),
        ("S3A://bucket/run", {"key": "key", "secret": "secret"}, ObstoreS3Store),
        ("s3://bucket/run", {"default_block_size": 2**20, "use_listings_cache": False}, ObstoreS3Store),
        ("az://container/run", AZURE, ObstoreAzureStore),
        ("abfs://container@account.dfs.core.windows.net/run", {**AZURE, "blocksize": 2**20}, ObstoreAzureStore),
        ("gs://bucket/run", {}, GcsStore),
    ],
)
def test_what_obstore_can_do_it_does_where_it_was_tried(url: str, options: Mapping[str, Any], kind: type) -> None:
    assert type(open_store(url, storage_options=options)) is kind


@pytest.mark.parametrize(
    ("url", "options", "kind", "name"),
    [
        ("s3://bucket/run", {"config_kwargs": {"retries": {"mode": "hush"}}}, S3Store, "'retries' in config_kwargs"),
        ("s3://bucket/run", {"client_kwargs": {"api_version": "hush"}}, S3Store, "'api_version' in client_kwargs"),
        ("s3://bucket/run", {"use_ssl": False}, S3Store, "use_ssl"),
        ("s3://bucket--use1-az4--x-s3/run", {"key": "hush", "secret": "hush"}, S3Store, "directory buckets"),
        ("az://container/run", {**AZURE, "location_mode": "hush"}, AzureStore, "'location_mode'"),
        (
            "az://container/run",
            {"connection_string": "UseDevelopmentStorage=true"},
            AzureStore,
            "UseDevelopmentStorage",
        ),
        (
            "az://container/run",
            {"connection_string": "AccountName=a;AccountKey=hush;Hush=x"},
            AzureStore,
            "part of the",
        ),
    ],
)
def test_what_it_cannot_do_fsspec_does_and_the_log_says_why(
    url: str, options: Mapping[str, Any], kind: type, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "asyncsaver"):
        assert type(open_store(url, storage_options=options)) is kind
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert f"{url} goes through fsspec" in record.getMessage()
    assert name in record.getMessage()
    assert "hush" not in caplog.text.lower()


def test_secrets_in_the_url_are_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "asyncsaver"), pytest.raises(InvalidRootError):
        open_store("s3://key:hush@bucket/run", storage_options={"session": "hush"})
    assert "hush" not in caplog.text


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://bucket/run", {"key": "without its secret"}),
        ("s3://bucket/run", {"endpoint_url": "host:9000"}),
        ("az://container/run", {"connection_string": "none"}),
    ],
)
def test_wrong_values_are_wrong_for_either(
    url: str, options: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"secret|http|connection string"):
        open_store(url, storage_options=options)
    assert not caplog.records


def test_a_ready_filesystem_stays_with_fsspec(caplog: pytest.LogCaptureFixture) -> None:
    ready = s3fs.S3FileSystem(asynchronous=True, skip_instance_cache=True)
    assert type(open_store("s3://bucket/run", filesystem=ready)) is S3Store
    assert not caplog.records


def test_fsspecs_own_configuration_holds_for_obstore_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "configured", "secret": "configured"})
    monkeypatch.setitem(fsspec.config.conf, "s3a", {"endpoint_url": "https://host:9000"})
    store: Any = open_store("s3://bucket/run", storage_options={"secret": "given"})
    assert type(store) is ObstoreS3Store
    assert (store._options.key, store._options.secret, store._options.endpoint) == (
        "configured",
        "given",
        "https://host:9000",
    )
    monkeypatch.setitem(fsspec.config.conf, "s3", {"version_aware": True})
    assert type(open_store("s3://bucket/run")) is S3Store


@pytest.mark.parametrize(
    ("missing", "kind"),
    [
        (["obstore"], "S3Store"),
        (["s3fs", "botocore"], "ObstoreS3Store"),
        (["obstore", "s3fs"], "UnsupportedStoreError"),
    ],
)
def test_what_is_installed_decides(missing: list[str], kind: str) -> None:
    code = (
        "import sys\n"
        f"sys.modules |= dict.fromkeys({missing!r})\n"  # how imports of missing packages look
        "from asyncsaver.store.registry import open_store\n"
        "try:\n"
        "    print(type(open_store('s3://bucket/run')).__name__)\n"
        "except ValueError as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == kind


def test_without_s3fs_what_only_it_can_do_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['s3fs'] = None\n"
        "from asyncsaver.store.registry import open_store\n"
        "try:\n"
        "    open_store('s3://bucket/run', storage_options={'version_aware': True})\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "asyncsaver[s3]"' in done.stdout


# --- processes and loops -----------------------------------------------------------------------------


def _in_a_fork(work: Callable[[], Awaitable[object]]) -> str:
    """Run it in a fork of this process; returns what came of it, as text."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forking with threads, as we do
        child = os.fork()
    if child == 0:
        told = ""
        try:
            told = repr(asyncio.run(asyncio.wait_for(work(), 60)))  # type: ignore[arg-type]
        except BaseException as error:  # noqa: BLE001 - the stack is a copy of the parent's, and must not be unwound
            told = repr(error)
        finally:
            os.write(writing, told.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return told


@pytest.mark.server
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("cloud", ["s3", "azure"])
@pytest.mark.parametrize("engine", ["auto", "obstore", "fsspec"])
def test_a_fork_saves_with_a_saver_of_its_own(cloud: str, engine: str, request: pytest.FixtureRequest) -> None:
    """obstore's threads are not there: unless it is asked for by name, fsspec takes over."""
    root = request.getfixturevalue(f"{cloud}_root")

    async def save(step: int) -> list[int | None]:
        async with Saver(root.url, storage_options=root.storage_options, engine=engine) as saver:
            await saver.save(STATE, step=step)
            assert (await saver.restore())["x"].sum() == 45
            return [one.step for one in await saver.checkpoints()]

    assert asyncio.run(save(1)) == [1]
    told = _in_a_fork(lambda: save(2))
    assert told.startswith("UnsupportedStoreError") if engine == "obstore" else told == "[1, 2]"
    if engine == "obstore":
        assert "forked" in told
    assert 3 in asyncio.run(save(3))


@pytest.mark.server
@pytest.mark.parametrize("engine", ["auto", "fsspec"])
async def test_the_blocking_saver_works_within_a_running_loop(engine: str, s3_root: Any) -> None:
    """As in a notebook, whose cells run in a loop."""
    options = {"storage_options": s3_root.storage_options, "engine": engine}
    with blocking.Saver(s3_root.url, **options) as saver:
        pending = saver.save_in_background(STATE, step=1)
        assert pending.result().step == 1
        async with Saver(s3_root.url, **options) as own:
            np.testing.assert_array_equal((await own.restore())["x"], STATE["x"])
        np.testing.assert_array_equal(saver.restore()["x"], STATE["x"])


@pytest.mark.server
@pytest.mark.parametrize("engine", ["auto", "fsspec"])
def test_loops_one_after_another_and_side_by_side(engine: str, s3_root: Any) -> None:
    def save(step: int) -> int | None:
        async def run() -> int | None:
            async with Saver(s3_root.url, storage_options=s3_root.storage_options, engine=engine) as saver:
                return (await saver.save(STATE, step=step)).step

        return asyncio.run(run())

    async def both() -> list[int | None]:
        return await asyncio.gather(*(asyncio.to_thread(save, step) for step in (3, 4)))

    assert [save(1), save(2)] == [1, 2]
    assert asyncio.run(both()) == [3, 4]
