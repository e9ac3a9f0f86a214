"""Where the example keeps its checkpoints: what the user named, or an S3 server started for the occasion."""

from __future__ import annotations

import asyncio
import logging
import threading
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

BUCKET = "asyncsaver-demo"


@dataclass(frozen=True, slots=True)
class Place:
    """A place for checkpoints.

    Attributes:
        url: what all roots are below.
        description: for people.
        storage_options: for savers in this process; None takes credentials from the environment.
        environment: the same for a child process, as variables.
    """

    url: str
    description: str
    storage_options: dict[str, Any] | None = None
    environment: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def open_place(url: str) -> AsyncIterator[Place]:
    """Give the place to work in; an empty ``url`` means an S3 server on a free port, which ends with the block."""
    if url:
        yield Place(url.rstrip("/"), "with credentials from the environment" if "://" in url else "on this machine")
        return
    # Imported here: only this path needs it.
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    await asyncio.to_thread(server.start)
    try:
        _decide_in_turn(server)
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=30):
            pass
        yield Place(
            f"s3://{BUCKET}",
            "on an S3 server started for this (moto)",
            {"key": "demo", "secret": "demo", "endpoint_url": endpoint},
            {
                "AWS_ACCESS_KEY_ID": "demo",
                "AWS_SECRET_ACCESS_KEY": "demo",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
            },
        )
    finally:
        await asyncio.to_thread(server.stop)


def _decide_in_turn(server: Any) -> None:
    """Make moto keep a promise of S3's: of two creations of one object only one succeeds. It looks first, and then writes."""
    listening = server._server  # noqa: SLF001 - there is no public way to put something before the application
    application = listening.app
    turn = threading.Lock()

    def in_turn(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ and "HTTP_IF_MATCH" not in environ:
            return application(environ, start_response)
        with turn:
            return list(application(environ, start_response))

    listening.app = in_turn
