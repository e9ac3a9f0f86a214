"""Looking at checkpoints without a saver, on every store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import (
    CheckpointDeletedError,
    CheckpointNotFoundError,
    ManifestError,
    Saver,
    checkpoint_exists,
    get_checkpoint_state,
    latest_checkpoint,
    open_checkpoint,
)

from .place import Place
from .states import bits

STATE = {"x": np.arange(10), "y": "text"}


def options(place: Place) -> dict[str, Any]:
    return {"storage_options": place.storage_options or None}


@pytest.mark.server
@pytest.mark.parametrize("anywhere", ["memory", "local", "s3", "gcs", "azure"], indirect=True)  # they choose the engine
async def test_on_every_store(anywhere: Place, no_leaks: None) -> None:
    assert await latest_checkpoint(anywhere.url, **options(anywhere)) is None
    assert await get_checkpoint_state(anywhere.url, **options(anywhere)) is None
    assert not await checkpoint_exists(f"{anywhere.url}/ckpt-00000001", **options(anywhere))
    async with anywhere.saver() as saver:
        await saver.save(STATE, step=1, metadata={"a": 1})
        second = await saver.save(STATE, step=2)
    latest = await latest_checkpoint(anywhere.url, **options(anywhere))
    assert latest is not None
    assert (latest.step, latest.save_id, latest.url) == (2, second.save_id, second.url)
    state = await get_checkpoint_state(anywhere.url, **options(anywhere))
    assert state is not None
    assert [one.step for one in state.checkpoints] == [1, 2]
    assert state.latest == latest
    assert state.last_preserved is not None
    for suffix in ("", "/"):
        assert await checkpoint_exists(f"{anywhere.url}/ckpt-00000001{suffix}", **options(anywhere))
        async with await open_checkpoint(f"{anywhere.url}/ckpt-00000001{suffix}", **options(anywhere)) as reader:
            assert reader.metadata == {"a": 1}
            assert bits(await reader.read("x", slice(2, 5))) == bits(np.arange(2, 5))
            assert bits(await reader.restore()) == bits(STATE)


async def test_the_url_that_a_checkpoint_gives_opens_it(local: Place) -> None:
    async with local.saver(prefix="model-v2") as saver:
        saved = await saver.save(STATE, step=10**9)
        unnumbered = await saver.save({"z": 1})
    async with await open_checkpoint(saved.url) as reader:
        assert bits(await reader.restore()) == bits(STATE)
    async with await open_checkpoint(Path(unnumbered.url), format="native") as reader:
        assert await reader.restore() == {"z": 1}
    assert await latest_checkpoint(local.url) is None  # of another prefix
    assert await get_checkpoint_state(local.url) is None
    latest = await latest_checkpoint(local.url, prefix="model-v2")
    assert latest is not None
    assert latest.save_id == unnumbered.save_id


async def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Saver("run") as saver:
        await saver.save(STATE, step=1)
    assert (tmp_path / "run" / "ckpt-00000001" / "manifest.json").exists()
    assert await checkpoint_exists(os.path.join("run", "ckpt-00000001"))  # noqa: PTH118 - the point is that it is text
    monkeypatch.chdir(tmp_path / "run")
    assert await checkpoint_exists("ckpt-00000001")


async def test_what_is_not_there(memory: Place, no_leaks: None) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await saver.save(STATE, step=2)
        await saver.delete(1)
    with pytest.raises(CheckpointNotFoundError, match="ckpt-00000003 is not a committed checkpoint"):
        await open_checkpoint(f"{memory.url}/ckpt-00000003")
    with pytest.raises(CheckpointDeletedError, match="ckpt-00000001 was deleted"):
        await open_checkpoint(f"{memory.url}/ckpt-00000001")
    assert not await checkpoint_exists(f"{memory.url}/ckpt-00000001")
    assert not await checkpoint_exists(f"{memory.url}/ckpt-00000002/manifest.json")


async def test_what_is_damaged_is_not_said_to_be_absent(memory: Place, no_leaks: None) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
    await memory.put("ckpt-00000001/manifest.json", b"garbage")
    for call in (
        open_checkpoint(f"{memory.url}/ckpt-00000001"),
        checkpoint_exists(f"{memory.url}/ckpt-00000001"),
        latest_checkpoint(memory.url),
    ):
        with pytest.raises(ManifestError, match=r"manifest\.json"):
            await call


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("memory://", ValueError, "not the URL of a checkpoint"),
        ("memory://name", ValueError, "not the URL of a checkpoint"),
        ("s3://bucket", ValueError, "not the URL of a checkpoint"),
        ("", ValueError, "not the URL of a checkpoint"),
        ("memory://name/.hidden", CheckpointNotFoundError, "no checkpoint in any known format"),
        ("nosuch://bucket/ckpt-1", ValueError, "nosuch"),
        (5, TypeError, "int"),
    ],
)
async def test_wrong_urls(url: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        await open_checkpoint(url)


async def test_other_formats_are_refused(memory: Place) -> None:
    with pytest.raises(
        ValueError, match="format='zarr' is unknown; format can be one of 'auto', 'native', 'tensorflow'"
    ):
        await open_checkpoint(f"{memory.url}/ckpt-00000001", format="zarr")


async def test_a_reader_of_its_own_closes_its_store(memory: Place) -> None:
    async with memory.saver() as saver:
        saved = await saver.save(STATE, step=1)
    reader = await open_checkpoint(saved.url)
    await reader.close()
    await reader.close()
    with pytest.raises(ValueError, match="closed"):
        await reader.read("x")
