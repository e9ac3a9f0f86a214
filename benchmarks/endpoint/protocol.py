"""HTTP/1.1 on one connection: bodies are received straight into the memory where they stay, and sent from there."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from endpoint.answers import Answer, error
from endpoint.arena import Blob
from endpoint.bodies import BadFramingError, Body, Chunked, Counted, Growing, Plain
from endpoint.service import Request, Service, parse_head
from endpoint.traffic import Pace, Settings, Traffic

SCRATCH_BYTES = 2**18
PIECE_BYTES = 2**20
PACED_SECONDS = 0.008  # how much goes through at once on a connection of limited bandwidth, in time


class Connection(asyncio.BufferedProtocol):
    """One client's connection; requests on it are answered one after the other."""

    _transport: asyncio.Transport

    def __init__(self, service: Service, settings: Settings, traffic: Traffic) -> None:
        self._service = service
        self._settings = settings
        self._traffic = traffic
        self._loop = asyncio.get_running_loop()
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._begin, self._end = 0, 0  # of what in the scratch nobody has looked at
        self._request: Request | None = None
        self._body: Body | None = None
        self._blob: Blob | Growing | None = None
        self._answer: Answer | None = None
        self._held: object = None  # the body of the answer: uvloop may still be sending its last piece
        self._outgoing: deque[memoryview] = deque()
        self._sending = False  # the answer's delay is over
        self._full = False
        self._waiting = False
        self._closed = False
        self._early = False  # the scratch is full of what came before the answer to the request before it was sent
        self._in = Pace(settings.bandwidth) if settings.bandwidth else None
        self._out = Pace(settings.bandwidth) if settings.bandwidth else None
        self._paced_bytes = max(4096, min(PIECE_BYTES, int(settings.bandwidth * PACED_SECONDS)))
        self._behind = 0.0  # seconds that the last bytes would still have been on their way
        self._paid = False  # the next piece has had its wait

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._transport.set_write_buffer_limits(high=2 * PIECE_BYTES)
        self._traffic.connected()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._outgoing.clear()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._send()

    def get_buffer(self, sizehint: int) -> memoryview:
        window = None
        if self._body is not None and self._answer is None and self._begin == self._end:
            window = self._body.window()
        if window is None:
            if self._begin:
                left = self._end - self._begin
                self._scratch[:left] = bytes(self._scratch[self._begin : self._end])
                self._begin, self._end = 0, left
            window = self._scratch[self._end :]
        return window if self._in is None else window[: self._paced_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        if self._in is not None:
            self._behind = self._in.spend(nbytes)
        body = self._body
        if body is not None and self._answer is None and self._begin == self._end and body.window() is not None:
            body.received(nbytes)
        else:
            self._end += nbytes
        self._work()
        if not self._begin and self._end == SCRATCH_BYTES and self._answer is not None:
            self._early = True
            self._transport.pause_reading()
        if self._behind > 0 and not self._closed:
            self._transport.pause_reading()
            self._loop.call_later(self._behind, self._resume_reading)

    def _resume_reading(self) -> None:
        if not self._closed and not self._early:
            self._transport.resume_reading()

    def _work(self) -> None:
        try:
            while self._answer is None and not self._closed:
                if self._body is None and not self._take_head():
                    return
                assert self._body is not None
                self._begin += self._body.feed(self._scratch[self._begin : self._end])
                if not self._body.done:
                    return
                self._handle()
        except (ValueError, KeyError, BadFramingError):
            self._transport.write(error(400, "InvalidRequest").head())
            self._transport.close()
            self._closed = True

    def _take_head(self) -> bool:
        arrived = bytes(self._scratch[self._begin : self._end])
        end = arrived.find(b"\r\n\r\n")
        if end < 0:
            if len(arrived) == SCRATCH_BYTES:
                raise BadFramingError("the headers are too long")
            return False
        self._begin += end + 4
        request = self._request = parse_head(arrived[:end])
        headers = request.headers
        length = int(headers.get("content-length", "0"))
        coded = "aws-chunked" in headers.get("content-encoding", "") or headers.get(
            "x-amz-content-sha256", ""
        ).startswith("STREAMING-")
        chunked = "chunked" in headers.get("transfer-encoding", "")
        size = int(headers["x-amz-decoded-content-length"]) if coded else None if chunked else length
        sink: Body
        if size is None:
            sink = self._blob = Growing()
        else:
            self._blob = self._service.arena.take(size)
            sink = Plain(self._blob.view)
        if coded:
            sink = Chunked(sink)
        self._body = Chunked(sink) if chunked else Counted(sink, length)
        if headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _handle(self) -> None:
        request, blob = self._request, self._blob
        assert request is not None
        assert blob is not None
        if isinstance(blob, Growing):
            blob = Blob(memoryview(blob.data))
        kind, answer = self._service.handle(request, blob)
        self._answer = answer
        self._held = answer.held
        if kind != "control":
            self._traffic.count(kind, request.target, answer.status, taken=len(blob), sent=answer.size)
        delay = self._settings.latency + self._behind if kind != "control" else 0.0
        if delay:
            self._loop.call_later(delay, self._begin_answer)
        else:
            self._begin_answer()

    def _begin_answer(self) -> None:
        if self._closed or self._answer is None:
            return
        self._sending = True
        self._outgoing.append(memoryview(self._answer.head()))
        if self._request is not None and self._request.method != "HEAD":
            self._outgoing.extend(memoryview(piece) for piece in self._answer.body)
        self._send()

    def _after_wait(self) -> None:
        self._waiting = False
        self._send()

    def _send(self) -> None:
        step = PIECE_BYTES if self._out is None else self._paced_bytes
        while self._outgoing and not self._full and not self._waiting and not self._closed:
            piece = self._outgoing.popleft()
            if len(piece) > step:
                self._outgoing.appendleft(piece[step:])
                piece = piece[:step]
            if self._out is not None and not self._paid and (wait := self._out.spend(len(piece))) > 0:
                self._outgoing.appendleft(piece)
                self._waiting = self._paid = True
                self._loop.call_later(wait, self._after_wait)
                return
            self._paid = False
            self._transport.write(piece)
        if self._sending and not self._outgoing and not self._waiting and not self._closed:
            self._finish()

    def _finish(self) -> None:
        assert self._request is not None
        close = self._request.headers.get("connection", "").lower() == "close"
        self._answer = self._request = self._body = self._blob = None
        self._sending = False
        if close:
            self._transport.close()
            self._closed = True
            return
        if self._begin != self._end:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Look at what came early; then there is room for more."""
        self._work()
        if self._early and (self._begin or self._answer is None):
            self._early = False
            self._resume_reading()
