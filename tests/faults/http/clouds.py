"""The three clouds behind a misbehaving proxy, and the states that are saved there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import boto3
import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.store.registry import open_store

from ...servers.kinds import Root  # noqa: TID252 - test folders are no packages
from .proxy import Proxy

READ_TIMEOUT = 1.5
"""Seconds after which the clients give up on an answer, in place of a minute."""
LARGE = 17 * 2**20
"""More than one part, in bytes, on every cloud; see `Cloud.saver_in_parts`."""
CLOUDS = {
    "s3": "S3",
    "gcs": "GCS",
    "azure": "Azure",
    "s3-obstore": "S3 through obstore",
    "azure-obstore": "Azure through obstore",
}
"""What tests call the clouds, with the engine where it is not fsspec; and what reports call them."""


def state_of(number: int, nbytes: int = 4000) -> dict[str, Any]:
    """A state that tells which one it is, in every element."""
    return {"weights": np.full(nbytes // 8, number, dtype=np.int64), "step": number}


def number_of(state: Mapping[str, Any]) -> int:
    """Which state it is; fails when it is not whole."""
    number = int(state["step"])
    weights = np.asarray(state["weights"])
    assert weights.size
    assert (weights == number).all()
    return number


@dataclass(frozen=True, slots=True)
class Cloud:
    """A fresh root, seen through the proxy and past it.

    Attributes:
        proxy: in between.
        direct: the root, past the proxy.
        options: storage options that lead through the proxy.
        name: for reports.
        engine: that the savers under test use; the honest ones use fsspec.
    """

    proxy: Proxy
    direct: Root
    options: Mapping[str, Any]
    name: str
    engine: str = "fsspec"

    def below(self, name: str) -> Cloud:
        """A fresh root of its own, in the same bucket."""
        return replace(self, direct=replace(self.direct, url=f"{self.direct.url}/{name}"))

    def saver(self, **arguments: Any) -> Saver:
        """A saver whose requests go through the proxy."""
        return Saver(self.direct.url, storage_options=self.options, engine=self.engine, **arguments)

    def saver_in_parts(self, **arguments: Any) -> Saver:
        """Likewise, one that sends in parts whatever is larger than one."""
        store = open_store(self.direct.url, storage_options=self.options, engine=self.engine)
        store.capabilities = replace(store.capabilities, put_bytes=0)
        return Saver(store, **arguments)

    def honest_saver(self, **arguments: Any) -> Saver:
        """A saver whose requests go past the proxy."""
        return Saver(self.direct.url, storage_options=self.direct.storage_options, engine="fsspec", **arguments)

    def unfinished_uploads(self) -> list[str]:
        """Keys of multipart uploads that nobody has completed or aborted; none where they cannot be asked for."""
        if self.proxy.scheme != "s3":
            return []
        options = self.direct.storage_options
        client = boto3.client(
            "s3",
            endpoint_url=options["endpoint_url"],
            region_name="us-east-1",
            aws_access_key_id=options["key"],
            aws_secret_access_key=options["secret"],
        )
        try:
            answer = client.list_multipart_uploads(Bucket=self.direct.url.split("/")[2])
        finally:
            client.close()
        return [upload["Key"] for upload in answer.get("Uploads", ())]


def _through(proxy: Proxy, root: Root, read_timeout: float | None) -> dict[str, Any]:
    options = dict(root.storage_options)
    if proxy.scheme == "az":
        options["connection_string"] = options["connection_string"].replace(proxy.upstream, proxy.url)
        timeout: dict[str, Any] = {"read_timeout": read_timeout}
    elif proxy.scheme == "s3":
        options["endpoint_url"] = proxy.url
        timeout = {"config_kwargs": {"read_timeout": read_timeout}}
    else:
        options["endpoint_url"] = proxy.url
        timeout = {"requests_timeout": aiohttp.ClientTimeout(sock_connect=10, sock_read=read_timeout)}
    return {**options, **({} if read_timeout is None else timeout)}


@asynccontextmanager
async def cloud_of(
    request: pytest.FixtureRequest, *, read_timeout: float | None = READ_TIMEOUT
) -> AsyncIterator[Cloud]:
    """The cloud that is the fixture's parameter (one of `CLOUDS`), behind a proxy; see `behind_proxy`."""
    cloud, _, engine = request.param.partition("-")
    root = request.getfixturevalue(f"{cloud}_root")
    server = request.getfixturevalue(f"{cloud}_server")
    async with behind_proxy(root, server.endpoint_url, read_timeout=read_timeout) as plain:
        yield replace(plain, name=CLOUDS[request.param], engine=engine or "fsspec")


@asynccontextmanager
async def behind_proxy(root: Root, upstream: str, *, read_timeout: float | None = READ_TIMEOUT) -> AsyncIterator[Cloud]:
    """Put a proxy before the server of a root.

    Args:
        root: past the proxy.
        upstream: the server's URL.
        read_timeout: of the clients, in seconds; None for the stores' own.
    """
    scheme = root.url.partition("://")[0]
    async with Proxy(scheme, upstream).running() as proxy:
        yield Cloud(proxy, root, _through(proxy, root, read_timeout), name=scheme)
