"""No object is made larger than its store takes, and what cannot be is refused before anything is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncsaver.errors import InvalidStateError
from asyncsaver.store import Capabilities

from ..doubles.scripted import ScriptedStore  # noqa: TID252 - no name to import by
from ..doubles.world import World  # noqa: TID252

LIMIT = 10_000


def small_store(world: World) -> ScriptedStore:
    return world.store(capabilities=Capabilities(True, True, max_object_bytes=LIMIT, part_bytes=1000))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("nbytes", [LIMIT - 20, LIMIT, 10 * LIMIT])
async def test_a_tensor_that_is_too_large_is_refused_by_name(nbytes: int, background: bool) -> None:
    world = World()
    store = small_store(world)
    state = {"small": np.zeros(3), "model": {"huge": np.zeros(nbytes, np.uint8)}}
    async with world.saver(store) as saver:
        save: Any = saver.save_in_background if background else saver.save
        with pytest.raises(InvalidStateError) as caught:
            await save(state, step=1)
    for words in ("model.huge", str(nbytes), str(LIMIT), world.url):
        assert words in str(caught.value)
    assert store.calls == []


async def test_what_fits_is_saved_in_shards_that_fit() -> None:
    world = World()
    rng = np.random.default_rng(1)
    state = {f"t{size}": rng.integers(0, 255, size, np.uint8) for size in (9_000, 4_000, 4_000 + 1, 4_000 + 2, 10)}
    async with world.saver(small_store(world), shard_bytes=10**9) as saver:
        checkpoint = await saver.save(state, step=1)
        assert checkpoint.stats is not None
        assert checkpoint.stats.files > 2
        restored = await saver.restore()
    assert max(map(len, (await world.objects()).values())) <= LIMIT
    for name, tensor in state.items():
        np.testing.assert_array_equal(restored[name], tensor)
