"""What obstore's errors mean: read from the HTTP status, the error code and the kind of failure in their text.

obstore keeps the answer of the server only as text, together with whatever the server repeated in it. So nothing of it is passed
on but a status, a code and a kind. Its own classes are too coarse: every 409 is an ``AlreadyExistsError`` to it.
"""

from __future__ import annotations

import re
from dataclasses import replace

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver_backends._refusals import AZURE, OUR_CONDITIONS, S3, refusal

FOREIGN_ERRORS: tuple[type[Exception], ...] = (BaseError, OSError)

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
# One path of a batch that was deleted.
_REFUSED_KEY = re.compile(r'DeleteFailed \{.{1,4096}?code: "(\w{1,64})"', re.DOTALL)
_CONDITION = re.compile(r"<Condition>([\w -]{1,64})</Condition>")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")

_CLOUDS = S3 | AZURE
# What obstore tells of a completion whose answer was lost: it then tried to abort the upload.
_CODES = replace(_CLOUDS, retryable=_CLOUDS.retryable | {"NoSuchUpload"})
# What a server answers that does not know the checksum of an upload. Backblaze names the header, Cloudflare also its value, MinIO
# says "invalid checksum" or "unknown checksum"; Ceph may say nothing besides the code. A checksum that is known, and does not
# fit the data, is a BadDigest.
_UNKNOWN = frozenset({"InvalidArgument", "InvalidRequest", "NotImplemented"})
_CHECKSUM = re.compile(r"checksum|crc-?64", re.IGNORECASE)
_CONNECTION = frozenset({"Connect", "Interrupted", "Request"})


def translate(error: Exception, *, name: str, path: str, address: str = "the store") -> StoreError:
    """Name an error of obstore.

    Args:
        error: what was raised.
        name: of the object or the root, for the message.
        path: for `StoreError.path`.
        address: host and port that the request went to, for the message.
    """
    late = StoreTimeoutError(f"{name}: no answer from {address} in time", retryable=True, path=path)
    if isinstance(error, TimeoutError):
        return late
    text = str(error)
    found = _STATUS.search(text)
    status, code = int(found[1]) if found else 0, _first(_CODE, text) or _first(_REFUSED_KEY, text)
    if "The specified container does not exist" in text:
        code = "ContainerNotFound"  # Azure gives only the status for a path in a batch
    if status or code:
        # Some stores do not say which condition failed; every request of ours has one at most.
        ours = (_first(_CONDITION, text) or "If-") in OUR_CONDITIONS
        return refusal(status, code, _CODES, name=name, path=path, ours=ours)
    if isinstance(error, UnauthenticatedError | PermissionDeniedError):
        return AccessDeniedError(f"{name}: no usable credentials ({type(error).__name__})", path=path)
    if isinstance(error, FileNotFoundError):
        return ObjectNotFoundError(f"{name} does not exist", path=path)
    if "Received redirect without LOCATION" in text:
        return StoreError(
            f"{name}: the bucket is in another region; name it as region_name in client_kwargs", path=path
        )
    if "InvalidRangeRequest {" in text:
        return ObjectTruncatedError(f"{name} ends before the range that was asked for", path=path)
    if "NotPartial" in text:
        return StoreError(
            f"{name}: the store does not answer ranges as HTTP has it; engine='fsspec' may read it", path=path
        )
    kind = _first(_KIND, text)
    if kind == "Timeout":
        return late
    if kind in _CONNECTION and "InvalidCertificate" not in text:
        return StoreError(f"{name}: the connection to {address} failed ({kind})", retryable=True, path=path)
    return StoreError(f"{name}: the request failed ({kind or type(error).__name__})", path=path)


def concerns_single_paths(error: Exception) -> bool:
    """Whether a batch deletion was carried out, and the error is about some of its paths."""
    text = str(error)
    return "<DeleteResult" in text or _REFUSED_KEY.search(text) is not None


def refuses_checksum(error: Exception) -> bool:
    """Whether a server does not take uploads with the checksum that this one carried."""
    text = str(error)
    message = _first(_MESSAGE, text).strip()
    return _first(_CODE, text) in _UNKNOWN and (not message or _CHECKSUM.search(message) is not None)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""
