"""A root with one of every kind of file, damage to one of them, and what must hold then."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import CheckpointCorruptError, CheckpointDeletedError, CheckpointNotFoundError, ManifestError, Saver

from ..saver.states import bits  # noqa: TID252 - test folders are no packages

STEPS = (1, 2, 3)
DAMAGED = 3
GONE = 0
FENCED = 4
PREFIX = f"ckpt-{DAMAGED:08d}/"
MANIFEST = PREFIX + "manifest.json"
TOMBSTONE = f"ckpt-{GONE:08d}/manifest.json"
FENCE = f"ckpt-{FENCED:08d}/manifest.json"
MARKER = PREFIX + "pinned.json"
STATE_FILE = "checkpoint.json"
KINDS = ("manifest", "part", "state file", "shard", "index", "marker", "tombstone", "fence")


def state_of(step: int) -> dict[str, Any]:
    """Another state for each step: no byte of one shard is right in the place of another's."""
    arrays = {name: np.arange(40, dtype=dtype) + 50 * step for name, dtype in (("a", "float64"), ("b", "float32"))}
    return {**arrays, "c": [np.arange(30, dtype=np.uint8) + step, step, f"step {step}", step / 7], "big": 2**60 + step}


STATES = {step: bits(state_of(step)) for step in (*STEPS, 8)}


async def make_root(folder: Path) -> None:
    """Checkpoints (the newest of them pinned), a tombstone, a fence, the state file and markers."""
    async with Saver(folder, max_to_keep=3, shard_bytes=320) as saver:
        for step in (GONE, *STEPS):
            await saver.save(state_of(step), step=step, pin=step == DAMAGED, metrics={"loss": step / 8})
        dead = folder / f"ckpt-{FENCED:08d}" / "20260101T000000Z-00000000000000ff"
        dead.mkdir(parents=True)
        (dead / "model-00001-of-00001.safetensors").write_bytes(b"half a shard")
        await saver.sweep(grace=0)


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything under a root: path → content."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".asyncsaver.lock")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def times_of(folder: Path) -> dict[str, int]:
    """When each of them was last written, in nanoseconds."""
    return {path: (folder / path).stat().st_mtime_ns for path in files_of(folder)}


@dataclass(frozen=True, slots=True)
class Scene:
    """The root, and what stood there.

    Attributes:
        folder: the root.
        files: everything in it when it was whole.
        times: when each of them was written: as long as that stays, the state file's entries are believed.
    """

    folder: Path
    files: dict[str, bytes]
    times: dict[str, int]

    def of_kind(self, kind: str) -> list[str]:
        """The paths of one kind of file; where each checkpoint has one, those of the checkpoint that gets damaged."""
        records = {
            "manifest": MANIFEST,
            "state file": STATE_FILE,
            "marker": MARKER,
            "tombstone": TOMBSTONE,
            "fence": FENCE,
        }
        if kind in records:
            return [records[kind]]
        ending = {"part": "part-00000.json", "shard": ".safetensors", "index": ".index.json"}[kind]
        return [path for path in self.files if path.startswith(PREFIX) and path.endswith(ending)]

    def counterpart(self, path: str) -> str:
        """The file of another checkpoint that would be in that place there."""
        name, ending = path.partition("/")[0], path.rpartition("/")[2]
        return next(other for other in self.files if other.endswith(ending) and other.partition("/")[0] != name)

    def put(self, path: str, data: bytes | None, *, quietly: bool = False) -> None:
        """Damage a file, or delete it; quietly: as a disk does it, so that time and size tell nothing."""
        file = self.folder / path
        if data is None:
            file.unlink()
            return
        file.write_bytes(data)
        if quietly:
            os.utime(file, ns=(self.times[path], self.times[path]))

    def mend(self) -> None:
        """Everything as it was, and nothing else."""
        for path in files_of(self.folder).keys() - self.files.keys():
            (self.folder / path).unlink()
        for path, data in self.files.items():
            file = self.folder / path
            if not file.exists() or file.read_bytes() != data:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            os.utime(file, ns=(self.times[path], self.times[path]))

    def tensors_in(self, shard: str) -> set[str]:
        """Names of the tensors that a shard of the damaged checkpoint holds."""
        data = self.files[shard]
        return {name for name in ("a", "b", "c.0") if f'"{name}":'.encode() in data[: self.data_at(shard)]}

    def data_at(self, shard: str) -> int:
        """Where the data of a shard begin."""
        return 8 + int.from_bytes(self.files[shard][:8], "little")


async def restored(saver: Saver, step: int | None, **arguments: Any) -> Any:
    """What comes back, or the error that says why not."""
    try:
        return bits(await saver.restore(step=step, **arguments))
    except (CheckpointCorruptError, CheckpointNotFoundError) as error:
        return error


async def check(scene: Scene, kind: str, path: str, data: bytes | None) -> bool:
    """Whatever happened to one file, what is restored is what was saved, and the rest is as it was.

    Returns:
        Whether the damage was noticed. Otherwise it was harmless.
    """
    async with Saver(scene.folder, max_to_keep=3, read_only=True) as saver:
        for step in STEPS:
            if step != DAMAGED:
                assert await restored(saver, step) == STATES[step]
        found, newest = await restored(saver, DAMAGED), await restored(saver, None)
        match kind:
            case "manifest" if data is None:
                assert isinstance(found, CheckpointNotFoundError)
                assert newest == STATES[DAMAGED - 1]
                return True
            case "manifest":
                for error in (found, newest, await failure(saver, DAMAGED)):
                    assert isinstance(error, ManifestError)
                    assert error.path == path
                    assert path in str(error)
                return True
            case "shard":
                return await check_shard(scene, saver, path, data, (found, newest))
        assert found == STATES[DAMAGED]
        if kind == "fence" and isinstance(newest, ManifestError):
            assert (
                newest.path == path
            )  # it stands at a later step: for all that can be told, it was the newest checkpoint
        else:
            assert newest == STATES[DAMAGED]
        assert (await saver.verify(DAMAGED)).tensors == 3
        assert [one.step for one in await saver.checkpoints()] == [*STEPS]
        if kind == "tombstone":
            error = await restored(saver, GONE)
            assert isinstance(error, CheckpointNotFoundError if data is None else ManifestError)
            return not isinstance(error, CheckpointDeletedError)
        if kind == "fence":
            error = await restored(saver, FENCED)
            assert isinstance(error, CheckpointNotFoundError if data is None else ManifestError)
            return isinstance(error, ManifestError)
        return False


async def check_shard(scene: Scene, saver: Saver, path: str, data: bytes | None, found: tuple[Any, Any]) -> bool:
    """Damage in the data is found by a restore and by verify, damage in the header by verify."""
    hit = scene.tensors_in(path)
    others = {"a", "b", "c.0"} - hit
    whole = scene.files[path]
    starts_at = scene.data_at(path)
    only_header = data is not None and len(data) == len(whole) and data[starts_at:] == whole[starts_at:]
    error = await failure(saver, DAMAGED)
    assert type(error) is CheckpointCorruptError
    assert error.path == path
    for name in others:
        assert await restored(saver, DAMAGED, select=name) == bits(picked(name))
    if only_header:  # places come from the manifest
        assert found == (STATES[DAMAGED], STATES[DAMAGED])
        return True
    for error in found:
        assert type(error) is CheckpointCorruptError
        assert error.path == path
        assert path in str(error)
        assert set(error.tensors) <= hit
        assert error.tensors
    return True


def picked(name: str) -> Any:
    """What a restore of one tensor gives."""
    state = state_of(DAMAGED)
    return {"c": [state["c"][0], None, None, None]} if name == "c.0" else {name: state[name]}


async def failure(saver: Saver, step: int) -> Exception | None:
    """What verify says."""
    try:
        await saver.verify(step)
    except (CheckpointCorruptError, CheckpointNotFoundError) as error:
        return error
    return None
