"""Checkpoints in Azure Blob Storage, through adlfs.

adlfs brings the credentials; the requests go through the Azure SDK that it is built on, once each. Its own client is
not used: it retries by itself, and waits for an answer for most of a day.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any

from adlfs import AzureBlobFileSystem
from azure.core import MatchConditions
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import BlobPrefix, BlobServiceClient
from fsspec import AbstractFileSystem

from asyncsaver.aio.tasks import run_all
from asyncsaver.errors import AccessDeniedError, ObjectNotFoundError, StoreError
from asyncsaver.store.contract import Capabilities, ObjectInfo, Part, Store
from asyncsaver.store.resend import Resend, until_sent
from asyncsaver_backends import _azure_errors
from asyncsaver_backends._cloud import CloudStore, Condition, Page, Pieces, parse_root
from asyncsaver_backends._transfer import request_body, upload_each, while_it_moves

PART_BYTES = 16 * 2**20
CONCURRENCY = 32
READ_TIMEOUT = 60.0
PUBLIC_CLOUD = ".core.windows.net"

CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=50_000 * PART_BYTES,  # Azure takes fifty thousand blocks
    part_bytes=PART_BYTES,
    concurrency=CONCURRENCY,
    scattered=True,
    put_bytes=2 * PART_BYTES,  # a tensor as large as a part, with its header, is one request
)


def open_store(url: str, *, storage_options: Mapping[str, object], filesystem: AbstractFileSystem | None) -> Store:
    """Make the store for ``az://container/prefix`` or ``abfs://container@account.dfs.core.windows.net/prefix``.

    Args:
        url: the root.
        storage_options: as for `adlfs.AzureBlobFileSystem`.
        filesystem: a ready adlfs filesystem to use instead. An asynchronous one must belong to the running loop and
            stays open; of any other one, a twin is made.

    Raises:
        InvalidRootError: the URL names no container.
    """
    return AzureStore(url, storage_options=storage_options, filesystem=filesystem)


class AzureStore(CloudStore):
    """A prefix of an Azure Blob Storage container.

    Args:
        url: see `open_store`.
        storage_options: as for `adlfs.AzureBlobFileSystem`.
        filesystem: see `open_store`.
    """

    foreign_errors = _azure_errors.FOREIGN_ERRORS

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, object] | None = None,
        filesystem: AbstractFileSystem | None = None,
    ) -> None:
        root = parse_root(url, account_allowed=True)
        super().__init__(url, root, CAPABILITIES)
        self._options = {**_account_options(root.account), **(storage_options or {})}
        self._given = filesystem
        self._service: Any = None
        self._credential: Any = None
        self._container: Any = None
        self._read_timeout: float | None = READ_TIMEOUT

    async def _connect(self) -> None:
        given: Any = self._given
        if given is not None and given.asynchronous:
            self._container = given.service_client.get_container_client(self._root.bucket)
            return
        options = self._options if given is None else given.storage_options
        try:
            fs = await self._threads.run(_filesystem, options, given)
        except ValueError as error:  # what it says may repeat the connection string
            raise AccessDeniedError(f"{self.url}: the credentials cannot be used") from error
        self._service = _service(fs)
        self._read_timeout = fs._timeout_kwargs.get("read_timeout", READ_TIMEOUT)  # noqa: SLF001 - see _service
        self._credential = None if "credential" in options else fs.credential  # the user closes their own
        self._container = self._service.get_container_client(self._root.bucket)

    async def _disconnect(self) -> None:
        if self._service is not None:
            await self._service.close()
        if hasattr(self._credential, "close"):
            await self._credential.close()

    def _endpoint(self) -> str:
        return "" if self._container is None else str(self._container.url)

    def _translate(self, error: Exception, path: str) -> StoreError:
        return _azure_errors.translate(error, name=self._name(path), path=path, address=self._address)

    async def _write(self, key: str, pieces: Pieces, condition: Condition) -> str | None:
        arguments: dict[str, object] = {}
        if condition.etag is not None:
            arguments = {"etag": condition.etag, "match_condition": MatchConditions.IfNotModified}
        blob = self._container.get_blob_client(key)
        body = request_body(pieces)
        if isinstance(body, bytes):
            async with while_it_moves(body, self._read_timeout):
                written = await blob.upload_blob(body, overwrite=not condition.absent, **arguments)
        else:
            # The SDK takes a whole blob only as bytes, which go to the transport at once and block the event loop. As a
            # block they go in slices, and committing the one block is as atomic, and as conditional.
            block = uuid.uuid4().hex
            async with while_it_moves(body, self._read_timeout):
                await blob.stage_block(block, body, length=len(body))
            if condition.absent:
                arguments = {"match_condition": MatchConditions.IfMissing}
            written = await blob.commit_block_list([BlobBlock(block_id=block)], **arguments)
        etag: str | None = written["etag"]
        return etag

    async def _write_parts(self, path: str, key: str, parts: AsyncIterable[Part], size: int, resend: Resend) -> None:
        blob = self._container.get_blob_client(key)
        attempt = uuid.uuid4().hex  # so that two writers of one blob never mix their blocks

        async def stage(number: int, pieces: Pieces) -> BlobBlock:
            block = f"{attempt}{number:06d}"

            async def send() -> None:
                body = request_body(pieces)
                with self._translated(path):
                    async with while_it_moves(body, self._read_timeout):
                        await blob.stage_block(block, body, length=len(body))

            await until_sent(resend.part(number), send)
            return BlobBlock(block_id=block)

        async def commit() -> None:
            # Sent once more after its reply was lost, it finds the same blocks committed already, which is as good.
            with self._translated(path):
                await blob.commit_block_list(blocks)

        # Blocks that are never committed are invisible, and Azure drops them after a week: there is nothing to abort.
        blocks, total = await upload_each(parts, stage)
        if total != size:
            raise self._not_adding_up(path)
        await until_sent(resend.request(), commit)

    async def _read(self, key: str) -> tuple[bytes, ObjectInfo]:
        stream = await self._container.download_blob(key)
        data: bytes = await stream.readall()
        return data, _info(key, stream.properties)

    async def _read_range(self, path: str, key: str, start: int, buffer: memoryview) -> None:
        stream = await self._container.download_blob(key, offset=start, length=len(buffer))
        if stream.size < len(buffer):
            raise self._truncated(path, start, len(buffer))
        filled = 0
        async for piece in stream.chunks():
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled != len(buffer):
            raise self._cut_off(path)

    async def _describe(self, key: str) -> ObjectInfo:
        return _info(key, await self._container.get_blob_client(key).get_blob_properties())

    async def _pages(self, prefix: str, delimiter: str) -> AsyncIterator[Page]:
        if delimiter:
            found = self._container.walk_blobs(name_starts_with=prefix, delimiter=delimiter)
        else:
            found = self._container.list_blobs(name_starts_with=prefix)
        async for page in found.by_page():
            objects: list[ObjectInfo] = []
            prefixes: list[str] = []
            async for item in page:
                if isinstance(item, BlobPrefix):
                    prefixes.append(item.name)
                else:
                    objects.append(_info(item.name, item))
            yield Page(objects, prefixes)

    async def _remove(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        free = asyncio.Semaphore(CONCURRENCY)

        async def remove(path: str) -> None:
            async with free:
                try:
                    with self._translated(path):
                        await self._container.delete_blob(self._key(path), delete_snapshots="include")
                except ObjectNotFoundError:
                    return
                except StoreError as error:
                    failed[path] = error

        await run_all(remove(path) for path in paths)
        return failed


def _info(key: str, properties: Any) -> ObjectInfo:
    # Listings give etags without the quotes that all other answers have.
    etag = f'"{properties.etag.strip(chr(34))}"'
    return ObjectInfo(key, properties.size, etag, properties.last_modified)


def _account_options(host: str) -> dict[str, object]:
    """What the host in an ``abfs://container@host/`` URL says: the account, and which cloud it is in."""
    if not host:
        return {}
    name = host.partition(".")[0]
    if host.endswith(PUBLIC_CLOUD):
        return {"account_name": name}
    return {"account_name": name, "account_host": host.replace(".dfs.", ".blob.", 1)}


def _filesystem(options: Mapping[str, Any], twin_of: Any) -> Any:
    """An adlfs filesystem that knows the credentials; its client is never used, and so never connects.

    Not an asynchronous one: adlfs closes those when the interpreter ends, on a loop that is gone by then. Meant for a
    thread: it may look for credentials for a while.
    """
    ours = {"asynchronous": False, "loop": None, "skip_instance_cache": True, "use_listings_cache": False}
    kind = AzureBlobFileSystem if twin_of is None else type(twin_of)
    return kind(*(() if twin_of is None else twin_of.storage_args), **{**options, **ours})


def _service(fs: Any) -> BlobServiceClient:
    settings = {
        "retry_total": 0,
        "connection_timeout": 10,
        "read_timeout": READ_TIMEOUT,
        "max_single_get_size": PART_BYTES,
        "max_chunk_get_size": PART_BYTES,
        **fs._timeout_kwargs,  # noqa: SLF001 - the user's, which adlfs keeps to itself
    }
    if fs.connection_string is not None:
        return BlobServiceClient.from_connection_string(fs.connection_string, **settings)
    credential = fs.credential or fs.account_key or fs.sas_token
    return BlobServiceClient(fs.account_url, credential=credential, **settings)
