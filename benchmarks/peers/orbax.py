"""Orbax, which JAX users have; on disk only."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from peers.contract import Peer, State, fsync_tree


class Orbax(Peer):
    """`PyTreeCheckpointer`, and a sync of what it has written, since it does none."""

    _checkpointer: Any

    async def connect(self) -> None:
        self._checkpointer = ocp.PyTreeCheckpointer()

    async def prepare_save(self, state: State) -> None:
        await self.connect()
        warm = {"w": np.zeros(8, np.float32)}
        await asyncio.to_thread(self._checkpointer.save, self.place.path.absolute() / "warm", warm)

    async def save(self, state: State) -> None:
        def write() -> None:
            folder = self.place.path.absolute() / "orbax"
            self._checkpointer.save(folder, dict(state))
            fsync_tree(folder)

        await asyncio.to_thread(write)

    async def restore(self, target: State) -> State:
        def read() -> State:
            kinds = dict.fromkeys(target, ocp.RestoreArgs(restore_type=np.ndarray))
            found: State = self._checkpointer.restore(self.place.path.absolute() / "orbax", restore_args=kinds)
            return found

        return await asyncio.to_thread(read)

    async def close(self) -> None:
        self._checkpointer.close()
