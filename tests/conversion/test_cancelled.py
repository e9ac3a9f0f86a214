"""A conversion that is cancelled, wherever it is, leaves no task, thread, file or upload behind, and nothing at the target."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import Progress, Saver, convert
from asyncsaver.store.registry import open_store

from ..saver.place import Place  # noqa: TID252 - test folders have no name
from .checkpoints import assert_same, content_of

TARGETS = {"native": "run/ckpt-2", "tensorflow": "run/m-2", "huggingface": "run/m-2"}


@pytest.fixture(params=["memory", "local", "s3", "gcs", "azure"])
def anywhere(request: pytest.FixtureRequest) -> Place:
    """A fresh root in each kind of store; `no_leaks` knows it by this name."""
    root = request.getfixturevalue(f"{request.param}_root")
    return Place(root.url, root.storage_options)


@pytest.mark.server
@pytest.mark.parametrize("into", TARGETS)
async def test_cancelled_while_bytes_land(anywhere: Place, tmp_path: Path, no_leaks: None, into: str) -> None:
    state = {f"w{number}": np.full((200, 1000), number, np.float32) for number in range(4)}
    async with Saver(tmp_path / "a") as saver:
        source = (await saver.save(state, step=1)).url
    target, options = f"{anywhere.url}/{TARGETS[into]}", anywhere.storage_options or None
    phases: list[str] = []
    tasks: list[asyncio.Task[Any]] = []

    def cancel(progress: Progress) -> None:
        phases.append(progress.phase)
        if progress.phase == "writing" and 0 < progress.bytes_done < progress.bytes_total:
            tasks[0].cancel()

    small = {"shard_bytes": 1_000_000, "memory_budget": 1_000_000}
    work = convert(source, target, format=into, target_storage_options=options, progress=cancel, **small)
    tasks.append(asyncio.create_task(work))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert "committed" not in phases
    async with open_store(anywhere.url, storage_options=options) as store:
        assert [item.path for item in (await store.list("run/")).objects] == []
    await convert(source, target, format=into, target_storage_options=options)
    assert_same(await content_of(target, into, options), await content_of(source))


async def test_progress_tells_of_every_byte(tmp_path: Path) -> None:
    async with Saver(tmp_path / "a") as saver:
        source = (await saver.save({"w": np.zeros(1000)}, step=1)).url
    for into, name in TARGETS.items():
        told: list[Progress] = []
        await convert(source, tmp_path / into / name, format=into, progress=told.append)
        assert [progress.phase for progress in told] == ["writing", "committing", "committed"]
        assert {(progress.step, progress.bytes_done, progress.bytes_total) for progress in told} == {(2, 8000, 8000)}
