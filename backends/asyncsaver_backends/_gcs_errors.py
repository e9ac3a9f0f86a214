"""What the answers of Google Cloud Storage and the errors of its clients mean; no text of theirs goes into messages."""

from __future__ import annotations

import aiohttp
from gcsfs.retry import HttpError, NonRetryableError
from google.auth.exceptions import GoogleAuthError

from asyncsaver.errors import AccessDeniedError, RootNotFoundError, StoreError, StoreTimeoutError
from asyncsaver_backends._refusals import Codes, refusal


class RefusedError(Exception):
    """An answer with an HTTP status that is no success.

    Attributes:
        status: of HTTP.
        reason: what the server said.
        about_bucket: a 404 can only be about the bucket, as for uploads and listings.
    """

    def __init__(self, status: int, reason: str, *, about_bucket: bool) -> None:
        super().__init__(f"HTTP {status}: {reason}")
        self.status = status
        self.reason = reason
        self.about_bucket = about_bucket


_CREDENTIALS = (GoogleAuthError, HttpError, NonRetryableError)
"""gcsfs raises the last two where refreshing a token fails."""

FOREIGN_ERRORS: tuple[type[Exception], ...] = (RefusedError, aiohttp.ClientError, OSError, *_CREDENTIALS)


def translate(error: Exception, *, name: str, path: str, address: str = "the store") -> StoreError:
    """Name an answer or an error of the transport.

    Args:
        error: what was raised.
        name: of the object or the root, for the message.
        path: for `StoreError.path`.
        address: host and port that the request went to, for the message.
    """
    kind = type(error).__name__
    if isinstance(error, RefusedError):
        return _refusal(error, name=name, path=path)
    if isinstance(error, _CREDENTIALS):
        retryable = bool(getattr(error, "retryable", False))
        return AccessDeniedError(f"{name}: no usable credentials ({kind})", retryable=retryable, path=path)
    if isinstance(error, TimeoutError):
        return StoreTimeoutError(f"{name}: no answer from {address} in time ({kind})", retryable=True, path=path)
    retryable = not isinstance(error, (aiohttp.ClientSSLError, aiohttp.InvalidURL))
    return StoreError(f"{name}: the connection to {address} failed ({kind})", retryable=retryable, path=path)


def _refusal(error: RefusedError, *, name: str, path: str) -> StoreError:
    if error.status == 404 and (error.about_bucket or "bucket does not exist" in error.reason):
        return RootNotFoundError(f"{name}: the bucket does not exist", path=path)
    # https://cloud.google.com/storage/docs/retry-strategy: 429 and 5xx are transient, 501 is not
    return refusal(error.status, "", Codes(), name=name, path=path)
