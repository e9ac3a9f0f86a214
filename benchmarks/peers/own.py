"""asyncsaver, as a trainer would use it."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncsaver import Checkpoint, PendingSave, Saver
from peers.contract import Peer, Place, State


class AsyncSaver(Peer):
    """`Saver.save` and `Saver.restore` into a target.

    Args:
        place: where to.
        engine: as for `Saver`.
        memory_budget: in MiB; None for the default.
        format: as for `Saver`.
        background: whether a save counts as done when the state is staged.
    """

    def __init__(
        self,
        place: Place,
        *,
        engine: str = "auto",
        memory_budget: int | None = None,
        background: bool = False,
        format: str = "native",  # noqa: A002 - as `Saver` calls it
    ) -> None:
        super().__init__(place)
        self._background = background
        self._pending: PendingSave | None = None
        self._last: Checkpoint | None = None
        self._step = 0
        options: dict[str, Any] = {"engine": engine, "format": format, "max_to_keep": 2}
        if memory_budget is not None:
            options["memory_budget"] = memory_budget * 2**20
        self._saver = Saver(place.url, storage_options=place.storage_options, **options)

    async def prepare_save(self, state: State) -> None:
        # The first save of a root also finds out what its store can do.
        await self._saver.save({"w": np.zeros(8, np.float32)}, step=0)

    async def prepare_restore(self, target: State) -> None:
        await self._saver.latest()

    async def save(self, state: State) -> None:
        self._step += 1
        if self._background:
            self._pending = await self._saver.save_in_background(state, step=self._step)
        else:
            self._last = await self._saver.save(state, step=self._step)

    async def settle(self) -> None:
        if self._pending is not None:
            await self._pending

    async def restore(self, target: State) -> State:
        await self._saver.restore(target)
        return target

    async def close(self) -> None:
        await self._saver.close()

    def notes(self) -> dict[str, Any]:
        if self._last is None or self._last.stats is None:
            return {}
        return {"shards": self._last.stats.files, "peak_budget": self._last.stats.peak_memory_bytes}
