"""What botocore's errors mean: one table, and no text that could hold a credential.

Only error codes, HTTP statuses and class names go into messages: what S3 says about a refused signature or an unknown
key may repeat parts of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aiohttp
from botocore import exceptions as botocore_errors

from asyncsaver.errors import AccessDeniedError, StoreError, StoreTimeoutError
from asyncsaver_backends import _refusals

FOREIGN_ERRORS: tuple[type[Exception], ...] = (
    botocore_errors.BotoCoreError,
    botocore_errors.ClientError,
    aiohttp.ClientError,
    OSError,
)

_NO_CREDENTIALS = (
    botocore_errors.NoCredentialsError,
    botocore_errors.PartialCredentialsError,
    botocore_errors.CredentialRetrievalError,
    botocore_errors.TokenRetrievalError,
    botocore_errors.SSOError,
    botocore_errors.ProfileNotFound,
    botocore_errors.ConfigNotFound,
)
_TIMEOUTS = (
    botocore_errors.ReadTimeoutError,
    botocore_errors.ConnectTimeoutError,
    TimeoutError,
)
_CONNECTION = (
    botocore_errors.HTTPClientError,
    botocore_errors.ConnectionError,
    botocore_errors.IncompleteReadError,
    aiohttp.ClientError,
    OSError,
)


def translate(error: Exception, *, name: str, path: str, address: str = "the store") -> StoreError:
    """Name an error of botocore or of its transport.

    Args:
        error: what was raised.
        name: of the object or the root, for the message.
        path: for `StoreError.path`.
        address: host and port that the request went to, for the message.
    """
    if isinstance(error, botocore_errors.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return refusal(error.response.get("Error", {}), status=int(status), name=name, path=path)
    kind = type(error).__name__
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDeniedError(f"{name}: no usable credentials ({kind})", path=path)
    if isinstance(error, _TIMEOUTS):
        return StoreTimeoutError(f"{name}: no answer from {address} in time ({kind})", retryable=True, path=path)
    if isinstance(error, botocore_errors.SSLError):
        return StoreError(f"{name}: the TLS connection to {address} failed ({kind})", path=path)
    if isinstance(error, _CONNECTION):
        return StoreError(f"{name}: the connection to {address} failed ({kind})", retryable=True, path=path)
    return StoreError(f"{name}: the request could not be sent ({kind})", path=path)


def refusal(answer: Mapping[str, Any], *, status: int, name: str, path: str) -> StoreError:
    """Name what S3 said, for a whole request or for one key of a batch.

    Args:
        answer: holds ``Code``, which is the HTTP status where the answer had no body.
        status: of HTTP; 0 where there is none.
        name: of the object or the root, for the message.
        path: for `StoreError.path`.
    """
    # Some stores do not say which condition failed; every request of ours has one at most.
    ours = answer.get("Condition", "If-") in _refusals.OUR_CONDITIONS
    return _refusals.refusal(status, str(answer.get("Code", "")), _refusals.S3, name=name, path=path, ours=ours)
