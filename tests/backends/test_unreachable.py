"""A server that is not there: the error says where it was looked for, and nothing that is secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asyncsaver.errors import StoreError
from asyncsaver.store import Store
from asyncsaver_backends.azure import AzureStore
from asyncsaver_backends.gcs import GcsStore
from asyncsaver_backends.s3 import S3Store

SECRET = "aHVzaCBodXNoLCBub3QgdG8gYmUgc2VlbiBieSBhbnlib2R5"


def s3(address: str) -> Store:
    options = {"key": "key", "secret": SECRET, "endpoint_url": f"http://user:{SECRET}@{address}"}
    return S3Store("s3://bucket/run", storage_options=options)


def gcs(address: str) -> Store:
    return GcsStore(
        "gs://bucket/run", storage_options={"token": "anon", "endpoint_url": f"http://user:{SECRET}@{address}"}
    )


def azure(address: str) -> Store:
    connection = f"AccountName=account;AccountKey={SECRET};BlobEndpoint=http://{address}/account;"
    return AzureStore("az://container/run", storage_options={"connection_string": connection})


@pytest.mark.parametrize("kind", [s3, gcs, azure])
async def test_the_error_names_host_and_port(no_leaks: None, unused_port: int, kind: Callable[[str], Store]) -> None:
    async with kind(f"127.0.0.1:{unused_port}") as store:
        with pytest.raises(StoreError, match=rf"/run/a: the connection to 127\.0\.0\.1:{unused_port} failed") as caught:
            await store.get("a")
    assert caught.value.retryable
    assert SECRET not in str(caught.value)
