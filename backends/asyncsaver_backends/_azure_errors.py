"""What the errors of the Azure SDK mean: codes and statuses only, since Azure's own text repeats signatures."""

from __future__ import annotations

from azure.core import exceptions as azure_errors

from asyncsaver.errors import AccessDeniedError, StoreError, StoreTimeoutError
from asyncsaver_backends._refusals import AZURE, refusal

FOREIGN_ERRORS: tuple[type[Exception], ...] = (azure_errors.AzureError, OSError)


def translate(error: Exception, *, name: str, path: str, address: str = "the store") -> StoreError:
    """Name an error of the SDK or of its transport.

    Args:
        error: what was raised.
        name: of the object or the root, for the message.
        path: for `StoreError.path`.
        address: host and port that the request went to, for the message.
    """
    kind = type(error).__name__
    if isinstance(error, azure_errors.HttpResponseError) and error.status_code:
        # Each condition of Azure has a code of its own; any other 412 is about something else, such as a lease.
        return refusal(int(error.status_code), _code(error), AZURE, name=name, path=path, ours=False)
    if isinstance(error, azure_errors.ClientAuthenticationError) or kind == "AzureSigningError":
        return AccessDeniedError(f"{name}: no usable credentials ({kind})", path=path)
    timeouts = (azure_errors.ServiceRequestTimeoutError, azure_errors.ServiceResponseTimeoutError, TimeoutError)
    if isinstance(error, timeouts):
        return StoreTimeoutError(f"{name}: no answer from {address} in time ({kind})", retryable=True, path=path)
    connection = (azure_errors.ServiceRequestError, azure_errors.ServiceResponseError, OSError)
    if isinstance(error, (*connection, azure_errors.IncompleteReadError, azure_errors.HttpResponseError)):
        return StoreError(f"{name}: the connection to {address} failed ({kind})", retryable=True, path=path)
    return StoreError(f"{name}: the request could not be sent ({kind})", path=path)


def _code(error: azure_errors.HttpResponseError) -> str:
    code = getattr(error, "error_code", "")  # set by the storage package, as a member of an enumeration or as text
    return str(getattr(code, "value", code) or "")
