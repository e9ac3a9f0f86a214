"""Run by itself, with little memory: hostile manifests, each restored, verified, opened and listed through a `Saver`.

Prints one JSON object: case → what came of it. Anything but one of our errors, or a state, ends the process.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import AsyncSaverError, Saver
from asyncsaver.formats.native import seal

Json = Any
Edit = Callable[[Json], Json]
MEBIBYTE = 2**20
ROOM = 200 * MEBIBYTE
NAME = "ckpt-00000001"


def fields(**changed: Json) -> Edit:
    """Replace fields of the manifest."""
    return lambda manifest: manifest | changed


def tensor(dtype: str, shape: list[int], *chunks: Json, claimed: int | None = None) -> Edit:
    """Another tensor ``w``; the shard is said to have so many bytes."""

    def edit(manifest: Json) -> Json:
        [file] = manifest["files"]
        files = [file | ({} if claimed is None else {"size": claimed})]
        return manifest | {"tensors": {"w": {"dtype": dtype, "shape": shape, "chunks": [*chunks]}}, "files": files}

    return edit


def chunk(offset: list[int], shape: list[int], stop: int, start: int = 0) -> Json:
    """A chunk in the only file."""
    return [offset, shape, 0, start, stop, "0" * 32]


def nested(opening: str, closing: str, depth: int) -> Json:
    """A tree that deep; a placeholder, since no encoder writes it."""
    return {"raw": opening * depth + "1" + closing * depth}


def in_file(path: str) -> Edit:
    """The shard is said to be elsewhere."""
    return lambda manifest: manifest | {"files": [manifest["files"][0] | {"path": path}]}


PETABYTE = 2**50
CASES: dict[str, Edit] = {
    "a petabyte": tensor("uint8", [PETABYTE], chunk([0], [PETABYTE], PETABYTE), claimed=PETABYTE),
    "64 GiB, which a machine may overcommit": tensor("uint8", [2**36], chunk([0], [2**36], 2**36), claimed=2**36),
    "a petabyte, said to be in the file that there is": tensor("uint8", [PETABYTE], chunk([0], [PETABYTE], PETABYTE)),
    "a petabyte, of which no byte is stored": tensor("uint8", [PETABYTE]),
    "a petabyte in a chunk of a byte": tensor("uint8", [PETABYTE], chunk([0], [1], 1)),
    "no elements, but a long axis": tensor("uint8", [2**40, 0]),
    "no elements, and axes that overflow together": tensor("uint8", [2**40, 2**40, 0]),
    "axes that overflow": tensor("float64", [2**32, 2**32], chunk([0, 0], [2**32, 2**32], 8)),
    "many axes": tensor("uint8", [1] * 200, chunk([0] * 200, [1] * 200, 1)),
    "wide elements": tensor("|V2147483647", [1], chunk([0], [1], 2**31 - 1), claimed=2**31 - 1),
    "wide elements, none of them": tensor("<U536870911", [0]),
    "offset beyond": tensor("uint8", [8], chunk([2**62], [8], 8)),
    "negative": tensor("uint8", [8], chunk([-8], [8], 8)),
    "bytes beyond": tensor("uint8", [8], chunk([0], [8], 2**62 + 8, 2**62)),
    "one row many times": tensor("uint8", [40, 8], *(chunk([row, 0], [1, 8], 8) for row in range(40))),
    "a large scalar": fields(tree={"scalar": {"dtype": "|S2000000000", "data": ""}}),
    "a scalar with a large element": fields(tree={"scalar": {"dtype": "|V2147483647", "data": "AA=="}}),
    "a long integer": fields(tree={"int": "9" * 100_000}),
    "a long hexadecimal integer": fields(tree={"int": "0x" + "f" * 1_000_000}),
    "a huge number": fields(tree={"raw": "9" * 100_000}),
    "a huge exponent": fields(tree={"raw": "1e999999999"}),
    "huge sequence": fields(sequence=2**64),
    "the end of time": fields(created="9999-12-31T23:59:59-23:59"),
    "the beginning of time": fields(created="0001-01-01T00:00:00+23:59"),
    "lists, 100,000 deep": fields(tree=nested("[", "]", 100_000)),
    "nodes, 100,000 deep": fields(tree=nested('{"list":[', "]}", 100_000)),
    "nodes, 300 deep": fields(tree=nested('{"list":[', "]}", 300)),
    "metadata, 100,000 deep": fields(metadata=nested("[", "]", 100_000)),
    "an unknown field, 100,000 deep": fields(unknown=nested('{"a":', "}", 100_000)),
    "doubled keys": fields(tree={"raw": '{"dict":{"w":1,"w":2},"dict":{"w":{"tensor":"w"}}}'}),
    "a doubled name": fields(tree={"raw": '1,"name":"../x","step":5'}),
    "an unpaired surrogate": fields(writer={"raw": '"\\ud800"'}),
    "a long name": fields(tree={"dict": {"x" * 100_000: {"tensor": "w"}}}),
    "a file above the root": in_file("../secret"),
    "an absolute file": in_file("/etc/passwd"),
    "a file with a NUL": in_file(f"{NAME}/a\x00b"),
    "a long path": in_file("a/" * 50_000 + "b"),
    "the state file as a shard": in_file("checkpoint.json"),
    "a file of another checkpoint": in_file("ckpt-00000002/20260101T000000Z-00c0ffee00c0ffee/x.safetensors"),
    "many files": lambda manifest: manifest | {"files": manifest["files"] * 20_000},
    "many chunks of one row": tensor("uint8", [1, 2000], *(chunk([0, column], [1, 1], 1) for column in range(2000))),
}


def document(manifest: Json, edit: Edit) -> bytes:
    """The manifest, edited, with a checksum that fits and with raw JSON where that was asked for."""
    raw: list[str] = []

    def mark(value: Json) -> Json:
        if isinstance(value, dict) and value.keys() == {"raw"}:
            raw.append(value["raw"])
            return f"raw {len(raw) - 1} raw"
        return value

    edited = {key: mark(value) for key, value in edit(manifest).items() if key != "checksum"}
    text = json.dumps(edited)
    for number, instead in enumerate(raw):
        text = text.replace(f'"raw {number} raw"', instead)
    return seal(text.encode())


async def outcome(call: Callable[[], Awaitable[object]]) -> str:
    """The name of the error that came out, or of the type."""
    try:
        return type(await call()).__name__
    except AsyncSaverError as error:
        return type(error).__name__


async def read_all(saver: Saver) -> None:
    """Open the checkpoint, and read each tensor, and an element of each."""
    async with await saver.open(1) as reader:
        for name, info in reader.tensors.items():
            if all(info.shape):
                await reader.read(name, tuple(0 for _ in info.shape))
            await reader.read(name)


async def tour(folder: Path) -> list[str]:
    """Everything that reads."""
    async with Saver(folder, read_only=True) as saver:
        target = {"w": np.zeros(8, np.uint8)}
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: saver.restore(step=1),
            saver.restore,
            lambda: saver.restore(target, step=1),
            lambda: saver.restore(step=1, select="w"),
            lambda: saver.verify(1),
            lambda: read_all(saver),
            saver.checkpoints,
        ]
        return [await outcome(call) for call in calls]


def limit_memory() -> None:
    """From here on there is a little more than what is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM,) * 2)


async def main(folder: Path) -> dict[str, list[str]]:
    """Go through all cases."""
    async with Saver(folder) as saver:
        await saver.save({"w": np.arange(8, dtype=np.uint8)}, step=1)
    path = folder / NAME / "manifest.json"
    manifest = json.loads(path.read_bytes())
    found = {"nothing wrong": await tour(folder)}  # also starts all threads that there will be
    limit_memory()
    for case, edit in CASES.items():
        path.write_bytes(document(manifest, edit))
        began = time.process_time()
        found[case] = await tour(folder)
        assert time.process_time() - began < 20, f"{case} keeps a reader busy"
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
