"""Uploads whose requests obstore sends again by itself: it takes a whole upload, and has no hook for a single request.

What it does (object_store 0.14, ``client/retry.rs`` and ``upload.rs``): each request by itself is sent again after a 5xx, 408 or
429, after a timeout, and when the connection fails before an answer, for as long as it is told, counted from its first try. That
holds for parts and blocks, for the request that begins an upload and for the one that completes it, there also for an error
within a success. A completion whose reply was lost then finds no upload any more. When a request fails for good, the upload is
aborted, which is sent again for as long once more. Nobody is told of the tries in between.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import RetryConfig

LONGEST_SECONDS = 240.0
"""How long one request may be sent again: each try has the signature of the first, which holds for some minutes."""
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=0.1), timedelta(seconds=5)
_UNCOUNTED = 1_000_000  # the time decides
_GONE = ("<Code>NoSuchUpload</Code>", "<Code>InvalidPart</Code>", "<Code>InvalidBlockList</Code>")


def retry_config(seconds: float) -> RetryConfig:
    """How often a client of obstore sends a request.

    Args:
        seconds: 0 for once; else as long as it may be sent again, the abortion included that follows when it fails for good.
    """
    if not seconds:
        return {"max_retries": 0}
    return {
        "max_retries": _UNCOUNTED,
        "retry_timeout": timedelta(seconds=min(seconds / 2, LONGEST_SECONDS)),
        "backoff": {"init_backoff": _FIRST_PAUSE, "max_backoff": _LONGEST_PAUSE, "base": 2},
    }


def was_sent_again(error: BaseException | None) -> bool:
    """Whether obstore had sent a request more than once when it gave up."""
    return "retry_timeout: " in str(error)


def is_gone(error: BaseException | None) -> bool:
    """Whether the store does not have the upload as it was sent: it was aborted, or completed by a try whose reply was lost."""
    return any(code in str(error) for code in _GONE)
