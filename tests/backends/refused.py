"""What every store must make of a refusal."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from asyncsaver.errors import StoreError

Refusal = tuple[int, str, type[StoreError], bool]
"""The status and the code of an answer, the error that it is, and whether that may be retried."""


async def assert_named(server: Any, refused: Awaitable[Any], kind: type[StoreError], *, retryable: bool) -> StoreError:
    """Check that a write of ``object.bin`` was sent once and refused with just that error, which is returned."""
    with pytest.raises(StoreError) as caught:
        await refused
    error = caught.value
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.path == "object.bin"
    assert len(server.requests) == 1
    return error
