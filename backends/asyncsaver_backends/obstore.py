"""Checkpoints in S3 and Azure through obstore: ``Saver(url, engine="obstore")``.

Its requests are sent from the caller's memory by Rust, off the event loop. Options are those of s3fs and adlfs.
"""

from __future__ import annotations

from collections.abc import Mapping

from fsspec import AbstractFileSystem

from asyncsaver.errors import UnsupportedStoreError
from asyncsaver.store.contract import Store
from asyncsaver_backends._obstore_azure import ObstoreAzureStore
from asyncsaver_backends._obstore_s3 import ObstoreS3Store

__all__ = ["ObstoreAzureStore", "ObstoreS3Store", "open_store"]

_S3 = frozenset({"s3", "s3a"})
_AZURE = frozenset({"abfs", "abfss", "adl", "az"})


def open_store(url: str, *, storage_options: Mapping[str, object], filesystem: AbstractFileSystem | None) -> Store:
    """Make the store for ``s3://bucket/prefix`` or ``az://container/prefix``.

    Args:
        url: the root.
        storage_options: as for `s3fs.S3FileSystem` or `adlfs.AzureBlobFileSystem`.
        filesystem: must be None.

    Raises:
        InvalidRootError: the URL names no bucket.
        UnsupportedStoreError: a scheme or an option that this engine has nothing for.
        ValueError: a ready filesystem, or an option whose value makes no sense.
    """
    if filesystem is not None:
        raise ValueError("engine='obstore' cannot use a ready filesystem; leave engine at 'auto'")
    scheme = url.partition("://")[0].lower()
    if scheme in _S3:
        return ObstoreS3Store(url, storage_options=storage_options)
    if scheme in _AZURE:
        return ObstoreAzureStore(url, storage_options=storage_options)
    raise UnsupportedStoreError(f"engine='obstore' serves s3:// and az://, not {scheme}://; engine='fsspec' may")
