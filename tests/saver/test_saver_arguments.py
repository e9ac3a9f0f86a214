"""Wrong arguments of `Saver` raise at once, each by its name; none of them reaches a store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncsaver import KeepLast, Saver, UnsupportedStoreError

from .place import Place


@pytest.mark.parametrize(
    ("argument", "value", "error"),
    [
        ("storage_options", ["key"], TypeError),
        ("engine", "warp", ValueError),
        ("engine", None, ValueError),
        ("format", "zarr", ValueError),
        ("format", None, ValueError),
        ("prefix", "", ValueError),
        ("prefix", "a/b", ValueError),
        ("prefix", "..", ValueError),
        ("prefix", "-x", ValueError),
        ("prefix", 5, TypeError),
        ("pad_step_number", "yes", TypeError),
        ("pad_step_number", None, TypeError),
        ("max_to_keep", -1, ValueError),
        ("max_to_keep", 2.0, TypeError),
        ("max_to_keep", True, TypeError),
        ("keep_checkpoint_every_n_hours", -1, ValueError),
        ("keep_checkpoint_every_n_hours", float("nan"), ValueError),
        ("keep_checkpoint_every_n_hours", "2", TypeError),
        ("retention", 5, TypeError),
        ("retention", KeepLast, TypeError),
        ("shard_bytes", 0, ValueError),
        ("shard_bytes", 1e6, TypeError),
        ("shard_bytes", None, TypeError),
        ("memory_budget", -5, ValueError),
        ("memory_budget", "1GB", TypeError),
        ("concurrency", 0, ValueError),
        ("concurrency", 2.5, TypeError),
        ("commit_timeout", 0, ValueError),
        ("commit_timeout", float("nan"), ValueError),
        ("commit_timeout", "1", TypeError),
        ("retry_timeout", -1, ValueError),
        ("retry_timeout", "1", TypeError),
        ("incremental", True, ValueError),
        ("manifest_format", "xml", ValueError),
        ("rank", 1, ValueError),
        ("world_size", 2, ValueError),
        ("run_id", "run", ValueError),
        ("coordinator", object(), ValueError),
        ("single_writer", "yes", TypeError),
        ("read_only", 1, TypeError),
        ("progress", 5, TypeError),
        ("on_stats", 5, TypeError),
        ("clock", 12.5, TypeError),
    ],
)
def test_a_wrong_argument_is_named(argument: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=argument):
        Saver("memory://arguments", **{argument: value})


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("", ValueError, "URL is empty"),
        (5, TypeError, "url"),
        (None, TypeError, "url"),
        (b"/tmp/run", TypeError, "url"),
        ("nosuch://bucket/run", UnsupportedStoreError, "nosuch://"),
    ],
)
def test_a_wrong_url(url: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Saver(url)


def test_an_unknown_scheme_does_not_repeat_secrets() -> None:
    with pytest.raises(UnsupportedStoreError) as caught:
        Saver("nosuch://user:hush@bucket/run?token=hush")
    assert "hush" not in str(caught.value)


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="max_to_kep"):
        Saver("memory://arguments", max_to_kep=3)  # type: ignore[call-arg]


def test_constructing_does_no_io(local: Place) -> None:
    asyncio.run(local.saver().close())
    assert not Path(local.url).exists()


def test_a_saver_shows_its_root_without_credentials() -> None:
    assert repr(Saver("ftp://user:secret@host/run")) == "<Saver of ftp://host/run>"


async def test_a_path_object_is_a_root(tmp_path: Path) -> None:
    async with Saver(tmp_path / "run") as saver:
        checkpoint = await saver.save({"x": 1}, step=1)
        assert (tmp_path / "run" / checkpoint.name / "manifest.json").exists()


@pytest.mark.parametrize("grace", [-1, float("nan"), "day"])
async def test_a_wrong_grace(memory: Place, grace: Any) -> None:
    async with memory.saver() as saver:
        with pytest.raises((TypeError, ValueError), match="grace"):
            await saver.sweep(grace)
