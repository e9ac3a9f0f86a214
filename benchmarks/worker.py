"""One peer does one thing, in a process of its own. Reads a job as JSON from its argument, prints the result as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Any

import s3_endpoint
from measure import drop_caches, measured, warm_caches
from peers.contract import Peer, Place, What
from peers.listing import PEERS
from states import Shape


@dataclass(frozen=True, slots=True)
class Job:
    """What to do.

    Attributes:
        peer: by name.
        what: what to measure.
        place: where.
        shape: of the state.
        rehearsals: how often to do it beforehand, unmeasured.
    """

    peer: str
    what: What
    place: Place
    shape: Shape
    rehearsals: int = 0

    def as_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Back from it."""
        fields = json.loads(text)
        return cls(**{**fields, "place": Place(**fields["place"]), "shape": Shape(**fields["shape"])})


async def work(job: Job) -> dict[str, Any]:
    """Do it. Returns what was measured, and what the endpoint counted meanwhile."""
    peer = PEERS[job.peer].make(job.place)
    try:
        return await (_save if job.what == "save" else _restore)(job, peer)
    finally:
        await peer.close()


async def _save(job: Job, peer: Peer) -> dict[str, Any]:
    state = job.shape.state()
    await peer.prepare_save(state)
    for _ in range(job.rehearsals):
        await peer.save(state)
        await peer.settle()
    if job.place.kind == "disk":
        os.sync()
    before = _counts(job.place)
    sample, _ = await measured(lambda: peer.save(state))
    after = _counts(job.place)
    await peer.settle()
    return {**asdict(sample), **_since(before, after), **peer.notes()}


async def _restore(job: Job, peer: Peer) -> dict[str, Any]:
    target = job.shape.target()
    await peer.prepare_restore(target)
    if job.place.kind == "disk":
        (warm_caches if job.what == "restore, warm" else drop_caches)(job.place.path)
    elif job.place.kind == "memory":  # it is empty in every process
        await peer.prepare_save({})
        await peer.save(job.shape.state())
    before = _counts(job.place)
    sample, restored = await measured(lambda: peer.restore(target))
    after = _counts(job.place)
    job.shape.check(restored)
    return {**asdict(sample), **_since(before, after), **peer.notes()}


def _counts(place: Place) -> dict[str, Any]:
    return s3_endpoint.stats(place.endpoint) if place.kind == "s3" else {"requests": {}, "cpu": 0.0}


def _since(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What the endpoint did meanwhile: requests by kind, and the CPU seconds that they took it."""
    counts = {kind: count - before["requests"].get(kind, 0) for kind, count in after["requests"].items()}
    requests = {kind: count for kind, count in counts.items() if count}
    return {"requests": requests, "endpoint_cpu": after["cpu"] - before["cpu"]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(Job.from_json(sys.argv[1])))))
