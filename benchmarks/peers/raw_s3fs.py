"""One object a tensor through s3fs: what most fsspec code does."""

from __future__ import annotations

from typing import Any

import s3fs

from peers.contract import BUCKET, Peer, Place, State, each, shaped


class RawS3fs(Peer):
    """`_pipe_file` and `_cat_file`.

    Args:
        place: the endpoint.
        at_once: how many requests.
    """

    _fs: Any

    def __init__(self, place: Place, *, at_once: int) -> None:
        super().__init__(place)
        self._at_once = at_once

    async def connect(self) -> None:
        self._fs = s3fs.S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            config_kwargs={"max_pool_connections": self._at_once},
            **self.place.s3fs_options,
        )
        await self._fs.set_session()
        await self._fs._pipe_file(f"{BUCKET}/warm", b"x")

    async def save(self, state: State) -> None:
        async def put(name: str) -> None:
            await self._fs._pipe_file(f"{BUCKET}/{name}", state[name].tobytes())  # it takes only bytes

        await each(state, self._at_once, put)

    async def restore(self, target: State) -> State:
        async def get(name: str) -> bytes:
            data: bytes = await self._fs._cat_file(f"{BUCKET}/{name}")
            return data

        found = await each(target, self._at_once, get)
        return {name: shaped(data, target[name]) for name, data in found.items()}

    async def close(self) -> None:
        await self._fs._s3creator.__aexit__(None, None, None)
