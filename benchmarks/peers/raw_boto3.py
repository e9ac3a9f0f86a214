"""One object a tensor through boto3, in threads."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from peers.contract import BUCKET, REGION, Peer, Place, State, in_threads, raw


class RawBoto3(Peer):
    """`put_object` and `get_object`.

    Args:
        place: the endpoint.
        threads: how many.
    """

    def __init__(self, place: Place, *, threads: int) -> None:
        super().__init__(place)
        self._threads = threads
        config = Config(max_pool_connections=threads, s3={"addressing_style": "path"})
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=place.endpoint,
            region_name=REGION,
            aws_access_key_id="bench",
            aws_secret_access_key="bench",
            config=config,
        )

    async def connect(self) -> None:
        self._client.put_object(Bucket=BUCKET, Key="warm", Body=b"x")

    async def save(self, state: State) -> None:
        def put(name: str) -> None:
            self._client.put_object(Bucket=BUCKET, Key=name, Body=state[name].tobytes())

        await in_threads(state, self._threads, put)

    async def restore(self, target: State) -> State:
        def get(name: str) -> None:
            body = self._client.get_object(Bucket=BUCKET, Key=name)["Body"]
            left = raw(target[name])
            while left:
                count = body.readinto(left)
                if not count:
                    raise EOFError(name)
                left = left[count:]

        await in_threads(target, self._threads, get)
        return target
