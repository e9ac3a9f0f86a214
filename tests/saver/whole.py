"""States that tell by themselves whether they came back whole, and the check that a root holds nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncsaver import Checkpoint

from .place import Place


def state_of(number: int) -> dict[str, Any]:
    return {"x": np.full(2000, number), "y": [np.full(300, -number), number]}


async def check_whole(place: Place, **arguments: Any) -> list[Checkpoint]:
    """Every checkpoint is whole, and nothing is there that belongs to none."""
    async with place.saver(**arguments) as saver:
        checkpoints = await saver.checkpoints()
        for one in checkpoints:
            async with await saver.open(one.step) as reader:
                restored = await reader.restore()
            assert restored["y"][1] == (restored["x"][0]) == -restored["y"][0][0]
            assert len(set(restored["x"])) == len(set(restored["y"][0])) == 1
        saves = {(one.name, one.save_id) for one in checkpoints}
    left = {tuple(path.split("/")[:2]) for path in await place.paths() if path.count("/") == 2}
    assert left == saves
    return checkpoints
