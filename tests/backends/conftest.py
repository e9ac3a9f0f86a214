"""A real HTTP server that answers as a test says, for what the storage servers cannot be made to do."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import obstore
import obstore.store
import pytest
from aiohttp import web

Answer = Callable[[web.Request], web.Response | Awaitable[web.Response]]


@dataclass(slots=True)
class CannedServer:
    """Answers every request with what `answer` gives for it.

    Attributes:
        url: without a trailing slash.
        requests: method and path with query of each request, in order.
        bodies: and their bodies.
    """

    url: str = ""
    answer: Answer = field(default=lambda _: web.Response(status=500))
    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.requests.append(f"{request.method} {request.rel_url}")
        answer = self.answer(request)
        return answer if isinstance(answer, web.Response) else await answer


@pytest.fixture
async def canned_server() -> AsyncIterator[CannedServer]:
    server = CannedServer()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
def headers(canned_server: CannedServer) -> list[Any]:
    """Those of each request; all are answered with 200."""
    seen: list[Any] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.Response(headers={"ETag": '"etag"'})

    canned_server.answer = answer
    return seen


@pytest.fixture
async def obstore_runtime() -> None:
    """The threads and sockets of its own that obstore keeps for the process are there, before anyone looks for leaks."""
    await obstore.put_async(obstore.store.MemoryStore(), "object.bin", b"content")


@pytest.fixture
def unused_port() -> int:
    """A loopback port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
