"""One object a tensor through obstore: the most that a client can get out of a store."""

from __future__ import annotations

from typing import Any

import obstore
from obstore.store import S3Store

from peers.contract import BUCKET, REGION, Peer, Place, State, each, raw, shaped


class RawObstore(Peer):
    """Plain PUTs of the arrays' own memory, and plain GETs.

    Args:
        place: the endpoint.
        at_once: how many requests.
    """

    def __init__(self, place: Place, *, at_once: int) -> None:
        super().__init__(place)
        self._at_once = at_once
        self._store = client(place)

    async def connect(self) -> None:
        await obstore.put_async(self._store, "warm", b"x", use_multipart=False)

    async def save(self, state: State) -> None:
        async def put(name: str) -> None:
            await obstore.put_async(self._store, name, raw(state[name]), use_multipart=False)

        await each(state, self._at_once, put)

    async def restore(self, target: State) -> State:
        async def get(name: str) -> Any:
            return await obstore.get_range_async(self._store, name, start=0, length=target[name].nbytes)

        found = await each(target, self._at_once, get)
        return {name: shaped(data, target[name]) for name, data in found.items()}


def client(place: Place) -> S3Store:
    """A client that does not sign bodies."""
    return S3Store(
        BUCKET,
        endpoint=place.endpoint,
        region=REGION,
        access_key_id="bench",
        secret_access_key="bench",
        unsigned_payload=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
