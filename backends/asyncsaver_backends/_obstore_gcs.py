"""Google Cloud Storage through obstore, with gcsfs at its side.

Data goes through obstore, which speaks the XML API. gcsfs finds the credentials and the endpoint, lists and deletes:

* obstore's listings tell an object's XML etag, which says nothing of its version (it is the MD5 of the content, mostly), and not
  its generation. With generations as etags, a swap is one conditional request, and both engines mean the same versions.
* obstore deletes ten objects at a time, one request each, and does not say which of them could not be deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from obstore.exceptions import BaseError
from obstore.store import GCSStore as GcsClient

from asyncsaver.errors import StoreError, UnsupportedStoreError
from asyncsaver.store.contract import Capabilities, Listing
from asyncsaver_backends._cloud import parse_root
from asyncsaver_backends._obstore_clients import Clients, http_options
from asyncsaver_backends._obstore_gcs_options import GcsOptions, gcs_options
from asyncsaver_backends._obstore_gcs_uploads import abort_upload, unfinished_uploads
from asyncsaver_backends._obstore_resend import retry_config
from asyncsaver_backends._obstore_store import CONCURRENCY, PART_BYTES, PUT_BYTES, ObstoreStore
from asyncsaver_backends._unfinished import PurgingStore, Upload

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion
    from obstore.store import ClientConfig, GCSConfig, GCSCredential

    from asyncsaver_backends.gcs import GcsStore

logger = logging.getLogger(__name__)

ASKED_AGAIN_AFTER = timedelta(minutes=10)
"""How long obstore may use a token that does not say when it ends. Asking again is cheap: gcsfs keeps what it has."""

CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=10_000 * PART_BYTES,  # Google takes ten thousand parts
    part_bytes=PART_BYTES,
    concurrency=CONCURRENCY,
    scattered=True,
    put_bytes=PUT_BYTES,
)


class ObstoreGcsStore(PurgingStore, ObstoreStore):
    """A prefix of a Google Cloud Storage bucket. Etags are generations.

    Args:
        url: ``gs://bucket/prefix``.
        storage_options: as for `gcsfs.GCSFileSystem`. With ``token="anon"``, obstore reads without a token, but writes with an
            empty one, which emulators take and Google does not:
            https://github.com/apache/arrow-rs-object-store/issues/520

    Raises:
        UnsupportedStoreError: an option that obstore has nothing for, or gcsfs is not installed.
    """

    def __init__(self, url: str, *, storage_options: Mapping[str, object] | None = None) -> None:
        super().__init__(url, parse_root(url), CAPABILITIES)
        self._options = gcs_options(storage_options or {})
        self._gcsfs = _gcsfs_store(url, self._options.for_gcsfs)

    async def _connect(self) -> None:
        await self._gcsfs._ready()  # noqa: SLF001 - the same package
        await super()._connect()

    async def close(self) -> None:
        try:
            await super().close()
        finally:  # also when connecting failed half-way
            await self._gcsfs.close()

    def _make_clients(self) -> Clients:
        fs = self._gcsfs._fs  # noqa: SLF001
        if getattr(fs, "_use_client_cert", False) and self._gcsfs._endpoint().startswith("https://"):  # noqa: SLF001
            raise UnsupportedStoreError(
                "engine='obstore' cannot present the client certificate that the environment asks for; engine='fsspec' can"
            )
        headers = {}
        if self._options.billed:
            project = fs._get_params({}).get("userProject")  # noqa: SLF001 - as gcsfs has it
            if not project:
                raise StoreError(f"{self.url}: requester_pays needs a project in storage_options, to be billed")
            headers["x-goog-user-project"] = project
        try:
            return _clients_for(self._root.bucket, self._options, fs, headers)
        except (BaseError, ValueError):  # what they say repeats what was given
            raise StoreError(
                f"{self.url}: the endpoint is not valid, or SERVICE_ACCOUNT or GOOGLE_SERVICE_ACCOUNT in the environment is no"
                " key file, which obstore insists on; engine='fsspec' reads neither"
            ) from None

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        await self._ready()
        return await self._gcsfs.list(prefix, delimiter=delimiter)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        await self._ready(*paths)
        return await self._gcsfs.delete(paths)

    def _version(self, etag: str) -> UpdateVersion:
        return {"version": etag}

    def _etag(self, answer: ObjectMeta | PutResult) -> str | None:
        return answer["version"]

    async def _discard(self, path: str, key: str) -> None:
        """As the base says. obstore does not tell which upload is ours; no two writers of checkpoints write one key."""
        try:
            for upload in await self._unfinished(key):
                if upload.key == key:
                    await self._abort(path, key, upload.upload_id)
        except StoreError as error:
            logger.warning("could not abort an unfinished upload: %s", error)

    async def _unfinished(self, prefix: str) -> Sequence[Upload]:
        return await unfinished_uploads(self._gcsfs, prefix)

    async def _abort(self, path: str, key: str, upload_id: str) -> None:
        await abort_upload(self._gcsfs, path, key, upload_id)


def _gcsfs_store(url: str, options: Mapping[str, Any]) -> GcsStore:
    try:
        from asyncsaver_backends.gcs import GcsStore  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise UnsupportedStoreError(
            'engine="obstore" needs gcsfs for gs://: pip install "asyncsaver[gcs,obstore]"'
        ) from error
    return GcsStore(url, storage_options=options)


def _clients_for(bucket: str, options: GcsOptions, fs: Any, headers: Mapping[str, str]) -> Clients:
    """Make the clients; the settings that obstore would else take from the environment are given."""
    endpoint = str(fs._location).rstrip("/")  # noqa: SLF001 - gcsfs has no public name for it
    found = fs.credentials.credentials
    anonymous = found is None or (found.valid and not found.token)
    # A token that is given, though empty, keeps obstore from looking for one when it writes.
    config: dict[str, Any] = {"base_url": endpoint, "skip_signature": anonymous}
    if anonymous:
        config["bearer_token"] = ""

    def client(read_timeout: float | None, resend_seconds: float = 0) -> GcsClient:
        http = {**http_options(endpoint, options.connect_timeout, read_timeout), "default_headers": dict(headers)}
        if options.total_timeout is not None:
            http["timeout"] = timedelta(seconds=options.total_timeout)
        return GcsClient(
            bucket,
            config=cast("GCSConfig", config),
            client_options=cast("ClientConfig", http),
            retry_config=retry_config(resend_seconds),
            credential_provider=None if anonymous else _provider(fs.credentials),
        )

    reader = client(options.read_timeout)
    return Clients(
        reader=reader,
        writer=client(None),
        remover=reader,
        endpoint=endpoint,
        read_timeout=options.read_timeout,
        resending=lambda seconds: client(None, seconds),
    )


def _provider(credentials: Any) -> Callable[[], GCSCredential]:
    """The token of gcsfs' credentials, refreshed as it does."""

    def provide() -> GCSCredential:
        """Called by obstore on a thread of its own."""
        try:
            credentials.maybe_refresh()
        except Exception as error:  # noqa: BLE001 - obstore would put the text of any of them into its own message
            raise RuntimeError(type(error).__name__) from None
        found = credentials.credentials
        now = datetime.now(UTC)
        # google-auth's times have no zone; they are UTC.
        expires = found.expiry.replace(tzinfo=UTC) if found.expiry else now + ASKED_AGAIN_AFTER
        return {"token": found.token, "expires_at": expires}

    return provide
