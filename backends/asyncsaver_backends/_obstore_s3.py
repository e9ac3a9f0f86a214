"""Amazon S3, and what speaks its protocol, through obstore."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from obstore.exceptions import BaseError
from obstore.store import S3Store as S3Client

from asyncsaver.errors import StoreError
from asyncsaver.store.contract import Capabilities
from asyncsaver_backends._cloud import Condition, Pieces, parse_root
from asyncsaver_backends._obstore_aws import Surroundings, configured_options, surroundings
from asyncsaver_backends._obstore_clients import Clients, http_options
from asyncsaver_backends._obstore_errors import refuses_checksum
from asyncsaver_backends._obstore_lending import Feed
from asyncsaver_backends._obstore_region import aws_endpoint, region_of
from asyncsaver_backends._obstore_resend import retry_config
from asyncsaver_backends._obstore_s3_options import S3Options, check_bucket
from asyncsaver_backends._obstore_store import CONCURRENCY, PART_BYTES, PUT_BYTES, ObstoreStore
from asyncsaver_backends._obstore_twin import Twin
from asyncsaver_backends._obstore_uploads import UnfinishedUploads

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

    from asyncsaver_backends.s3 import S3Store

logger = logging.getLogger(__name__)

DEFAULT_REGION = "us-east-1"

_CHECKSUM_REFUSED = "the server does not know the checksum CRC64NVME"
_WITHOUT_CHECKSUM = (
    "if the server does not know CRC64NVME, give config_kwargs={'request_checksum_calculation': 'when_required'}"
)

# What may stand before the host. Old buckets may have other names, which botocore puts into the path as well.
_HOST_LABEL = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=10_000 * PART_BYTES,  # S3 takes ten thousand parts
    part_bytes=PART_BYTES,
    concurrency=CONCURRENCY,
    scattered=True,
    put_bytes=PUT_BYTES,
)


class ObstoreS3Store(ObstoreStore):
    """A prefix of an S3 bucket.

    Args:
        url: ``s3://bucket/prefix``.
        storage_options: as for `s3fs.S3FileSystem`.
        find_region: asks where a bucket of AWS is, see `region_of`.
    """

    def __init__(
        self,
        url: str,
        *,
        storage_options: Mapping[str, object] | None = None,
        find_region: Callable[[str, Path | None], str | None] = region_of,
    ) -> None:
        super().__init__(url, parse_root(url), CAPABILITIES)
        self._find_region = find_region
        check_bucket(self._root.bucket)
        self._options = configured_options(storage_options or {})
        self._twin = Twin(url, dict(storage_options or {}), self._threads)
        self._uploads = UnfinishedUploads(url, self._twin)
        self._range_reader: S3Store | None = None
        self._giving_up = asyncio.Lock()

    def _make_clients(self) -> Clients:
        around = self._in_its_region(surroundings(self._options, self.url))
        try:
            return clients_for(self._root.bucket, self._options, around)
        except OSError as error:
            raise StoreError(f"{self.url}: the certificates of {error.filename} cannot be read") from error
        except (BaseError, ValueError):  # what they say repeats what was given
            raise StoreError(f"{self.url}: the endpoint or another storage option is not valid") from None

    def _in_its_region(self, around: Surroundings) -> Surroundings:
        """Where the user names none, the bucket's own region goes before that of the environment, as with botocore."""
        if self._options.region or self._options.endpoint or around.endpoint:
            return around
        url = f"{aws_endpoint(around.region or DEFAULT_REGION)}/{self._root.bucket}"
        found = self._find_region(url, self._options.certificates or around.certificates)
        return around if found is None else replace(around, region=found)

    async def _disconnect(self) -> None:
        await super()._disconnect()
        await self._twin.close()

    async def _write(self, key: str, pieces: Pieces, condition: Condition) -> str | None:
        """As its base; once more where the server does not know the checksum: it has then done nothing."""
        clients = self._open_clients
        try:
            return await super()._write(key, pieces, condition)
        except BaseError as error:
            if not await self._gave_up_checksum(clients, error):
                raise
        return await super()._write(key, pieces, condition)

    async def _send_parts(self, key: str, feed: Feed, resend_seconds: float) -> None:
        """As its base; where the server does not know the checksum, the upload is begun once more."""
        clients = self._open_clients
        try:
            await super()._send_parts(key, feed, resend_seconds)
        except BaseError as error:
            if not await self._gave_up_checksum(clients, error):
                raise
            if feed.begun.is_set():  # parts are gone
                path = key[len(self._root.prefix) :]
                raise StoreError(f"{self._name(path)}: {_CHECKSUM_REFUSED}", retryable=True, path=path) from error
        else:
            return
        await super()._send_parts(key, feed, resend_seconds)

    async def _gave_up_checksum(self, used: Clients, error: BaseError) -> bool:
        """Whether uploads go without the checksum from now on, because the server refused one for it."""
        if used.without_checksum is None or not refuses_checksum(error):
            return False
        async with self._giving_up:
            if self._clients is used:  # the first of those that were refused at a time
                plain = await self._threads.run(used.without_checksum)
                if self._clients is used:  # not closed meanwhile
                    self._clients = plain
                    logger.info(
                        "%s: %s; uploads go as with request_checksum_calculation='when_required' from now on",
                        self.url,
                        _CHECKSUM_REFUSED,
                    )
        return True

    async def _read_range(self, path: str, key: str, start: int, buffer: memoryview) -> None:
        """As its base; where the server calls ranges whole (rclone's does), which obstore refuses, through s3fs."""
        if self._range_reader is None:
            try:
                await super()._read_range(path, key, start, buffer)
            except BaseError as error:
                reader = await self._twin.store() if "source: NotPartial" in str(error) else None
                if reader is None:
                    raise
                if self._range_reader is None:
                    logger.info("%s: the server answers ranges with status 200; they are read through s3fs", self.url)
                self._range_reader = reader
            else:
                return
        await self._range_reader.get_into(path, [(start, start + len(buffer))], [buffer])

    def _translate(self, error: Exception, path: str) -> StoreError:
        refused = super()._translate(error, path)
        insisting = "checksum_algorithm" in self._options.config and self._options.plain_config is None
        if insisting and type(refused) is StoreError and not refused.retryable and refuses_checksum(error):
            return StoreError(f"{refused}; {_WITHOUT_CHECKSUM}", path=path)
        return refused

    async def _discard(self, path: str, key: str) -> None:
        await self._uploads.abort(path, key)

    async def purge(
        self,
        older_than: timedelta,
        *,
        spare: Collection[str] = (),
        vacant: Callable[[str], bool] | None = None,  # noqa: ARG002 - a bucket has no folders
    ) -> int:
        """As the contract says: unfinished multipart uploads. obstore cannot list them; s3fs does where it is installed."""
        await self._ready()
        return await self._uploads.purge(older_than, spare)


def clients_for(bucket: str, options: S3Options, around: Surroundings) -> Clients:
    """Make the clients; each setting that obstore would else take from the environment is given."""
    region = options.region or around.region or DEFAULT_REGION
    given = options.endpoint or around.endpoint
    virtual = options.addressing_style == "virtual" or (
        options.addressing_style == "auto" and not given and _HOST_LABEL.fullmatch(bucket) is not None
    )
    endpoint = given or aws_endpoint(region)
    if virtual:
        scheme, _, rest = endpoint.partition("://")
        endpoint = f"{scheme}://{bucket}.{rest}"
    config: dict[str, Any] = {
        **options.config,
        "region": region,
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,
        "virtual_hosted_style_request": virtual,
        "conditional_put": "etag",  # commits rest on it
        "skip_signature": options.anonymous,
    }

    trust: dict[str, Any] = {} if options.verify else {"allow_invalid_certificates": True}
    certificates = options.certificates or around.certificates
    if certificates is not None:
        trust["root_certificate"] = certificates.read_bytes()

    def client(*, reading: bool, resend_seconds: float = 0, **more: Any) -> S3Client:
        timeout = options.read_timeout if reading else None
        http = http_options(endpoint, options.connect_timeout, timeout) | trust
        return S3Client(
            bucket,
            config=cast("S3Config", {**config, **more}),
            client_options=cast("ClientConfig", http),
            retry_config=retry_config(resend_seconds),
            credential_provider=around.provider,
        )

    plain = None
    if options.plain_config is not None:
        plain = replace(options, config=options.plain_config, plain_config=None)
    return Clients(
        reader=client(reading=True),
        writer=client(reading=False),
        remover=client(reading=True, disable_bulk_delete=True),
        endpoint=endpoint,
        read_timeout=options.read_timeout,
        resending=lambda seconds: client(reading=False, resend_seconds=seconds),
        without_checksum=None if plain is None else partial(clients_for, bucket, plain, around),
    )
