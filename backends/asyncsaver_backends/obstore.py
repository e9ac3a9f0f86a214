"""Checkpoints in S3, Azure and Google Cloud Storage through obstore.

It is what ``Saver("s3://…")`` and ``Saver("az://…")`` use where it is installed; ``gs://`` with ``engine="obstore"`` only.
Its requests are sent from the caller's memory by Rust, off the event loop. Options are those of s3fs, adlfs and gcsfs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fsspec import AbstractFileSystem
from fsspec.config import conf

from asyncsaver.errors import UnsupportedStoreError
from asyncsaver.store.contract import Store
from asyncsaver_backends._obstore_azure import ObstoreAzureStore
from asyncsaver_backends._obstore_fork import check_process
from asyncsaver_backends._obstore_gcs import ObstoreGcsStore
from asyncsaver_backends._obstore_s3 import ObstoreS3Store

__all__ = ["ObstoreAzureStore", "ObstoreGcsStore", "ObstoreS3Store", "open_store"]

# In the order in which fsspec looks for their configuration.
_S3 = ("s3", "s3a")
_AZURE = ("abfs", "az", "abfss", "adl")
_GCS = ("gs", "gcs")


def open_store(url: str, *, storage_options: Mapping[str, object], filesystem: AbstractFileSystem | None) -> Store:
    """Make the store for ``s3://bucket/prefix``, ``az://container/prefix`` or ``gs://bucket/prefix``.

    Args:
        url: the root.
        storage_options: as for `s3fs.S3FileSystem`, `adlfs.AzureBlobFileSystem` or `gcsfs.GCSFileSystem`.
        filesystem: must be None.

    Raises:
        InvalidRootError: the URL names no bucket.
        UnsupportedStoreError: a scheme or an option that this engine has nothing for, or a process that it cannot be used in.
        ValueError: a ready filesystem, or an option whose value makes no sense.
    """
    if filesystem is not None:
        raise ValueError("engine='obstore' cannot use a ready filesystem; leave engine at 'auto'")
    check_process()
    scheme = url.partition("://")[0].lower()
    if scheme in _S3:
        return ObstoreS3Store(url, storage_options=_configured(_S3, storage_options))
    if scheme in _AZURE:
        return ObstoreAzureStore(url, storage_options=_configured(_AZURE, storage_options))
    if scheme in _GCS:
        return ObstoreGcsStore(url, storage_options=_configured(_GCS, storage_options))
    raise UnsupportedStoreError(f"engine='obstore' serves s3://, az:// and gs://, not {scheme}://; engine='fsspec' may")


def _configured(protocols: Iterable[str], storage_options: Mapping[str, object]) -> Mapping[str, object]:
    """Put fsspec's own configuration (``FSSPEC_S3_…`` and its files) under the options, as fsspec does."""
    defaults: dict[str, object] = {}
    for protocol in protocols:
        defaults |= conf.get(protocol, {})
    return {**defaults, **storage_options}
