"""From gcsfs' vocabulary of storage options to obstore's configuration: every option is translated, or refused by name.

What credentials a ``token`` means, and where requests go when no ``endpoint_url`` is given (``STORAGE_EMULATOR_HOST``, another
universe), is left to gcsfs itself, see `ObstoreGcsStore`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncsaver.errors import UnsupportedStoreError

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0

_OPTIONS = frozenset({"access", "endpoint_url", "project", "requester_pays", "requests_timeout", "token"})
_ACCESS = frozenset({"full_control", "read_only", "read_write"})


@dataclass(frozen=True, slots=True)
class GcsOptions:
    """What the user asked for.

    Attributes:
        for_gcsfs: the same for gcsfs, which makes endpoint, credentials and the project to be billed of it.
        billed: requests are charged to a project of the user, not to the bucket's.
        connect_timeout: in seconds.
        read_timeout: in seconds.
        total_timeout: of a whole request, in seconds; None for no limit.
    """

    for_gcsfs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    billed: bool = False
    connect_timeout: float = CONNECT_TIMEOUT
    read_timeout: float = READ_TIMEOUT
    total_timeout: float | None = None


def gcs_options(options: Mapping[str, Any]) -> GcsOptions:
    """Translate what `gcsfs.GCSFileSystem` takes.

    Raises:
        UnsupportedStoreError: an option that obstore has nothing for; ``engine="fsspec"`` knows it.
        ValueError: a value that makes no sense. The message does not repeat it.
    """
    for name in options:
        if name not in _OPTIONS:
            raise UnsupportedStoreError(
                f"engine='obstore' cannot honour {str(name)!r} in storage_options; engine='fsspec' can"
            )
    if options.get("access", "full_control") not in _ACCESS:
        raise ValueError("access in storage_options must be 'read_only', 'read_write' or 'full_control'")
    endpoint = options.get("endpoint_url")
    if endpoint is not None and not str(endpoint).startswith(("http://", "https://")):
        raise ValueError("endpoint_url must start with http:// or https://")
    given = dict(options)
    if endpoint is not None:
        given["endpoint_url"] = str(endpoint).rstrip("/")
    connect, read, total = _timeouts(options.get("requests_timeout"))
    return GcsOptions(given, bool(options.get("requester_pays")), connect, read, total)


def _timeouts(given: Any) -> tuple[float, float, float | None]:
    """Take an `aiohttp.ClientTimeout` or the seconds of a whole request, as gcsfs does."""
    if given is None:
        return CONNECT_TIMEOUT, READ_TIMEOUT, None
    if isinstance(given, int | float):
        return CONNECT_TIMEOUT, READ_TIMEOUT, float(given) or None
    try:
        # No request waits for a free connection here, so both limits of connecting mean the same.
        connecting = [limit for limit in (given.connect, given.sock_connect) if limit]
        reading, total = given.sock_read, given.total
    except AttributeError:
        raise ValueError("requests_timeout must be an aiohttp.ClientTimeout or a number of seconds") from None
    return min(connecting, default=CONNECT_TIMEOUT), reading or READ_TIMEOUT, total or None
