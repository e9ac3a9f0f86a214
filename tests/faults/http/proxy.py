"""A reverse proxy before a real storage server that misbehaves in the way a test asks for."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from .operations import Operation, operation_of

Where = Callable[[Operation], bool]

# What belongs to one connection, and is not for the other side of a proxy.
_OF_THE_CONNECTION = frozenset({"connection", "transfer-encoding", "keep-alive", "expect"})
_OF_THE_SERVER = frozenset({"date", "server"})  # a client's own date is signed


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, or what the proxy says in its place."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


@dataclass(slots=True)
class Exchange:
    """A request in the hands of a fault.

    Attributes:
        operation: what it wants.
        forward: sends it to the real server and gives the answer; each time anew.
        released: set when the proxy closes; what holds a request waits for it.
        request: as aiohttp has it.
    """

    operation: Operation
    forward: Callable[[], Awaitable[Answer]]
    released: asyncio.Event
    request: web.Request

    def cut(self) -> None:
        """Reset the client's connection."""
        if self.request.transport is not None:
            self.request.transport.abort()


Fault = Callable[[Exchange], Awaitable[Answer | None]]
"""Gives the answer to send to the client; None when the connection was cut, or the answer already sent."""


@dataclass(slots=True)
class Rule:
    """Which requests are hit.

    Attributes:
        where: says so.
        fault: what happens to them.
        times: how many of them; None for all.
        hits: how many were.
        before_body: strike before the request's body was read.
    """

    where: Where
    fault: Fault
    times: int | None = 1
    hits: int = 0
    before_body: bool = False

    def wants(self, operation: Operation) -> bool:
        """Whether this request is to be hit."""
        return (self.times is None or self.hits < self.times) and self.where(operation)


@dataclass(slots=True)
class Proxy:
    """Passes everything on, but what a rule hits.

    Args:
        scheme: of the cloud behind it.
        upstream: the real server, without a trailing slash.

    Attributes:
        url: where it listens, without a trailing slash.
        seen: every request, in the order in which they came.
    """

    scheme: str
    upstream: str
    url: str = ""
    seen: list[Operation] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _rules: list[Rule] = field(default_factory=list)
    _client: aiohttp.ClientSession | None = None

    def misbehave(self, where: Where, fault: Fault, *, times: int | None = 1, before_body: bool = False) -> Rule:
        """Hit the next requests of some kind; ``rule.hits`` then counts them."""
        rule = Rule(where, fault, times, before_body=before_body)
        self._rules.append(rule)
        return rule

    def behave(self) -> None:
        """Pass everything on again, and forget what was seen."""
        self._rules.clear()
        self.seen.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Serve on a free loopback port until the block ends."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle, expect_handler=self._expect)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=1)
        await runner.setup()
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as self._client:
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                host, port = runner.addresses[0][:2]
                self.url = f"http://{host}:{port}"
                yield self
            finally:
                self.released.set()
                await runner.cleanup()

    async def _expect(self, request: web.Request) -> None:
        """Tell a client that waits for it to go on with the body."""
        if not self._stalls(request) and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = b"" if self._stalls(request) else await request.read()
        operation = operation_of(self.scheme, request.method, request.raw_path, request.headers, body)
        self.seen.append(operation)

        async def forward() -> Answer:
            return await self._forward(request, body)

        exchange = Exchange(operation, forward, self.released, request)
        rule = next((rule for rule in self._rules if rule.wants(operation)), None)
        if rule is None:
            answer: Answer | None = await forward()
        else:
            rule.hits += 1
            answer = await rule.fault(exchange)
        if answer is None:
            return web.Response()  # nobody is there to read it
        return _response(request, answer)

    def _stalls(self, request: web.Request) -> bool:
        """Whether a rule wants this request before its body is read."""
        rules = [rule for rule in self._rules if rule.before_body]
        if not rules:
            return False
        operation = operation_of(self.scheme, request.method, request.raw_path, request.headers, b"")
        return any(rule.wants(operation) for rule in rules)

    async def _forward(self, request: web.Request, body: bytes) -> Answer:
        assert self._client is not None
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _OF_THE_CONNECTION]
        async with self._client.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers=headers,
            data=io.BytesIO(body),
            allow_redirects=False,
            skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        ) as answer:
            content = await answer.read()
            kept = CIMultiDict(
                (name, value)
                for name, value in answer.headers.items()
                if name.lower() not in _OF_THE_CONNECTION | _OF_THE_SERVER
            )
        if "Location" in kept:  # a resumable upload goes on where this says
            kept["Location"] = kept["Location"].replace(self.upstream, self.url)
        return Answer(answer.status, kept, content)


def _response(request: web.Request, answer: Answer) -> web.Response:
    headers = answer.headers.copy()
    length = headers.popall("Content-Length", [])
    if request.method == "HEAD" and length:
        headers["Content-Length"] = length[0]
        return web.Response(status=answer.status, headers=headers)
    return web.Response(status=answer.status, headers=headers, body=answer.body)
