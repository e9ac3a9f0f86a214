from __future__ import annotations

import pytest

from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    PreconditionFailedError,
    RootNotFoundError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver_backends._refusals import AZURE, S3, Codes, refusal

BOTH = S3 | AZURE


@pytest.mark.parametrize(
    ("status", "code", "codes", "kind", "retryable"),
    [
        # For one key of a batch there is no status; some stores give it as the code.
        (0, "AccessDenied", S3, AccessDeniedError, False),
        (0, "SlowDown", S3, StoreError, True),
        (0, "NoSuchKey", S3, ObjectNotFoundError, False),
        (0, "404", S3, ObjectNotFoundError, False),
        (0, "503", S3, StoreError, True),
        (404, "404", S3, ObjectNotFoundError, False),
        (404, "", S3, ObjectNotFoundError, False),
        (404, "NoSuchUpload", S3, StoreError, False),
        (416, "", S3, ObjectTruncatedError, False),
        (400, "InvalidRange", S3, ObjectTruncatedError, False),
        # The codes of one cloud mean nothing to another, unless both are asked for.
        (409, "BlobAlreadyExists", AZURE, PreconditionFailedError, False),
        (409, "BlobAlreadyExists", S3, StoreError, False),
        (409, "BlobAlreadyExists", BOTH, PreconditionFailedError, False),
        (409, "ContainerBeingDeleted", BOTH, RootNotFoundError, False),
        (404, "NoSuchBucket", BOTH, RootNotFoundError, False),
        (404, "NoSuchUpload", BOTH, StoreError, False),
        (400, "RequestTimeout", BOTH, StoreTimeoutError, True),
        (400, "OperationTimedOut", BOTH, StoreTimeoutError, True),
        (400, "AuthenticationFailed", BOTH, AccessDeniedError, False),
        (400, "SlowDown", BOTH, StoreError, True),
        # Without codes, by status alone.
        (401, "", Codes(), AccessDeniedError, False),
        (408, "", Codes(), StoreTimeoutError, True),
        (412, "", Codes(), PreconditionFailedError, False),
        (429, "", Codes(), StoreError, True),
        (500, "", Codes(), StoreError, True),
        (501, "", Codes(), StoreError, False),
        (504, "", Codes(), StoreTimeoutError, True),
    ],
)
def test_what_a_refusal_means(status: int, code: str, codes: Codes, kind: type[StoreError], retryable: bool) -> None:
    error = refusal(status, code, codes, name="bucket/object.bin", path="object.bin")
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.path == "object.bin"
    assert str(error).startswith("bucket/object.bin")


def test_a_condition_that_is_not_ours_is_unclear() -> None:
    assert type(refusal(412, "LeaseLost", AZURE, name="n", path="p", ours=False)) is StoreError
    assert type(refusal(412, "ConditionNotMet", AZURE, name="n", path="p", ours=False)) is PreconditionFailedError


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(403, "AccessDenied", "n: AccessDenied (HTTP 403)"), (403, "403", "n: refused (HTTP 403)"), (0, "X", "n: X")],
)
def test_messages_hold_code_and_status(status: int, code: str, said: str) -> None:
    assert str(refusal(status, code, S3, name="n", path="p")) == said


def test_what_does_not_exist_goes_by_the_name_of_the_cloud() -> None:
    said = [str(refusal(404, next(iter(codes.no_root)), codes, name="n", path="p")) for codes in (S3, AZURE, BOTH)]
    assert said == [f"n: the {root} does not exist" for root in ("bucket", "container", "bucket or container")]
