"""Write the golden checkpoints of one version of the format: ``python tests/golden/make.py tests/golden/v1``.

Run once for each version of the format, and never again for one that was released: see README.md.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from describe import describe, describe_tensors, fields, hashes
from states import mixed, small

from asyncsaver import Saver

HOUR = 3600.0


class Clock:
    """Stands still until it is told how late it is."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


async def make_mixed(folder: Path, **options: Any) -> dict[str, Any]:
    """One checkpoint in several shards, with everything in it."""
    async with Saver(folder, shard_bytes=600, clock=Clock(), **options) as saver:
        state = mixed()
        metrics = {"loss": 0.25, "count": 3, "bad": float("nan"), "best": float("-inf")}
        metadata = {"git": "4f2a9c1", "nested": [1, 2.5, None, True, {"é": "ü"}]}
        await saver.save(state, step=7, metrics=metrics, metadata=metadata)
        return await describe_root(saver, {7: state})


async def make_overwritten(folder: Path) -> dict[str, Any]:
    """A step saved twice, as if the saver had been killed between the second commit and the deletion of the first."""
    async with Saver(folder, clock=Clock()) as saver:
        await saver.save(small(1), step=3)
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(folder / "ckpt-00000003", Path(copy) / "before")
            await saver.save(small(2), step=3, overwrite=True)
            shutil.copytree(Path(copy) / "before", folder / "ckpt-00000003", dirs_exist_ok=True)
        return await describe_root(saver, {3: small(2)})


async def make_history(folder: Path, **options: Any) -> dict[str, Any]:
    """Pruned checkpoints (tombstones), a pin, one that is preserved for good, a fence, and one without a step."""
    clock = Clock()
    async with Saver(folder, max_to_keep=2, keep_checkpoint_every_n_hours=2.5, clock=clock, **options) as saver:
        for step in range(1, 7):
            clock.now += HOUR
            await saver.save(small(step), step=step, pin=step == 1, metrics={"loss": 1 / step})
        dead = folder / "ckpt-00000009" / "20260101T000000Z-00000000000000ff"
        dead.mkdir(parents=True)
        (dead / "model-00001-of-00001.safetensors").write_bytes(b"half a shard")
        await saver.sweep(grace=0)
        clock.now += HOUR
        await saver.save(small(10))
        kept = {checkpoint.step for checkpoint in await saver.checkpoints()}
        states = {step: small(10 if step is None else step) for step in kept}
        gone = [step for step in range(1, 7) if step not in kept]
        return {**await describe_root(saver, states), "deleted": gone, "fenced": [9]}


async def make_unpadded(folder: Path) -> dict[str, Any]:
    """Another prefix, steps without padding, and a state that is a bare array."""
    async with Saver(folder, prefix="run_1", pad_step_number=False, clock=Clock()) as saver:
        states: dict[int | None, Any] = {5: small(5)["w"], 123456789: None}
        for step, state in states.items():
            await saver.save(state, step=step, metadata=[step])
        return await describe_root(saver, states)


async def make_both(folder: Path) -> dict[str, Any]:
    """Saved with protobuf into a root of version 1, and overwritten once more in that; then the saver was killed.

    It was before it could remove the state file of the other kind, so both stand.
    """
    async with Saver(folder, clock=Clock()) as saver:
        for step in (1, 2, 3):
            await saver.save(small(step), step=step)
    stale = (folder / "checkpoint.json").read_bytes()
    async with Saver(folder, clock=Clock(), manifest_format="proto") as saver:
        await saver.save(small(22), step=2, overwrite=True)
        await saver.save(small(4), step=4)
        expected = await describe_root(saver, {1: small(1), 2: small(22), 3: small(3), 4: small(4)})
    (folder / "checkpoint.json").write_bytes(stale)
    return expected


async def describe_root(saver: Saver, states: dict[int | None, Any]) -> dict[str, Any]:
    """What must be found under a root, from the states that went in."""
    checkpoints = [
        {
            **fields(checkpoint),
            "state": describe(states[checkpoint.step]),
            "tensors": describe_tensors(states[checkpoint.step]),
        }
        for checkpoint in await saver.checkpoints()
    ]
    assert len(checkpoints) == len(states)
    return {"checkpoints": checkpoints}


ROOTS: dict[str, dict[str, Callable[[Path], Any]]] = {
    "v1": {
        "mixed": make_mixed,
        "overwritten": make_overwritten,
        "history": make_history,
        "unpadded": make_unpadded,
    },
    "v2": {
        "mixed": partial(make_mixed, manifest_format="proto"),
        "history": partial(make_history, manifest_format="proto"),
        "both": make_both,
    },
}


def make(folder: Path) -> None:
    """Write every root of the version that the folder is named for, and what must be found in it."""
    folder.mkdir(parents=True)
    for name, root in ROOTS[folder.name].items():
        expected = asyncio.run(root(folder / name))
        (folder / name / ".asyncsaver.lock").unlink(missing_ok=True)  # of the local store, no part of the format
        text = json.dumps({**expected, "files": hashes(folder / name)}, indent=1, ensure_ascii=False)
        (folder / f"{name}.expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
