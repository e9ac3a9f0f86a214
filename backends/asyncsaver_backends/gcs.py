"""Checkpoints in Google Cloud Storage, through gcsfs.

gcsfs brings credentials, endpoints and the session; the requests of the JSON API are sent here, once each. Its own file
operations are not used: they retry by themselves, and give no generation that a compare-and-swap could use.
https://cloud.google.com/storage/docs/json_api/v1
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from fsspec import AbstractFileSystem
from gcsfs.core import GCSFileSystem
from yarl import URL

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import run_all
from asyncsaver.errors import AccessDeniedError, ObjectNotFoundError, StoreError
from asyncsaver.store.buffers import pieces_of
from asyncsaver.store.contract import Capabilities, ObjectInfo, Part, Store
from asyncsaver.store.resend import Resend, until_sent
from asyncsaver_backends import _gcs_errors
from asyncsaver_backends._cloud import CloudStore, Condition, Page, Pieces, UploadGoneError, parse_root
from asyncsaver_backends._gcs_upload import INCOMPLETE, ResumableUpload
from asyncsaver_backends._transfer import SlicedBody, request_body, while_it_moves

logger = logging.getLogger(__name__)

CONCURRENCY = 32
# Parts of a resumable upload must be multiples of 256 KiB.
CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    part_bytes=16 * 2**20,
    concurrency=CONCURRENCY,
    sequential=True,
    scattered=True,
    put_bytes=32 * 2**20,  # a tensor as large as a part, with its header, is one request
)
CANCELLED = 499  # a resumable upload was deleted, as asked
SOCK_READ = 60.0
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SOCK_READ)


def open_store(url: str, *, storage_options: Mapping[str, object], filesystem: AbstractFileSystem | None) -> Store:
    """Make the store for ``gs://bucket/prefix``.

    Args:
        url: the root.
        storage_options: as for `gcsfs.GCSFileSystem`.
        filesystem: a ready gcsfs filesystem to use instead. An asynchronous one must belong to the running loop and
            stays open; of any other one, a twin is made.

    Raises:
        InvalidRootError: the URL names no bucket.
    """
    return GcsStore(url, storage_options=storage_options, filesystem=filesystem)


class GcsStore(CloudStore):
    """A prefix of a Google Cloud Storage bucket. Etags are generations.

    Args:
        url: ``gs://bucket/prefix``.
        storage_options: as for `gcsfs.GCSFileSystem`.
        filesystem: see `open_store`.
    """

    foreign_errors = _gcs_errors.FOREIGN_ERRORS

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, object] | None = None,
        filesystem: AbstractFileSystem | None = None,
    ) -> None:
        super().__init__(url, parse_root(url), CAPABILITIES)
        self._options = dict(storage_options or {})
        self._given = filesystem
        self._fs: Any = None
        self._bucket = quote(self._root.bucket, safe="")

    async def _connect(self) -> None:
        given: Any = self._given
        if given is not None and given.asynchronous:
            fs = given
        else:
            try:
                # Looking for credentials may read files and ask the metadata server.
                fs = await self._threads.run(
                    _filesystem, self._options if given is None else given.storage_options, given
                )
            except (ValueError, KeyError):  # what it says may repeat the token
                raise AccessDeniedError(f"{self.url}: the credentials cannot be used") from None
        await fs._set_session()  # noqa: SLF001 - gcsfs has no public name for it
        self._fs = fs

    async def _disconnect(self) -> None:
        if self._fs is not self._given:
            await self._fs.session.close()

    def _endpoint(self) -> str:
        return "" if self._fs is None else str(self._fs._location)  # noqa: SLF001 - gcsfs has no public name for it

    def _translate(self, error: Exception, path: str) -> StoreError:
        return _gcs_errors.translate(error, name=self._name(path), path=path, address=self._address)

    def _object_url(self, key: str, *, kind: str = "") -> str:
        return f"{self._fs._location}{kind}/storage/v1/b/{self._bucket}/o/{quote(key, safe='')}"  # noqa: SLF001

    @property
    def _upload_url(self) -> str:
        return f"{self._fs._location}/upload/storage/v1/b/{self._bucket}/o"  # noqa: SLF001

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        pieces: Pieces | None = None,
        frame: tuple[bytes, bytes] = (b"", b""),
        about_bucket: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and give the answer, whose body is not read yet.

        Args:
            method: of HTTP.
            url: without the query.
            params: the query.
            headers: besides what authorises and describes the body.
            pieces: the body.
            frame: what stands before and after them in the body.
            about_bucket: a 404 means that there is no bucket.

        Raises:
            RefusedError: the status is neither a success nor "go on".
        """
        fs = self._fs
        body = request_body(pieces or ())
        timeout = fs.requests_timeout or TIMEOUT
        query = urlencode(fs._get_params(dict(params or {})), quote_via=quote)  # noqa: SLF001 - adds who pays
        request = fs.session.request(
            method,
            URL(f"{url}?{query}" if query else url, encoded=True),
            headers=await self._headers(
                headers or {}, 0 if pieces is None else len(body) + len(frame[0]) + len(frame[1])
            ),
            data=None if pieces is None else _framed(body, frame),
            timeout=timeout,
            allow_redirects=False,
        )
        # Reading an answer has aiohttp's own timeout between bytes.
        patience = None if pieces is None else getattr(timeout, "sock_read", None) or SOCK_READ
        async with while_it_moves(body, patience), request as answer:
            if answer.status >= 300 and answer.status not in {INCOMPLETE, CANCELLED}:
                reason = (await answer.read())[:1000].decode(errors="replace")
                raise _gcs_errors.RefusedError(answer.status, reason, about_bucket=about_bucket)
            yield answer

    async def _headers(self, headers: Mapping[str, str], size: int) -> dict[str, str]:
        wanted = {"Content-Type": "application/octet-stream", "Content-Length": str(size), **headers}
        if self._fs.credentials.credentials is None:
            return wanted
        authorised: dict[str, str] = await self._threads.run(self._fs._get_headers, wanted)  # noqa: SLF001 - may fetch a token
        return authorised

    async def _write(self, key: str, pieces: Pieces, condition: Condition) -> str | None:
        boundary = uuid.uuid4().hex
        described = json.dumps({"name": key})
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{described}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        )
        params = {"uploadType": "multipart"}
        if condition.absent:
            params["ifGenerationMatch"] = "0"
        if condition.etag is not None:
            params["ifGenerationMatch"] = condition.etag
        async with self._request(
            "POST",
            self._upload_url,
            params=params,
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            pieces=pieces,
            frame=(head.encode(), f"\r\n--{boundary}--\r\n".encode()),
            about_bucket=True,
        ) as answer:
            return str((await answer.json())["generation"])

    async def _write_parts(self, path: str, key: str, parts: AsyncIterable[Part], size: int, resend: Resend) -> None:
        upload = ResumableUpload(self, path, key, size)
        completed = False
        try:
            await until_sent(resend.request(), lambda: to_completion(upload.begin()))
            offset, number = 0, 0
            given = aiter(parts)
            async for part in given:
                number += 1
                with pieces_of(part) as pieces:
                    stop = offset + sum(map(len, pieces))
                    last = stop == size
                    # The upload is complete with its last byte: what follows has to be known before it is sent.
                    if last and await anext(given, None) is not None:
                        raise self._not_adding_up(path)
                    if not last and (stop > size or stop - offset != self.capabilities.part_bytes):
                        raise self._not_adding_up(path)
                    await upload.send(pieces, offset, resend.part(number))
                    offset = stop
            if offset != size:
                raise self._not_adding_up(path)
            completed = True
        except UploadGoneError as gone:
            raise self._forgotten(path) from gone.__cause__
        finally:
            if not completed:
                await to_completion(upload.cancel())

    async def _read(self, key: str) -> tuple[bytes, ObjectInfo]:
        async with self._request("GET", self._object_url(key, kind="/download"), params={"alt": "media"}) as answer:
            data = await answer.read()
            return data, ObjectInfo(key, len(data), answer.headers["X-Goog-Generation"])

    async def _read_range(self, path: str, key: str, start: int, buffer: memoryview) -> None:
        stop = start + len(buffer)
        async with self._request(
            "GET",
            self._object_url(key, kind="/download"),
            params={"alt": "media"},
            headers={"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"},
        ) as answer:
            if answer.status != 206 and start > 0:
                raise StoreError(f"{self.url} does not support reading ranges", path=path)
            if answer.content_length is not None and answer.content_length < len(buffer):
                raise self._truncated(path, start, len(buffer))
            filled = 0
            while filled < len(buffer):
                piece = await answer.content.read(len(buffer) - filled)
                if not piece:
                    raise self._cut_off(path)
                buffer[filled : filled + len(piece)] = piece
                filled += len(piece)

    async def _describe(self, key: str) -> ObjectInfo:
        async with self._request(
            "GET", self._object_url(key), params={"fields": "name,size,generation,updated"}
        ) as answer:
            return _info(await answer.json())

    async def _pages(self, prefix: str, delimiter: str) -> AsyncIterator[Page]:
        url = f"{self._fs._location}/storage/v1/b/{self._bucket}/o"  # noqa: SLF001
        params = {"prefix": prefix, "fields": "items(name,size,generation,updated),prefixes,nextPageToken"}
        if delimiter:
            params["delimiter"] = delimiter
        while True:
            async with self._request("GET", url, params=params, about_bucket=True) as answer:
                found = await answer.json()
            yield Page([_info(item) for item in found.get("items") or ()], found.get("prefixes") or ())
            if not found.get("nextPageToken"):
                return
            params["pageToken"] = found["nextPageToken"]

    async def _remove(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        free = asyncio.Semaphore(CONCURRENCY)

        async def remove(path: str) -> None:
            async with free:
                try:
                    with self._translated(path):
                        async with self._request("DELETE", self._object_url(self._key(path))):
                            return
                except ObjectNotFoundError:
                    return
                except StoreError as error:
                    failed[path] = error

        await run_all(remove(path) for path in paths)
        return failed


def _framed(body: bytes | SlicedBody, frame: tuple[bytes, bytes]) -> bytes | AsyncIterator[bytes]:
    if isinstance(body, bytes):
        return frame[0] + body + frame[1]

    async def framed() -> AsyncIterator[bytes]:
        yield frame[0]
        async for piece in body:
            yield piece
        yield frame[1]

    return framed()


def _info(item: Mapping[str, Any]) -> ObjectInfo:
    updated = item.get("updated")
    modified = datetime.fromisoformat(updated) if updated else None
    return ObjectInfo(item["name"], int(item["size"]), str(item["generation"]), modified)


def _filesystem(options: Mapping[str, Any], twin_of: Any) -> Any:
    """An asynchronous gcsfs filesystem of our own, by the user's options or as a twin of theirs.

    Always the plain class: the one that gcsfs registers asks over gRPC what kind of bucket it is, which takes a minute
    where there is no gRPC.
    """
    ours = {"asynchronous": True, "loop": None, "skip_instance_cache": True, "use_listings_cache": False}
    return GCSFileSystem(*(() if twin_of is None else twin_of.storage_args), **{**options, **ours})
