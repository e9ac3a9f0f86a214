"""A store whose requests obstore sends: what its clouds have in common.

obstore is written in Rust: it sends from the caller's memory and off the event loop.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import run_all
from asyncsaver.errors import AccessDeniedError, ObjectNotFoundError, RootNotFoundError, StoreError
from asyncsaver.store.contract import Capabilities, ObjectInfo, Part
from asyncsaver.store.resend import Resend
from asyncsaver_backends import _obstore_errors
from asyncsaver_backends._cloud import CloudStore, Condition, Page, Pieces, Root
from asyncsaver_backends._obstore_clients import Clients
from asyncsaver_backends._obstore_fork import enter_process
from asyncsaver_backends._obstore_lending import Feed, Loan
from asyncsaver_backends._obstore_parts import PartsMissingError, StalledError, send_parts
from asyncsaver_backends._obstore_resend import is_gone, was_sent_again
from asyncsaver_backends._transfer import SLICE_BYTES

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode, PutResult, UpdateVersion
    from obstore.store import ObjectStore

PART_BYTES = 16 * 2**20
PUT_BYTES = 2 * PART_BYTES  # so that a tensor as large as a part, with its header, is one request
CONCURRENCY = 32
LISTED_AT_ONCE = 1000
READ_BYTES = 2**20
"""How much of an answer is copied to its place at once."""


class ObstoreStore(CloudStore):
    """A prefix of a bucket, through obstore. A subclass makes the clients, and knows how unfinished uploads are discarded."""

    foreign_errors = _obstore_errors.FOREIGN_ERRORS

    def __init__(self, url: str, root: Root, capabilities: Capabilities) -> None:
        super().__init__(url, root, capabilities)
        self._clients: Clients | None = None
        self._writers: dict[tuple[Callable[[float], ObjectStore], float], ObjectStore] = {}
        self._making_writer = asyncio.Lock()

    @abstractmethod
    def _make_clients(self) -> Clients:
        """Read the environment and make the clients; called in a thread. Raises only errors of ours."""

    @abstractmethod
    async def _discard(self, path: str, key: str) -> None:
        """Abort the unfinished uploads of a key. Logs what fails: it runs while a more telling error is on its way."""

    async def _connect(self) -> None:
        enter_process()
        self._clients = await self._threads.run(self._make_clients)

    async def _disconnect(self) -> None:
        self._clients = None  # the connections close with their last reference
        self._writers.clear()

    def _endpoint(self) -> str:
        return self._clients.endpoint if self._clients else ""

    def _translate(self, error: Exception, path: str) -> StoreError:
        return _obstore_errors.translate(error, name=self._name(path), path=path, address=self._address)

    async def _write(self, key: str, pieces: Pieces, condition: Condition) -> str | None:
        mode: PutMode = "create" if condition.absent else "overwrite"
        if condition.etag is not None:
            mode = self._version(condition.etag)
        clients, loans = self._open_clients, [Loan() for _ in pieces]
        try:
            async with asyncio.timeout(clients.patience(sum(map(len, pieces)))):
                # Told not to send parts, it sends the pieces as one body, from where they lie.
                lent = [loan.lend(piece) for loan, piece in zip(loans, pieces, strict=True)]
                sending = obstore.put_async(clients.writer, key, lent, mode=mode, use_multipart=False)
                del lent
                answer = await sending
        finally:
            for loan in loans:
                await loan.settle()
        return self._etag(answer)

    def _version(self, etag: str) -> UpdateVersion:
        """What a swap requires to be there."""
        return {"e_tag": etag}

    def _etag(self, answer: ObjectMeta | PutResult) -> str | None:
        """What names a version."""
        return _quoted(answer["e_tag"])

    async def _write_parts(self, path: str, key: str, parts: AsyncIterable[Part], size: int, resend: Resend) -> None:
        clients, feed, completed = self._open_clients, Feed(), False
        begun = asyncio.get_running_loop().time()

        def send(feed: Feed) -> asyncio.Future[Any]:
            return asyncio.ensure_future(self._send_parts(key, feed, resend.timeout))

        try:
            await send_parts(
                parts,
                size,
                send,
                feed=feed,
                patience=clients.patience,
                creation_seconds=clients.read_timeout,
                translated=self._translated_upload(path, resend, begun),
            )
            completed = True
        except PartsMissingError:
            raise self._not_adding_up(path) from None
        except StalledError as stalled:
            completed = await self._lost_the_reply(path, key, size, feed, resend)
            if not completed:
                raise self._translate(TimeoutError(), path) from stalled
        except StoreError as error:
            completed = error.retryable and await self._lost_the_reply(path, key, size, feed, resend)
            if not completed:
                raise
        finally:
            if feed.begun.is_set() and not completed:
                await to_completion(self._discard(path, key))

    async def _send_parts(self, key: str, feed: Feed, resend_seconds: float) -> None:
        """Carry out one upload; what is raised is named by the caller."""
        writer = await self._writer(self._open_clients, resend_seconds)
        part_bytes = self.capabilities.part_bytes
        await obstore.put_async(
            writer, key, feed, use_multipart=True, chunk_size=part_bytes, max_concurrency=CONCURRENCY
        )

    async def _writer(self, clients: Clients, seconds: float) -> ObjectStore:
        """What sends an upload in parts: each request once, or again by itself for a while."""
        if not seconds:
            return clients.writer
        made = (clients.resending, seconds)
        async with self._making_writer:
            if made not in self._writers:
                self._writers[made] = await self._threads.run(clients.resending, seconds)
            return self._writers[made]

    @contextmanager
    def _translated_upload(self, path: str, resend: Resend, begun: float) -> Iterator[None]:
        try:
            with self._translated(path):
                yield
        except StoreError as error:
            if is_gone(error.__cause__):
                raise self._forgotten(path) from error.__cause__
            if was_sent_again(error.__cause__):
                resend.failing_for(min(resend.timeout, asyncio.get_running_loop().time() - begun))
            raise

    async def _lost_the_reply(self, path: str, key: str, size: int, feed: Feed, resend: Resend) -> bool:
        """Whether an upload that failed is complete all the same. How it failed is more telling than that one cannot look."""
        with suppress(StoreError):
            return bool(resend.timeout) and feed.ended and await self._has_landed(path, key, size)
        return False

    async def _read(self, key: str) -> tuple[bytes, ObjectInfo]:
        answer = await obstore.get_async(self._open_clients.reader, key)
        data = bytes(await answer.bytes_async())
        return data, self._info(answer.meta)

    async def _read_range(self, path: str, key: str, start: int, buffer: memoryview) -> None:
        # As a stream: in one piece obstore would put it together in memory of its own, twice over, that nobody has counted.
        wanted = (start, start + buffer.nbytes)
        answer = await obstore.get_async(self._open_clients.reader, key, options={"range": wanted})
        if tuple(answer.range) != wanted:
            raise self._truncated(path, start, buffer.nbytes)
        filled = 0
        async for piece in answer.stream(min_chunk_size=READ_BYTES):
            size = len(piece)
            if filled + size > buffer.nbytes:
                raise self._cut_off(path)
            place = buffer[filled : filled + size]
            if size <= SLICE_BYTES:
                _copy(place, piece)
            else:  # memory that was never touched has to be made first, which takes longer than the copy
                await self._threads.run(_copy, place, piece)
            filled += size
        if filled != buffer.nbytes:
            raise self._cut_off(path)

    async def _describe(self, key: str) -> ObjectInfo:
        return self._info(await obstore.head_async(self._open_clients.reader, key))

    async def _pages(self, prefix: str, delimiter: str) -> AsyncIterator[Page]:
        reader = self._open_clients.reader
        if delimiter:
            found = await obstore.list_with_delimiter_async(reader, prefix)
            prefixes = [f"{folder}/" for folder in found["common_prefixes"]]
            objects = [self._info(meta) for meta in found["objects"] if meta["path"].startswith(prefix)]
            yield Page(objects, prefixes)
            return
        listed: list[ObjectInfo] = []
        async for batch in obstore.list(reader, prefix, chunk_size=LISTED_AT_ONCE):
            listed += [self._info(meta) for meta in batch]
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

    def _info(self, meta: ObjectMeta) -> ObjectInfo:
        return ObjectInfo(meta["path"], meta["size"], self._etag(meta), meta["last_modified"])

    @property
    def _open_clients(self) -> Clients:
        if self._clients is None:  # closed since the call began
            raise StoreError(f"{self.url} was closed")
        return self._clients


def _copy(target: memoryview, source: Any) -> None:
    """Copy bytes; NumPy lets go of the GIL meanwhile."""
    np.copyto(np.frombuffer(target, np.uint8), np.frombuffer(source, np.uint8))


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
