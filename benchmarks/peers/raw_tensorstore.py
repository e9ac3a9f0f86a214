"""One object a tensor through tensorstore's key-value store, which Orbax builds on."""

from __future__ import annotations

from typing import Any

import tensorstore as ts

from peers.contract import BUCKET, REGION, Peer, Place, State, each, shaped


class RawTensorstore(Peer):
    """Its S3 driver, or its file driver, which syncs.

    Args:
        place: the endpoint, or a folder.
        at_once: how many requests.
    """

    _kv: Any

    def __init__(self, place: Place, *, at_once: int) -> None:
        super().__init__(place)
        self._at_once = at_once

    async def connect(self) -> None:
        if self.place.kind == "s3":
            spec = {
                "driver": "s3",
                "bucket": BUCKET,
                "path": "ts/",
                "endpoint": self.place.endpoint,
                "aws_region": REGION,
                "aws_credentials": {"type": "anonymous"},
                "context": {"s3_request_concurrency": {"limit": self._at_once}},
            }
        else:
            spec = {
                "driver": "file",
                "path": f"{self.place.folder}/ts/",
                "context": {"file_io_concurrency": {"limit": self._at_once}},
            }
        self._kv = await ts.KvStore.open(spec)
        await self._kv.write("warm", b"x")

    async def save(self, state: State) -> None:
        async def put(name: str) -> None:
            await self._kv.write(name, state[name].tobytes())  # it takes only bytes

        await each(state, self._at_once, put)

    async def restore(self, target: State) -> State:
        async def get(name: str) -> Any:
            return (await self._kv.read(name)).value

        found = await each(target, self._at_once, get)
        return {name: shaped(data, target[name]) for name, data in found.items()}
