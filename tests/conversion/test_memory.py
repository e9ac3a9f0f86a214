"""A conversion holds no more than its budget says, however large a tensor is, and finds damage in what passes in slices."""

from __future__ import annotations

import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import CheckpointCorruptError, Saver, convert
from asyncsaver.catalog.opening import open_root
from asyncsaver.conversion.convert import convert_source
from asyncsaver.conversion.request import Conversion
from asyncsaver.restore.opening import naming_of, open_source
from asyncsaver.store import Store
from asyncsaver_backends.memory import MemoryStore

from ..formats.foreign_folders import GOLDEN  # noqa: TID252 - test folders have no name
from .checkpoints import assert_same, content_of

PART = 1000
NAMES = {"native": "ckpt-1", "tensorflow": "model.ckpt-1", "huggingface": "model-1"}


def small_parts(url: str) -> MemoryStore:
    store = MemoryStore(url)
    store.capabilities = replace(store.capabilities, part_bytes=PART)
    return store


def fresh() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


async def converted(source: str, into: str, budget: int, store: Store | None = None) -> tuple[str, int, int]:
    """Convert through parts of `PART` bytes; returns the target, and the most held at once for writing and for reading."""
    url, name = fresh(), NAMES[into]
    root, found = await open_source(source, "auto", memory_budget=budget)
    try:
        root.store = store or small_parts(root.store.url)
        to = open_root(small_parts(url), naming_of(name), memory_budget=budget)
        try:
            await convert_source(root, found, to, Conversion(name=name, format=into, scratch=budget, shard_bytes=5000))
            assert root.budget.used == to.budget.used == 0
            return f"{url}/{name}", to.budget.peak, root.budget.peak
        finally:
            await to.close()
    finally:
        await root.close()


def states() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {
        "odd": rng.integers(0, 255, (7, 11, 13, 3), np.uint8),
        "wide": rng.standard_normal((3, 1999)),
        "long": rng.integers(0, 9, 5003, np.int16),
        "none": np.zeros((5, 0, 2), np.float32),
        "text": np.array(["", "ab", "ü" * 40]),
        **{f"small.{number}": rng.standard_normal(number % 7).astype(np.float32) for number in range(300)},
        "one": np.array(1j),
    }


@pytest.mark.parametrize("budget", [1, PART, 3 * PART, 100 * PART])
@pytest.mark.parametrize("into", NAMES)
async def test_tensors_larger_than_the_budget_pass_in_slices(into: str, budget: int) -> None:
    state = states()
    if into != "native":
        del state["text"]
    if into == "huggingface":
        del state["one"]
    async with Saver(fresh()) as saver:
        source = (await saver.save(state, step=1)).url
        target, written, read = await converted(source, into, budget)
        assert 0 < written <= max(budget, PART)
        assert 0 < read <= max(budget, PART)
        assert_same(await content_of(target), await content_of(source))


@pytest.mark.parametrize(
    ("source", "into"),
    [
        ("tensorflow/v2_partitioned/model.ckpt", "tensorflow"),
        ("tensorflow/extra/sliced", "tensorflow"),
        ("tensorflow/extra/sliced-v1", "tensorflow"),
        ("huggingface/sliced", "native"),
        ("dcp/ranks-20", "native"),
    ],
)
async def test_what_is_stored_in_slices_is_put_together(source: str, into: str) -> None:
    url = fresh()
    for path in GOLDEN.rglob("*"):
        name = path.relative_to(GOLDEN).as_posix()
        if path.is_file() and name.startswith(source):
            await MemoryStore(url).put(name, path.read_bytes())
    target, *_ = await converted(f"{url}/{source}", into, 50)
    assert_same(await content_of(target), await content_of(str(GOLDEN / source)))


@pytest.mark.parametrize("into", NAMES)
@pytest.mark.parametrize("source_format", ["native", "tensorflow"])
async def test_damage_is_found_in_a_tensor_that_passes_in_slices(source_format: str, into: str) -> None:
    root = fresh()
    async with Saver(root) as saver:
        source = (await saver.save({"w": np.arange(4000, dtype=np.int32), "b": np.ones(3)}, step=1)).url
        if source_format == "tensorflow":
            await convert(source, f"{root}/m", format="tensorflow")
            source = f"{root}/m"
        suffix = ".safetensors" if source_format == "native" else "data-00000-of-00001"
        store = MemoryStore(root)
        [path] = [item.path for item in (await store.list()).objects if item.path.endswith(suffix)]
        data = bytearray((await store.get(path)).data)
        data[len(data) // 2] ^= 4
        await store.put(path, bytes(data))
        with pytest.raises(CheckpointCorruptError, match=r"'w'.*not those that were written") as caught:
            await converted(source, into, PART)
        assert caught.value.tensors == ("w",)
        assert caught.value.path == path


PROGRAM = """
import asyncio, resource, sys
import asyncsaver
source, target, format = sys.argv[1:]
async def main():
    (await asyncsaver.open_checkpoint(source))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await asyncsaver.convert(source, target, format=format, memory_budget=32 * 2**20)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("into", NAMES)
async def test_the_process_itself_stays_small(into: str, tmp_path: Path) -> None:
    async with Saver(tmp_path / "a") as saver:
        source = (await saver.save({"w": np.ones((64, 2**20), np.float32)}, step=1)).url
    run = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        [sys.executable, "-c", PROGRAM, source, str(tmp_path / "b" / NAMES[into]), into],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    # The tensor has 256 MiB; the rest are threads, modules and buffers of the local store.
    assert int(run.stdout) < 100 * 1024
