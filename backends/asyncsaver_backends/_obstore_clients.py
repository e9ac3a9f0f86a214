"""The clients of obstore that a store sends its requests with.

Reading and writing have one each: obstore's read timeout starts when a request does, and would cut an upload that moves but takes
longer. Uploads have a deadline by their size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asyncsaver_backends._transfer import PATIENCE

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MOVING_BYTES = 4 * 2**20
"""How much an upload must move in the time of a read timeout to count as alive: obstore tells only when a whole body was sent."""


@dataclass(frozen=True, slots=True)
class Clients:
    """What `ObstoreStore` sends its requests with.

    Attributes:
        reader: has a read timeout.
        writer: has none.
        remover: deletes objects one by one, for servers without batch deletion and to know which ones failed.
        endpoint: URL that requests go to.
        read_timeout: how long an answer may stand still, in seconds.
        resending: makes a writer that sends each request again for so many seconds. Called in a thread.
        without_checksum: makes clients for a server that does not know the checksum which these send with uploads. Called in a
            thread. None where there is nothing to give up.
    """

    reader: ObjectStore
    writer: ObjectStore
    remover: ObjectStore
    endpoint: str
    read_timeout: float
    resending: Callable[[float], ObjectStore]
    without_checksum: Callable[[], Clients] | None = None

    def patience(self, size: int) -> float:
        """How long sending so many bytes may take, in seconds."""
        return self.read_timeout * (PATIENCE + size / MOVING_BYTES)


def http_options(endpoint: str, connect_timeout: float, read_timeout: float | None) -> dict[str, Any]:
    """What an HTTP client of obstore is told: a whole request has no limit, standing still has one where that can be seen."""
    settings: dict[str, Any] = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=connect_timeout),
        "timeout": timedelta(days=7),
    }
    if read_timeout is not None:
        settings["read_timeout"] = timedelta(seconds=read_timeout)
    return settings
