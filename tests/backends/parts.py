"""Parts of large objects, and what is left of uploads that were not completed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

from asyncsaver.store import Part
from asyncsaver_backends.s3 import S3Store


async def parts_of(count: int, size: int, then: asyncio.Event | None = None) -> AsyncIterator[Part]:
    """So many parts; with an event, that is set and no end ever comes."""
    for _ in range(count):
        yield nullcontext(memoryview(bytearray(size)))
    if then is not None:
        then.set()
        await asyncio.Event().wait()


async def unfinished_uploads(store: S3Store) -> list[Any]:
    """Those of the whole bucket."""
    found: list[Any] = (await store._call("list_multipart_uploads")).get("Uploads", [])
    return found
