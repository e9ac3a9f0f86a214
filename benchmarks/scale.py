"""How the cost grows with the number of tensors and of checkpoints. Prints Markdown tables.

python benchmarks/scale.py
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from asyncsaver import KeepAll, Saver


async def seconds(call: Callable[[], Awaitable[object]]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def tensors(counts: list[int], folder: Path) -> None:
    """Many small tensors, on the local disk, next to safetensors alone (which keeps no structure, and does not fsync)."""
    print(
        "| tensors of 1 KiB | save, s | restore, s | restore into a target, s | safetensors save, s | load, s | objects |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in counts:
        state = {f"layer{i // 100}.{i % 100}": np.full(256, i, np.float32) for i in range(count)}
        root = folder / f"tensors-{count}"
        async with Saver(root) as saver:
            save = await seconds(lambda: saver.save(state, step=1))
            restore = await seconds(saver.restore)
            into = await seconds(lambda: saver.restore(state))
        began = time.perf_counter()
        save_file(state, folder / "plain.safetensors")
        plain_save = time.perf_counter() - began
        began = time.perf_counter()
        load_file(folder / "plain.safetensors")
        plain_load = time.perf_counter() - began
        objects = sum(path.is_file() for path in root.rglob("*"))
        print(
            f"| {count:,} | {save:.2f} | {restore:.2f} | {into:.2f} | {plain_save:.2f} | {plain_load:.2f} | {objects} |"
        )


async def checkpoints(counts: list[int]) -> None:
    """Many checkpoints under one root, in memory: what the catalog costs, not the store."""
    print("| checkpoints | one more save, s | list, s | latest, s | list with the state file lost, s | prune to 5, s |")
    print("|---|---|---|---|---|---|")
    for count in counts:
        url = f"memory://scale-{count}"
        state = {"w": np.zeros(4)}
        async with Saver(url, retention=KeepAll()) as saver:
            for step in range(count):
                await saver.save(state, step=step)
            save = await seconds(lambda: saver.save(state, step=count))
            listed = await seconds(saver.checkpoints)
        async with Saver(url, retention=KeepAll()) as saver:
            latest = await seconds(saver.latest)
        async with Saver(url, retention=KeepAll()) as saver:
            await saver._root.store.delete(["checkpoint.json"])
            rebuilt = await seconds(saver.checkpoints)
        async with Saver(url, max_to_keep=5) as saver:
            prune = await seconds(saver.prune)
        print(f"| {count:,} | {save:.4f} | {listed:.4f} | {latest:.4f} | {rebuilt:.4f} | {prune:.3f} |")


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--checkpoints", type=int, nargs="*", default=[10, 100, 1_000])
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="asyncsaver-bench-", dir=Path.cwd()))
    try:
        await tensors(arguments.tensors, folder)
    finally:
        shutil.rmtree(folder)
    print()
    await checkpoints(arguments.checkpoints)


if __name__ == "__main__":
    asyncio.run(main())
