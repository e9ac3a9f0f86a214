"""`torch.save`: what most trainers begin with."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path
from typing import IO

import torch

from peers.contract import Peer, State, fsync_tree


class TorchFile(Peer):
    """`torch.save` and fsync; `torch.load`."""

    @property
    def _file(self) -> Path:
        return self.place.path / "plain.pt"

    async def save(self, state: State) -> None:
        def write() -> None:
            with self._file.open("wb") as file:
                _dump(state, file)
                file.flush()
                os.fsync(file.fileno())
            fsync_tree(self.place.path)

        await asyncio.to_thread(write)

    async def restore(self, target: State) -> State:
        def read() -> State:
            with self._file.open("rb") as file:
                return _load(file)

        return await asyncio.to_thread(read)


class TorchObject(Peer):
    """Serialised in memory, sent by obstore as one object."""

    async def save(self, state: State) -> None:
        import obstore  # noqa: PLC0415 - not needed on disk

        from peers.raw_obstore import client  # noqa: PLC0415

        buffer = io.BytesIO()
        await asyncio.to_thread(_dump, state, buffer)
        await obstore.put_async(client(self.place), "plain.pt", buffer.getvalue())

    async def restore(self, target: State) -> State:
        import obstore  # noqa: PLC0415 - not needed on disk

        from peers.raw_obstore import client  # noqa: PLC0415

        answer = await obstore.get_async(client(self.place), "plain.pt")
        data = await answer.bytes_async()
        return await asyncio.to_thread(lambda: _load(io.BytesIO(bytes(data))))


def _dump(state: State, file: IO[bytes]) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, file)


def _load(file: IO[bytes]) -> State:
    return {name: tensor.numpy() for name, tensor in torch.load(file, weights_only=True).items()}
