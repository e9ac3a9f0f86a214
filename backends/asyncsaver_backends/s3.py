"""Checkpoints in Amazon S3, and in what speaks its protocol, through s3fs.

s3fs brings credentials, endpoints and the session; the requests are sent through its botocore client, once each. Its
own file operations are not used: they retry by themselves, keep ten connections, reject memoryviews, and leave a
multipart upload behind when they are cancelled.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import aiobotocore.session
import botocore.exceptions
import s3fs
from botocore.handlers import add_expect_header
from fsspec import AbstractFileSystem

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import run_all
from asyncsaver.errors import ObjectNotFoundError, StoreError
from asyncsaver.store.contract import Capabilities, ObjectInfo, Part, Store
from asyncsaver.store.resend import Resend, until_sent
from asyncsaver_backends import _s3_errors
from asyncsaver_backends._cloud import Condition, Page, Pieces, Root, UploadGoneError, merged, parse_root
from asyncsaver_backends._transfer import SLICE_BYTES, request_body, upload_each, while_it_moves
from asyncsaver_backends._unfinished import PurgingStore, Upload

logger = logging.getLogger(__name__)

PART_BYTES = 16 * 2**20
CONCURRENCY = 32
BATCH_KEYS = 1000  # the most that DeleteObjects takes
BATCH_UNSUPPORTED = frozenset({"NotImplemented", "MethodNotAllowed", "405", "501"})
# The second: a try that was believed lost has written a part once more, after its tag was noted; encrypted, it has a new one.
UPLOAD_GONE = frozenset({"NoSuchUpload", "InvalidPart"})

CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=10_000 * PART_BYTES,  # S3 takes ten thousand parts
    part_bytes=PART_BYTES,
    concurrency=CONCURRENCY,
    scattered=True,
    put_bytes=2 * PART_BYTES,  # a tensor as large as a part, with its header, is one request
)


def open_store(url: str, *, storage_options: Mapping[str, object], filesystem: AbstractFileSystem | None) -> Store:
    """Make the store for ``s3://bucket/prefix``.

    Args:
        url: the root.
        storage_options: as for `s3fs.S3FileSystem`.
        filesystem: a ready s3fs filesystem to use instead. An asynchronous one must belong to the running loop and
            stays open; of any other one, a twin is made.

    Raises:
        InvalidRootError: the URL names no bucket.
    """
    return S3Store(url, storage_options=storage_options, filesystem=filesystem)


class S3Store(PurgingStore):
    """A prefix of an S3 bucket.

    Args:
        url: ``s3://bucket/prefix``.
        storage_options: as for `s3fs.S3FileSystem`.
        filesystem: see `open_store`.
    """

    foreign_errors = _s3_errors.FOREIGN_ERRORS

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, object] | None = None,
        filesystem: AbstractFileSystem | None = None,
    ) -> None:
        root: Root = parse_root(url)
        super().__init__(url, root, CAPABILITIES)
        self._options = dict(storage_options or {})
        self._given = filesystem
        self._fs: Any = None
        self._checksums = False

    async def _connect(self) -> None:
        given: Any = self._given
        if given is not None and given.asynchronous:
            fs = given
        else:
            fs = _filesystem(self._options if given is None else given.storage_options, given)
            if fs.session is None:
                fs.session = await self._threads.run(_warm_session, fs.kwargs)
        try:
            client = await fs.set_session()
        except ValueError as error:  # an endpoint that is no URL; botocore's message repeats it
            raise StoreError(f"{self.url}: the endpoint or the region is not valid") from error
        # Where the server answers before it has asked for the body (an error, or an empty object), aiohttp would go on
        # waiting to be asked, and the request would hang with its answer there.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        self._fs = fs
        self._checksums = client.meta.config.request_checksum_calculation != "when_required"

    async def _disconnect(self) -> None:
        if self._fs is not self._given:
            await self._fs._s3creator.__aexit__(None, None, None)  # noqa: SLF001 - s3fs closes it only from other threads

    def _endpoint(self) -> str:
        return "" if self._fs is None else str(self._fs._s3.meta.endpoint_url)  # noqa: SLF001 - s3fs has no public name for it

    def _translate(self, error: Exception, path: str) -> StoreError:
        return _s3_errors.translate(error, name=self._name(path), path=path, address=self._address)

    async def _call(self, operation: str, **arguments: object) -> Any:
        client = await self._fs.get_s3(self._root.bucket)
        method = getattr(client, operation)
        # Adds what the user asked for on every request, such as encryption or requester-pays.
        arguments = self._fs._get_s3_method_kwargs(method, Bucket=self._root.bucket, **arguments)  # noqa: SLF001
        return await method(**arguments)

    async def _send(self, operation: str, pieces: Pieces, **arguments: object) -> Any:
        body = request_body(pieces)
        async with while_it_moves(body, self._fs._s3.meta.config.read_timeout):  # noqa: SLF001 - as the user set it
            return await self._call(operation, Body=body, **arguments)

    async def _checksum(self, pieces: Pieces) -> dict[str, str]:
        """The CRC32 that S3 compares with what arrives, computed away from the event loop; botocore would block it."""
        if not self._checksums:
            return {}
        small = sum(map(len, pieces)) <= SLICE_BYTES
        crc = _crc32(pieces) if small else await self._threads.run(_crc32, pieces)
        return {"ChecksumCRC32": base64.b64encode(crc.to_bytes(4, "big")).decode()}

    async def _write(self, key: str, pieces: Pieces, condition: Condition) -> str | None:
        arguments: dict[str, object] = dict(await self._checksum(pieces))
        if condition.absent:
            arguments["IfNoneMatch"] = "*"
        if condition.etag is not None:
            arguments["IfMatch"] = condition.etag
        answer = await self._send("put_object", pieces, Key=key, **arguments)
        etag: str | None = answer.get("ETag")
        return etag

    async def _write_parts(self, path: str, key: str, parts: AsyncIterable[Part], size: int, resend: Resend) -> None:
        upload_ids: list[str] = []

        async def create() -> None:
            algorithm = {"ChecksumAlgorithm": "CRC32"} if self._checksums else {}
            with self._translated(path):
                answer = await self._call("create_multipart_upload", Key=key, **algorithm)
            upload_ids.append(answer["UploadId"])

        async def upload(number: int, pieces: Pieces) -> dict[str, object]:
            checksum = await self._checksum(pieces)

            async def send() -> str:
                with self._translated_in_upload(path):
                    answer = await self._send(
                        "upload_part", pieces, Key=key, UploadId=upload_ids[0], PartNumber=number, **checksum
                    )
                etag: str = answer["ETag"]
                return etag

            return {"PartNumber": number, "ETag": await until_sent(resend.part(number), send), **checksum}

        completed = False
        try:
            # An upload whose id got lost could never be aborted.
            await until_sent(resend.request(), lambda: to_completion(create()))
            uploaded, total = await upload_each(parts, upload)
            if total != size:
                raise self._not_adding_up(path)
            await self._complete(path, key, size, resend, UploadId=upload_ids[0], MultipartUpload={"Parts": uploaded})
            completed = True
        except UploadGoneError as gone:
            raise self._forgotten(path) from gone.__cause__
        finally:
            if upload_ids and not completed:
                await to_completion(self._abort(path, key, upload_ids[0]))

    async def _complete(self, path: str, key: str, size: int, resend: Resend, **arguments: object) -> None:
        unclear = False

        async def complete() -> None:
            nonlocal unclear
            try:
                with self._translated_in_upload(path):
                    await self._call("complete_multipart_upload", Key=key, **arguments)
            except StoreError:
                unclear = True
                raise
            except UploadGoneError:
                # What completed it may have been an earlier try, whose reply was lost.
                if not (unclear and await self._has_landed(path, key, size)):
                    raise

        await until_sent(resend.request(), complete)

    @contextmanager
    def _translated_in_upload(self, path: str) -> Iterator[None]:
        with self._translated(path):
            try:
                yield
            except botocore.exceptions.ClientError as error:
                if error.response["Error"].get("Code") in UPLOAD_GONE:
                    raise UploadGoneError from error
                raise

    async def _abort(self, path: str, key: str, upload_id: str) -> None:
        try:
            with self._translated(path):
                await self._call("abort_multipart_upload", Key=key, UploadId=upload_id)
        except StoreError as error:
            # What made us abort is more telling, and is on its way. The bucket's lifecycle rules have to clean up.
            logger.warning("could not abort an unfinished upload: %s", error)

    async def _read(self, key: str) -> tuple[bytes, ObjectInfo]:
        answer = await self._call("get_object", Key=key)
        async with answer["Body"] as body:
            data: bytes = await body.read()
        return data, ObjectInfo(key, len(data), answer.get("ETag"), answer.get("LastModified"))

    async def _read_range(self, path: str, key: str, start: int, buffer: memoryview) -> None:
        stop = start + buffer.nbytes
        answer = await self._call("get_object", Key=key, Range=f"bytes={start}-{stop - 1}")
        async with answer["Body"] as body:
            # Some servers (rclone's) answer a range with 200; that it is a range is said by its header.
            if start > 0 and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise StoreError(f"{self.url} does not support reading ranges", path=path)
            if answer["ContentLength"] < buffer.nbytes:
                raise self._truncated(path, start, buffer.nbytes)
            filled = 0
            while filled < buffer.nbytes:
                count = await body.readinto(buffer[filled:])
                if count == 0:
                    raise self._cut_off(path)
                filled += count

    async def _describe(self, key: str) -> ObjectInfo:
        answer = await self._call("head_object", Key=key)
        return ObjectInfo(key, answer["ContentLength"], answer.get("ETag"), answer.get("LastModified"))

    async def _pages(self, prefix: str, delimiter: str) -> AsyncIterator[Page]:
        arguments = {"Prefix": prefix, "Delimiter": delimiter} if delimiter else {"Prefix": prefix}
        while True:
            answer = await self._call("list_objects_v2", **arguments)
            objects = [
                ObjectInfo(found["Key"], found["Size"], found.get("ETag"), found.get("LastModified"))
                for found in answer.get("Contents", ())
            ]
            yield Page(objects, [found["Prefix"] for found in answer.get("CommonPrefixes", ())])
            if not answer.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    async def _unfinished(self, prefix: str) -> Sequence[Upload]:
        found: list[Upload] = []
        arguments: dict[str, object] = {"Prefix": prefix}
        with self._translated(""):
            while True:
                answer = await self._call("list_multipart_uploads", **arguments)
                found += [
                    Upload(upload["Key"], upload["UploadId"], upload.get("Initiated"))
                    for upload in answer.get("Uploads", ())
                ]
                if not answer.get("IsTruncated"):
                    return found
                arguments |= {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    async def _remove(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}

        async def remove(batch: Sequence[str]) -> None:
            objects = [{"Key": self._key(path)} for path in batch]
            with self._translated(""):
                try:
                    answer = await self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
                except botocore.exceptions.ClientError as error:
                    if error.response["Error"].get("Code") not in BATCH_UNSUPPORTED:
                        raise
                    await self._remove_singly(batch, failed)
                    return
            for refused in answer.get("Errors", ()):
                path = refused["Key"][len(self._root.prefix) :]
                failure = _s3_errors.refusal(refused, status=0, name=self._name(path), path=path)
                if not isinstance(failure, ObjectNotFoundError):
                    failed[path] = failure

        await run_all(remove(paths[start : start + BATCH_KEYS]) for start in range(0, len(paths), BATCH_KEYS))
        return failed

    async def _remove_singly(self, paths: Sequence[str], failed: dict[str, StoreError]) -> None:
        free = asyncio.Semaphore(CONCURRENCY)

        async def remove(path: str) -> None:
            async with free:
                try:
                    with self._translated(path):
                        await self._call("delete_object", Key=self._key(path))
                except ObjectNotFoundError:
                    return
                except StoreError as error:
                    failed[path] = error

        await run_all(remove(path) for path in paths)


def _filesystem(options: Mapping[str, Any], twin_of: Any) -> Any:
    """An asynchronous s3fs filesystem of our own, by the user's options or as a twin of theirs."""
    config = merged(
        {
            "max_pool_connections": CONCURRENCY,
            "retries": {"total_max_attempts": 1},
            # Chunks are verified against the manifest; botocore would check on the event loop.
            "response_checksum_validation": "when_required",
        },
        options.get("config_kwargs"),
    )
    # The checksum is signed, which covers the body too; hashing the body once more would block the event loop.
    config["s3"] = merged({"payload_signing_enabled": False}, config.get("s3"))
    ours = {
        "asynchronous": True,
        "loop": None,
        "skip_instance_cache": True,
        "use_listings_cache": False,
        "config_kwargs": config,
    }
    if twin_of is None:
        return s3fs.S3FileSystem(**{**options, **ours})
    return type(twin_of)(*twin_of.storage_args, **{**options, **ours})


def _crc32(pieces: Pieces) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _warm_session(arguments: Mapping[str, Any]) -> Any:
    """A session that has read botocore's large JSON models, which takes a tenth of a second; meant for a thread."""
    session = aiobotocore.session.AioSession(**arguments)
    loader = session.get_component("data_loader")
    for model in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", model)
    for data in ("endpoints", "partitions", "_retry", "sdk-default-configuration"):
        loader.load_data(data)
    return session
