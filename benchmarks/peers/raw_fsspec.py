"""One object a tensor through an fsspec filesystem: what most code that saves to a cloud does."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from peers.contract import BUCKET, Peer, Place, State, each, shaped


class RawFsspec(Peer):
    """`_pipe_file` and `_cat_file`.

    Args:
        place: the server.
        at_once: how many requests.
    """

    _fs: Any

    def __init__(self, place: Place, *, at_once: int) -> None:
        super().__init__(place)
        self._at_once = at_once

    @abstractmethod
    async def _open(self) -> Any:
        """The filesystem, with its session."""

    async def connect(self) -> None:
        self._fs = await self._open()
        await self._fs._pipe_file(f"{BUCKET}/warm", b"x")

    async def save(self, state: State) -> None:
        async def put(name: str) -> None:
            await self._fs._pipe_file(f"{BUCKET}/{name}", state[name].tobytes())  # s3fs takes only bytes

        await each(state, self._at_once, put)

    async def restore(self, target: State) -> State:
        async def get(name: str) -> bytes:
            data: bytes = await self._fs._cat_file(f"{BUCKET}/{name}")
            return data

        found = await each(target, self._at_once, get)
        return {name: shaped(data, target[name]) for name, data in found.items()}
