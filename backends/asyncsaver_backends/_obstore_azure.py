"""Azure Blob Storage through obstore."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from obstore.exceptions import BaseError
from obstore.store import AzureStore as AzureClient

from asyncsaver.errors import StoreError
from asyncsaver.store.contract import Capabilities
from asyncsaver_backends._cloud import parse_root
from asyncsaver_backends._obstore_azure_options import AzureOptions, azure_options
from asyncsaver_backends._obstore_clients import Clients, http_options
from asyncsaver_backends._obstore_resend import retry_config
from asyncsaver_backends._obstore_store import CONCURRENCY, PART_BYTES, PUT_BYTES, ObstoreStore

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureCredential, ClientConfig

SCOPE = "https://storage.azure.com/.default"

CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=50_000 * PART_BYTES,  # Azure takes fifty thousand blocks
    part_bytes=PART_BYTES,
    concurrency=CONCURRENCY,
    scattered=True,
    put_bytes=PUT_BYTES,
)


class ObstoreAzureStore(ObstoreStore):
    """A prefix of an Azure Blob Storage container.

    Args:
        url: ``az://container/prefix`` or ``abfs://container@account.dfs.core.windows.net/prefix``.
        storage_options: as for `adlfs.AzureBlobFileSystem`.
    """

    def __init__(self, url: str, *, storage_options: Mapping[str, object] | None = None) -> None:
        root = parse_root(url, account_allowed=True)
        super().__init__(url, root, CAPABILITIES)
        self._options = azure_options(storage_options or {}, os.environ, host=root.account)

    def _make_clients(self) -> Clients:
        try:
            return _clients_for(self._root.bucket, self._options)
        except (BaseError, ValueError):  # what they say repeats what was given
            raise StoreError(f"{self.url}: the endpoint or another storage option is not valid") from None

    async def _discard(self, path: str, key: str) -> None:
        """Nothing to do: blocks that are never committed are invisible, and Azure drops them after a week."""


def _clients_for(container: str, options: AzureOptions) -> Clients:
    config = {"account_name": options.account, "endpoint": options.endpoint, **options.config}
    provider = None if options.config else _environment_token()

    def client(read_timeout: float | None, resend_seconds: float = 0) -> AzureClient:
        return AzureClient(
            container,
            config=cast("AzureConfig", config),
            client_options=cast("ClientConfig", http_options(options.endpoint, options.connect_timeout, read_timeout)),
            retry_config=retry_config(resend_seconds),
            credential_provider=provider,
        )

    reader = client(options.read_timeout)
    return Clients(
        reader=reader,
        writer=client(None),
        remover=reader,
        endpoint=options.endpoint,
        read_timeout=options.read_timeout,
        resending=lambda seconds: client(None, seconds),
    )


def _environment_token() -> Callable[[], AzureCredential] | None:
    """What the Azure SDK finds (a login, a managed identity, ...), refreshed; None leaves the search to obstore."""
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        return None
    credential: Any = DefaultAzureCredential()

    def provide() -> AzureCredential:
        """Called by obstore on a thread of its own."""
        try:
            found = credential.get_token(SCOPE)
        except Exception as error:  # noqa: BLE001 - obstore would put the text of any of them into its own message
            raise RuntimeError(type(error).__name__) from None
        return {"token": found.token, "expires_at": datetime.fromtimestamp(found.expires_on, UTC)}

    return provide
