"""What an answer of a cloud that is no success means: by its error code, else by its HTTP status.

Nothing but code and status goes into messages: what a cloud says besides may repeat parts of keys and signatures.
"""

from __future__ import annotations

from dataclasses import dataclass

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    PreconditionFailedError,
    RootNotFoundError,
    StoreError,
    StoreTimeoutError,
)

OUR_CONDITIONS = frozenset({"If-", "If-Match", "If-None-Match"})
"""What S3 may name as the condition that failed, where it is one that we set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """The error codes of a cloud that say more than the status they come with; ``|`` joins those of several.

    Attributes:
        root: what the cloud calls that which holds objects.
        no_root: there is none of that name.
        not_an_object: what is missing is no object.
        condition: the condition of the request does not hold.
        denied: the credentials do not suffice.
        timed_out: the cloud has waited too long.
        retryable: the same request may succeed later.
    """

    root: str = "bucket"
    no_root: frozenset[str] = frozenset()
    not_an_object: frozenset[str] = frozenset()
    condition: frozenset[str] = frozenset()
    denied: frozenset[str] = frozenset()
    timed_out: frozenset[str] = frozenset()
    retryable: frozenset[str] = frozenset()

    def __or__(self, other: Codes) -> Codes:
        return Codes(
            root=f"{self.root} or {other.root}",
            no_root=self.no_root | other.no_root,
            not_an_object=self.not_an_object | other.not_an_object,
            condition=self.condition | other.condition,
            denied=self.denied | other.denied,
            timed_out=self.timed_out | other.timed_out,
            retryable=self.retryable | other.retryable,
        )


# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
S3 = Codes(
    root="bucket",
    no_root=frozenset({"NoSuchBucket"}),
    not_an_object=frozenset({"NoSuchUpload"}),
    denied=frozenset(
        {
            "AccessDenied",
            "AccountProblem",
            "AllAccessDisabled",
            "AuthFailure",
            "ExpiredToken",
            "InvalidAccessKeyId",
            "InvalidSecurity",
            "InvalidToken",
            "NotSignedUp",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
            "UnauthorizedAccess",
        }
    ),
    timed_out=frozenset({"RequestTimeout", "RequestTimeoutException"}),
    retryable=frozenset(
        {
            "BandwidthLimitExceeded",
            "ConditionalRequestConflict",
            "IncompleteBody",
            "InternalError",
            "OperationAborted",
            "PriorRequestNotComplete",
            "RequestLimitExceeded",
            "ServiceUnavailable",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
        }
    ),
)

# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
AZURE = Codes(
    root="container",
    no_root=frozenset({"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"}),
    condition=frozenset({"BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet", "UnauthorizedBlobOverwrite"}),
    denied=frozenset({"AuthenticationFailed"}),
    timed_out=frozenset({"OperationTimedOut"}),
)


def refusal(status: int, code: str, codes: Codes, *, name: str, path: str, ours: bool = True) -> StoreError:
    """Name an answer that is no success.

    Args:
        status: of HTTP; 0 where there is none, as for one key of a batch.
        code: empty, or the status once more, where there is none.
        codes: of the cloud.
        name: of the object or the root, for the message.
        path: for `StoreError.path`.
        ours: whether a 412 is about a condition that we set, where its code does not say so.
    """
    if code.isdigit():
        status, code = int(code), ""
    text = f"{name}: {code or 'refused'}" + (f" (HTTP {status})" if status else "")
    if code in codes.no_root:
        return RootNotFoundError(f"{name}: the {codes.root} does not exist", path=path)
    if code == "NoSuchKey" or (status == 404 and code not in codes.not_an_object):
        return ObjectNotFoundError(f"{name} does not exist", path=path)
    if code in codes.condition or (status == 412 and ours):
        return PreconditionFailedError(text, path=path)
    if code == "InvalidRange" or status == 416:
        return ObjectTruncatedError(f"{name} ends before the range that was asked for", path=path)
    if code in codes.denied or status in {401, 403}:
        return AccessDeniedError(text, path=path)
    if code in codes.timed_out or status in {408, 504}:
        return StoreTimeoutError(text, retryable=True, path=path)
    # 501 means that the server cannot do it at all.
    retryable = code in codes.retryable or status == 429 or (status >= 500 and status != 501)
    return StoreError(text, retryable=retryable, path=path)
