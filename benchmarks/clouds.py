"""Servers that speak the APIs of Google Cloud Storage and Azure: the ones that the tests start."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from peers.contract import BUCKET, Place

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # last: nothing there may hide a module of that name

from servers import kinds

UnavailableError = kinds.UnavailableError
"""The server cannot run on this machine; the message says what is missing."""


@contextlib.contextmanager
def cloud(kind: str) -> Iterator[Place]:
    """Run a server with one empty bucket for the duration of a block.

    Args:
        kind: "gs" or "az".

    Raises:
        UnavailableError: it cannot run here.
    """
    start = {"gs": kinds.gcs, "az": kinds.azure}[kind]
    with tempfile.TemporaryDirectory(prefix="asyncsaver-bench-") as folder, start(Path(folder)) as server:
        server.make_bucket(BUCKET)
        yield Place(kind, endpoint=server.endpoint_url, storage_options=dict(server.storage_options))
