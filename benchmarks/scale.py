"""How the cost grows with the number of checkpoints under one root. Prints a table in Markdown.

python benchmarks/scale.py
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np

from asyncsaver import KeepAll, Saver


async def seconds(call: Callable[[], Awaitable[object]]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def checkpoints(counts: list[int]) -> None:
    """In memory: what the catalog costs, not the store."""
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
    parser.add_argument("--checkpoints", type=int, nargs="*", default=[10, 100, 1_000])
    arguments = parser.parse_args()
    await checkpoints(arguments.checkpoints)


if __name__ == "__main__":
    asyncio.run(main())
