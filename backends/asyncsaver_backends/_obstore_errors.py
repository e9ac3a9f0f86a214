"""What obstore's errors mean: read from the HTTP status, the error code and the kind of failure in their text.

obstore keeps the answer of the server only as text, together with whatever the server repeated in it. So nothing of it is passed
on but a status, a code and a kind. Its own classes are too coarse: every 409 is an ``AlreadyExistsError`` to it.
"""

from __future__ import annotations

import re

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    PreconditionFailedError,
    RootNotFoundError,
    StoreError,
    StoreTimeoutError,
)

FOREIGN_ERRORS: tuple[type[Exception], ...] = (BaseError, OSError)

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
# One path of a batch that was deleted.
_REFUSED_KEY = re.compile(r'DeleteFailed \{.{1,4096}?code: "(\w{1,64})"', re.DOTALL)
_CONDITION = re.compile(r"<Condition>([\w -]{1,64})</Condition>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
_NO_ROOT = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"})
_CONDITION_FAILED = frozenset(
    {"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet", "UnauthorizedBlobOverwrite"}
)
_OUR_CONDITIONS = frozenset({"If-", "If-Match", "If-None-Match"})
_DENIED = frozenset(
    {
        "AccessDenied",
        "AuthenticationFailed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_RETRYABLE = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "NoSuchUpload",  # what obstore tells of a completion whose answer was lost: it then tried to abort the upload
        "OperationAborted",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)
_TIMED_OUT = frozenset({"OperationTimedOut", "RequestTimeout", "RequestTimeoutException"})
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
    if code.isdigit():
        status, code = int(code), ""
    if "The specified container does not exist" in text:
        code = "ContainerNotFound"  # Azure gives only the status for a path in a batch
    if status or code:
        condition = _first(_CONDITION, text) or "If-"
        return _refusal(status, code, ours=condition in _OUR_CONDITIONS, name=name, path=path)
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


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _refusal(status: int, code: str, *, ours: bool, name: str, path: str) -> StoreError:
    text = f"{name}: {code or 'refused'}" + (f" (HTTP {status})" if status else "")
    if code in _NO_ROOT:
        return RootNotFoundError(f"{name}: the bucket or container does not exist", path=path)
    if (status == 404 and code not in _RETRYABLE) or code == "NoSuchKey":
        return ObjectNotFoundError(f"{name} does not exist", path=path)
    if code in _CONDITION_FAILED or (status in {304, 412} and ours):
        # Some stores do not say which condition failed; every request of ours has one at most.
        return PreconditionFailedError(text, path=path)
    if status == 416 or code == "InvalidRange":
        return ObjectTruncatedError(f"{name} ends before the range that was asked for", path=path)
    if code in _DENIED or status in {401, 403}:
        return AccessDeniedError(text, path=path)
    if code in _TIMED_OUT or status in {408, 504}:
        return StoreTimeoutError(text, retryable=True, path=path)
    retryable = code in _RETRYABLE or status == 429 or (status >= 500 and status != 501)
    return StoreError(text, retryable=retryable, path=path)
