"""Objects by key, and the uploads that are to become some. No I/O."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from endpoint.arena import Blob


@dataclass(frozen=True, slots=True)
class Object:
    """What stands at a key.

    Attributes:
        blobs: the body, in pieces.
        etag: with quotes; a number, not a hash, which would cost time.
        modified: UTC.
    """

    blobs: Sequence[Blob]
    etag: str
    modified: datetime

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return sum(len(blob) for blob in self.blobs)

    def read(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``stop``, not copied."""
        for blob in self.blobs:
            if start < len(blob) and stop > 0:
                yield blob.view[max(0, start) : stop]
            start -= len(blob)
            stop -= len(blob)


@dataclass(slots=True)
class Upload:
    """A multipart upload that is not complete."""

    key: str
    parts: dict[int, Object] = field(default_factory=dict)
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a listing. ``after`` is where the next one goes on, or None at the end."""

    objects: Sequence[tuple[str, Object]]
    prefixes: Sequence[str]
    after: str | None


class Bucket:
    """One bucket; it is there as soon as somebody names it."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self._numbers = itertools.count(1)

    def make(self, blobs: Sequence[Blob]) -> Object:
        """An object that stands nowhere yet."""
        return Object(tuple(blobs), f'"{next(self._numbers):032x}"', datetime.now(UTC))

    def begin_upload(self, key: str) -> str:
        """Returns the upload's id."""
        upload_id = f"upload-{next(self._numbers)}"
        self.uploads[upload_id] = Upload(key)
        return upload_id

    def page(self, prefix: str, delimiter: str, after: str, limit: int) -> Page:
        """List keys after ``after``, those behind the delimiter rolled up into their prefix."""
        objects: list[tuple[str, Object]] = []
        prefixes: list[str] = []
        last = after
        for key in sorted(key for key in self.objects if key.startswith(prefix) and key > after):
            rest = key[len(prefix) :]
            rolled = (
                prefix + rest[: rest.index(delimiter) + len(delimiter)] if delimiter and delimiter in rest else None
            )
            if rolled is not None and (prefixes[-1:] == [rolled] or (after and after.startswith(rolled))):
                last = key
                continue
            if len(objects) + len(prefixes) == limit:
                return Page(objects, prefixes, last)
            if rolled is None:
                objects.append((key, self.objects[key]))
            else:
                prefixes.append(rolled)
            last = key
        return Page(objects, prefixes, None)
