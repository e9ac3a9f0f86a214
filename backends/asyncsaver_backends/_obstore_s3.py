"""Amazon S3, and what speaks its protocol, through obstore."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from obstore.exceptions import BaseError
from obstore.store import S3Store as S3Client

from asyncsaver.errors import StoreError
from asyncsaver.store.contract import Capabilities
from asyncsaver_backends._cloud import parse_root
from asyncsaver_backends._obstore_aws import Surroundings, surroundings
from asyncsaver_backends._obstore_region import aws_endpoint, region_of
from asyncsaver_backends._obstore_s3_options import S3Options, s3_options
from asyncsaver_backends._obstore_store import CONCURRENCY, PART_BYTES, Clients, ObstoreStore, http_options
from asyncsaver_backends._obstore_uploads import UnfinishedUploads

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

DEFAULT_REGION = "us-east-1"

CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=10_000 * PART_BYTES,  # S3 takes ten thousand parts
    part_bytes=PART_BYTES,
    concurrency=CONCURRENCY,
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
        self._options = s3_options(storage_options or {})
        self._uploads = UnfinishedUploads(url, dict(storage_options or {}))

    def _make_clients(self) -> Clients:
        around = self._in_its_region(surroundings(self._options, self.url))
        try:
            return clients_for(self._root.bucket, self._options, around)
        except OSError as error:
            raise StoreError(f"{self.url}: the certificates of {self._options.certificates} cannot be read") from error
        except (BaseError, ValueError):  # what they say repeats what was given
            raise StoreError(f"{self.url}: the endpoint or another storage option is not valid") from None

    def _in_its_region(self, around: Surroundings) -> Surroundings:
        """Where the user names none, the bucket's own region goes before that of the environment, as with botocore."""
        if self._options.region or self._options.endpoint or around.endpoint:
            return around
        url = f"{aws_endpoint(around.region or DEFAULT_REGION)}/{self._root.bucket}"
        found = self._find_region(url, self._options.certificates)
        return around if found is None else replace(around, region=found)

    async def _disconnect(self) -> None:
        await super()._disconnect()
        await self._uploads.close()

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
        options.addressing_style == "auto" and not given and "." not in bucket
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
        "skip_signature": options.anonymous,
    }

    trust: dict[str, Any] = {} if options.verify else {"allow_invalid_certificates": True}
    if options.certificates is not None:
        trust["root_certificate"] = options.certificates.read_bytes()

    def client(*, reading: bool, **more: Any) -> S3Client:
        timeout = options.read_timeout if reading else None
        http = http_options(endpoint, options.connect_timeout, timeout) | trust
        return S3Client(
            bucket,
            config=cast("S3Config", {**config, **more}),
            client_options=cast("ClientConfig", http),
            retry_config={"max_retries": 0},
            credential_provider=around.provider,
        )

    return Clients(
        reader=client(reading=True),
        writer=client(reading=False),
        remover=client(reading=True, disable_bulk_delete=True),
        endpoint=endpoint,
        read_timeout=options.read_timeout,
    )
