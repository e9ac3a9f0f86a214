"""Manifests and state files as JSON and as protobuf, written and read, in one process. Prints what each takes as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import msgspec

from asyncsaver.formats import native, proto
from asyncsaver.model.manifest import Chunk, FileEntry, Manifest, TensorEntry
from asyncsaver.model.names import Naming, save_folder, shard_filename
from asyncsaver.model.statefile import StateFile, entry_of
from measure import Sample, measured

T = TypeVar("T")
NAME, SAVE_ID, ETAG = "ckpt-00000001", "20260101T000000Z-0000000000000001", '"9b2cf535f27731c974343645a3985328"'
CREATED = datetime(2026, 1, 1, 12, 30, 15, 123456, UTC)
TENSOR_BYTES = 64
DOCUMENTS = {"manifest": "tensor", "state file": "checkpoint"}
"""What is written and read, and of what it has many."""
STEPS = ("JSON: encode", "protobuf: encode", "JSON: decode", "protobuf: decode")


@dataclass(frozen=True, slots=True)
class Job:
    """What to write and read.

    Attributes:
        document: one of `DOCUMENTS`.
        count: how many of its things it has.
    """

    document: str
    count: int

    def as_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    def value(self) -> Manifest | StateFile:
        """The document."""
        if self.document == "manifest":
            return manifest(self.count)
        record = manifest(1)
        naming = Naming()
        return StateFile(
            entries=[
                msgspec.structs.replace(entry_of(record, ETAG), name=naming.name(step), step=step, sequence=step)
                for step in range(self.count)
            ],
            last_preserved=CREATED,
        )


def manifest(count: int) -> Manifest:
    """A model of layers with ten parameters each."""
    names = [f"model.layers.{index // 10}.block.{index % 10}.weight" for index in range(count)]
    return Manifest(
        name=NAME,
        step=1,
        slot=0,
        created=CREATED,
        writer="asyncsaver",
        save_id=SAVE_ID,
        sequence=1,
        world_size=1,
        tree=tree(names),
        tensors=dict(_tensors(names)),
        files=[FileEntry(save_folder(NAME, SAVE_ID) + shard_filename(1, 1), count * TENSOR_BYTES, "01234567")],
        total_bytes=count * TENSOR_BYTES,
        metrics={"loss": 0.25},
        metadata={"git": "4f2a9c1"},
    )


def tree(names: list[str]) -> Any:
    """Dicts in dicts, as the names have them."""
    root: dict[str, Any] = {"dict": {}}
    for name in names:
        *way, last = name.split(".")
        node = root
        for key in way:
            node = node["dict"].setdefault(key, {"dict": {}})
        node["dict"][last] = {"tensor": name}
    return root


def _tensors(names: list[str]) -> Iterator[tuple[str, TensorEntry]]:
    for index, name in enumerate(names):
        start = index * TENSOR_BYTES
        chunk = Chunk((0, 0), (4, 4), 0, start, start + TENSOR_BYTES, f"{index * 2**96:032x}")
        yield name, TensorEntry("float32", (4, 4), (chunk,))


def readers(value: Manifest | StateFile) -> tuple[Callable[[bytes], object], Callable[[bytes], object]]:
    """What reads the document from JSON and from protobuf."""
    if isinstance(value, StateFile):
        return partial(native.decode_state, where="state"), partial(proto.decode_state, where="state")
    place: Any = {"name": NAME, "slot": 0}
    return partial(native.decode_record, **place), partial(proto.decode_manifest, where="manifest", **place)


async def work(job: Job) -> dict[str, dict[str, float]]:
    """Write and read the document in both encodings, in a thread as a save does. Returns what each step took, and the size."""
    value = job.value()
    taken = []
    documents = []
    for encode in (native.encode, proto.encode):
        sample, data = await _in_a_thread(partial(encode, value))
        taken.append(asdict(sample) | {"bytes": len(data)})
        documents.append(data)
    for decode, data in zip(readers(value), documents, strict=True):
        sample, read = await _in_a_thread(partial(decode, data))
        if read != value:
            raise ValueError(f"{job.document} of {job.count}: something else was read than was written")
        taken.append(asdict(sample) | {"bytes": len(data)})
    return dict(zip(STEPS, taken, strict=True))


async def _in_a_thread(call: Callable[[], T]) -> tuple[Sample, T]:
    return await measured(lambda: asyncio.to_thread(call))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(Job(**json.loads(sys.argv[1]))))))
