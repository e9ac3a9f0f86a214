"""One safetensors file: the format alone, without a saver."""

from __future__ import annotations

import asyncio
from pathlib import Path

import obstore
from safetensors.numpy import load, load_file, save, save_file

from peers.contract import Peer, State, fsync_tree
from peers.raw_obstore import client


class SafetensorsFile(Peer):
    """`save_file` and fsync."""

    @property
    def _file(self) -> Path:
        return self.place.path / "plain.safetensors"

    async def save(self, state: State) -> None:
        def write() -> None:
            save_file(dict(state), self._file)
            fsync_tree(self.place.path)

        await asyncio.to_thread(write)

    async def restore(self, target: State) -> State:
        return await asyncio.to_thread(load_file, self._file)


class SafetensorsObject(Peer):
    """Serialised in memory, sent by obstore as one object."""

    async def save(self, state: State) -> None:
        data = await asyncio.to_thread(save, dict(state))
        await obstore.put_async(client(self.place), "plain.safetensors", data)

    async def restore(self, target: State) -> State:
        answer = await obstore.get_async(client(self.place), "plain.safetensors")
        data = await answer.bytes_async()
        return await asyncio.to_thread(lambda: load(bytes(data)))
