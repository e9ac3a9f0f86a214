"""Many checkpoints under one root: what a saver does with them, in one process. Prints what each call takes as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np

from asyncsaver import KeepAll, Saver
from asyncsaver.formats import native
from asyncsaver.model.manifest import FileEntry, Manifest
from asyncsaver.model.names import new_save_id, slot_path
from measure import measured
from peers.contract import Place

LATEST, LIST, REBUILD = "latest()", "checkpoints()", "checkpoints(), state file lost"
SAVE, PRUNE, SWEEP = "save(), prunes one", "prune() of half of them", "sweep()"
CALLS = (LATEST, LIST, REBUILD, SAVE, PRUNE, SWEEP)
STATE = {"w": np.zeros(4, np.float32)}


@dataclass(frozen=True, slots=True)
class Job:
    """What to do.

    Attributes:
        place: in memory or on disk.
        count: of checkpoints.
    """

    place: Place
    count: int

    def as_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Back from it."""
        fields = json.loads(text)
        return cls(Place(**fields["place"]), fields["count"])


class Scene:
    """A root with so many checkpoints. Each call is made by a saver that is new to the root.

    Args:
        job: how many, and where.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._step = job.count
        self.taken: dict[str, dict[str, float]] = {}

    async def plant(self) -> None:
        """Copies of one that was saved: to save them all would take the square of the time."""
        async with Saver(self._job.place.url, retention=KeepAll()) as saver:
            await saver.save(STATE, step=0)
            store = saver._root.store
            async for path, data in _copies(saver, self._job.count):
                if self._job.place.kind == "disk":  # durable or not makes no difference here
                    file = self._job.place.path / "run" / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(data)
                else:
                    await store.put(path, data)

    async def call(self, what: str, call: Callable[[Saver], Awaitable[Any]], *, keep: int = 0) -> Any:
        """Measure a call.

        Args:
            what: for the table.
            call: on a saver.
            keep: how many that one keeps; 0 for all.
        """
        async with self.saver(keep) as saver:
            if what == SAVE:  # the first of a process also finds out what the store can do
                await call(saver)
            sample, result = await measured(lambda: call(saver))
        self.taken[what] = asdict(sample)
        return result

    def saver(self, keep: int = 0) -> Saver:
        """One that is new to the root."""
        if keep:
            return Saver(self._job.place.url, max_to_keep=keep)
        return Saver(self._job.place.url, retention=KeepAll())

    async def save(self, saver: Saver) -> Any:
        """One more."""
        self._step += 1
        return await saver.save(STATE, step=self._step)


async def _copies(saver: Saver, count: int) -> AsyncIterator[tuple[str, bytes]]:
    """Paths and contents of the copies of the checkpoint of step 0."""
    root = saver._root
    first = root.naming.name(0)
    manifest = (await root.reader.record(first, 0)).record
    assert isinstance(manifest, Manifest)
    there = {item.path: (await root.store.get(item.path)).data for item in (await root.store.list(f"{first}/")).objects}
    del there[slot_path(first, 0)]
    for step in range(1, count):
        name, save_id = root.naming.name(step), new_save_id(root.clock(), step)
        renamed = {path: path.replace(first, name).replace(manifest.save_id, save_id) for path in there}
        for path, data in there.items():
            yield renamed[path], bytes(data)
        copy = msgspec.structs.replace(
            manifest,
            name=name,
            step=step,
            save_id=save_id,
            sequence=manifest.sequence + step,
            files=[FileEntry(renamed[file.path], file.size, file.crc32c) for file in manifest.files],
        )
        yield slot_path(name, 0), native.encode(copy)


async def work(job: Job) -> dict[str, dict[str, float]]:
    """Do everything once. Returns what each call took."""
    scene, count = Scene(job), job.count
    await scene.plant()
    found = await scene.call(REBUILD, Saver.checkpoints)
    if len(found) != count:
        raise ValueError(f"{len(found)} checkpoints of {count} are listed")
    async with scene.saver() as saver:
        await saver.prune()  # writes the state file
    await scene.call(LATEST, Saver.latest)
    await scene.call(LIST, Saver.checkpoints)
    await scene.call(SAVE, scene.save, keep=count)
    await scene.call(SWEEP, Saver.sweep)
    await scene.call(PRUNE, Saver.prune, keep=count - count // 2)
    async with scene.saver() as saver:
        left = await saver.checkpoints()
    if len(left) != count - count // 2:
        raise ValueError(f"{len(left)} checkpoints of {count} are left after a prune of half of them")
    return scene.taken


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(Job.from_json(sys.argv[1])))))
