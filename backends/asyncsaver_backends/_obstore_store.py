"""A store whose requests obstore sends: what its clouds have in common.

obstore is written in Rust: it sends from the caller's memory and off the event loop. Two clients are used, since its read timeout
starts when a request does: with one, an upload that moves but takes longer would be cut. Uploads have a deadline by their size.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import run_all
from asyncsaver.errors import AccessDeniedError, ObjectNotFoundError, RootNotFoundError, StoreError
from asyncsaver.store.contract import ObjectInfo, Part
from asyncsaver_backends import _obstore_errors
from asyncsaver_backends._cloud import CloudStore, Condition, Page
from asyncsaver_backends._obstore_lending import Feed, Loan
from asyncsaver_backends._obstore_parts import PartsMissingError, StalledError, send_parts
from asyncsaver_backends._transfer import PATIENCE, SLICE_BYTES

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode
    from obstore.store import ObjectStore

PART_BYTES = 16 * 2**20
CONCURRENCY = 32
MOVING_BYTES = 4 * 2**20
"""How much an upload must move in the time of a read timeout to count as alive: obstore tells only when a whole body was sent."""
LISTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Clients:
    """What `ObstoreStore` sends its requests with.

    Attributes:
        reader: has a read timeout.
        writer: has none.
        remover: deletes objects one by one, for servers without batch deletion and to know which ones failed.
        endpoint: URL that requests go to.
        read_timeout: how long an answer may stand still, in seconds.
    """

    reader: ObjectStore
    writer: ObjectStore
    remover: ObjectStore
    endpoint: str
    read_timeout: float

    def patience(self, size: int) -> float:
        """How long sending so many bytes may take, in seconds."""
        return self.read_timeout * (PATIENCE + size / MOVING_BYTES)


class ObstoreStore(CloudStore):
    """A prefix of a bucket, through obstore. A subclass makes the clients, and knows how unfinished uploads are discarded."""

    foreign_errors = _obstore_errors.FOREIGN_ERRORS

    _clients: Clients | None = None

    @abstractmethod
    def _make_clients(self) -> Clients:
        """Read the environment and make the clients; called in a thread. Raises only errors of ours."""

    @abstractmethod
    async def _discard(self, path: str, key: str) -> None:
        """Abort the unfinished uploads of a key. Logs what fails: it runs while a more telling error is on its way."""

    async def _connect(self) -> None:
        self._clients = await self._threads.run(self._make_clients)

    async def _disconnect(self) -> None:
        self._clients = None  # the connections close with their last reference

    def _endpoint(self) -> str:
        return self._clients.endpoint if self._clients else ""

    def _translate(self, error: Exception, path: str) -> StoreError:
        return _obstore_errors.translate(error, name=self._name(path), path=path, address=self._address)

    async def _write(self, key: str, data: memoryview, condition: Condition) -> str | None:
        mode: PutMode = "create" if condition.absent else "overwrite"
        if condition.etag is not None:
            mode = {"e_tag": condition.etag}
        clients, loan = self._open_clients, Loan()
        try:
            async with asyncio.timeout(clients.patience(len(data))):
                answer = await obstore.put_async(clients.writer, key, loan.lend(data), mode=mode, use_multipart=False)
        finally:
            await loan.settle()
        return _quoted(answer["e_tag"])

    async def _write_parts(self, path: str, key: str, parts: AsyncIterable[Part], size: int) -> None:
        clients, feed, completed = self._open_clients, Feed(), False

        def send(feed: Feed) -> asyncio.Future[Any]:
            return asyncio.ensure_future(
                obstore.put_async(
                    clients.writer, key, feed, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=CONCURRENCY
                )
            )

        try:
            await send_parts(
                parts,
                size,
                send,
                feed=feed,
                patience=clients.patience,
                creation_seconds=clients.read_timeout,
                translated=self._translated(path),
            )
            completed = True
        except PartsMissingError:
            raise self._not_adding_up(path) from None
        except StalledError as stalled:
            raise self._translate(TimeoutError(), path) from stalled
        finally:
            if feed.begun.is_set() and not completed:
                await to_completion(self._discard(path, key))

    async def _read(self, key: str) -> tuple[bytes, ObjectInfo]:
        answer = await obstore.get_async(self._open_clients.reader, key)
        data = bytes(await answer.bytes_async())
        return data, _info(answer.meta)

    async def _read_range(self, path: str, key: str, start: int, buffer: memoryview) -> None:
        stop = start + buffer.nbytes
        data = await obstore.get_range_async(self._open_clients.reader, key, start=start, end=stop)
        if len(data) != buffer.nbytes:
            raise self._truncated(path, start, buffer.nbytes)
        if buffer.nbytes <= SLICE_BYTES:
            _copy(buffer, data)
        else:
            await self._threads.run(_copy, buffer, data)

    async def _describe(self, key: str) -> ObjectInfo:
        return _info(await obstore.head_async(self._open_clients.reader, key))

    async def _pages(self, prefix: str, delimiter: str) -> AsyncIterator[Page]:
        reader = self._open_clients.reader
        if delimiter:
            found = await obstore.list_with_delimiter_async(reader, prefix)
            prefixes = [f"{folder}/" for folder in found["common_prefixes"]]
            objects = [_info(meta) for meta in found["objects"] if meta["path"].startswith(prefix)]
            yield Page(objects, prefixes)
            return
        listed: list[ObjectInfo] = []
        async for batch in obstore.list(reader, prefix, chunk_size=LISTED_AT_ONCE):
            listed += [_info(meta) for meta in batch]
        yield Page(_without_markers(listed, prefix))

    async def _remove(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        clients = self._open_clients
        keys = [self._key(path) for path in paths]
        try:
            await obstore.delete_async(clients.reader, keys)
        except self.foreign_errors as error:
            # obstore tells of one failure in a batch at most, and not of which paths.
            refused = self._translate(error, "")
            if isinstance(refused, RootNotFoundError):
                raise
            whole = not _obstore_errors.concerns_single_paths(error)
            if whole and (refused.retryable or isinstance(refused, AccessDeniedError)):
                raise
        else:
            return {}
        failed: dict[str, StoreError] = {}
        free = asyncio.Semaphore(CONCURRENCY)

        async def remove(path: str) -> None:
            async with free:
                try:
                    with self._translated(path):
                        await obstore.delete_async(clients.remover, self._key(path))
                except ObjectNotFoundError:
                    return
                except StoreError as error:
                    failed[path] = error

        await run_all(remove(path) for path in paths)
        return failed

    @property
    def _open_clients(self) -> Clients:
        if self._clients is None:  # closed since the call began
            raise StoreError(f"{self.url} was closed")
        return self._clients


def http_options(endpoint: str, connect_timeout: float, read_timeout: float | None) -> dict[str, Any]:
    """What an HTTP client of obstore is told: a whole request has no limit, standing still has one where that can be seen."""
    settings: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=connect_timeout),
        "timeout": timedelta(days=7),
    }
    if read_timeout is not None:
        settings["read_timeout"] = timedelta(seconds=read_timeout)
    return settings


def _copy(target: memoryview, source: Any) -> None:
    """Copy bytes; NumPy lets go of the GIL meanwhile."""
    np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))


def _info(meta: ObjectMeta) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], _quoted(meta["e_tag"]), meta["last_modified"])


def _quoted(etag: str | None) -> str | None:
    """Azure's listings give etags without the quotes that all other answers have."""
    return etag if not etag or etag.endswith('"') else f'"{etag}"'


def _without_markers(objects: list[ObjectInfo], prefix: str) -> list[ObjectInfo]:
    """Leave out the empty objects that consoles make for folders: obstore takes the slash off the end of their names."""
    folders = {parent for info in objects for parent in _parents(info.path, len(prefix))}
    return [info for info in objects if info.path.startswith(prefix) and (info.size or info.path not in folders)]


def _parents(path: str, start: int) -> Iterator[str]:
    cut = path.find("/", start)
    while cut >= 0:
        yield path[:cut]
        cut = path.find("/", cut + 1)
