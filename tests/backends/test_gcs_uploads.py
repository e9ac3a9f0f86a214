"""Resumable uploads that fail on the way, at a server that keeps Google's protocol (the emulator does not)."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web

from asyncsaver.errors import StoreError
from asyncsaver.store import Part
from asyncsaver.store.retry import Retries, RetryingStore
from asyncsaver_backends.gcs import GcsStore

PART = 2**18

pytestmark = pytest.mark.server


@dataclass(slots=True)
class ResumableServer:
    """One object, uploaded as the documentation says.

    https://cloud.google.com/storage/docs/performing-resumable-uploads
    """

    url: str
    bodies: list[bytes]
    faults: dict[int, str] = field(default_factory=dict)
    """By the number of the request, from 1 on: "503", "500" (carried out), "half" (of it carried out), "gone"."""
    log: list[str] = field(default_factory=list)
    content: bytearray = field(default_factory=bytearray)
    complete: bool = False
    gone: bool = False

    def answer(self, request: web.Request) -> web.Response:
        sent = request.headers.get("Content-Range", "")
        self.log.append(f"{request.method} {sent}".strip())
        fault = self.faults.get(len(self.log), "")
        self.gone = self.gone or fault == "gone"
        if request.method == "DELETE":
            return web.Response(status=499)
        if fault == "503":
            return web.Response(status=503)
        answer = self._carry_out(request, sent, self.bodies[-1], half=fault == "half")
        return web.Response(status=500) if fault in {"500", "half"} else answer

    def _carry_out(self, request: web.Request, sent: str, body: bytes, *, half: bool) -> web.Response:
        if request.method == "POST":
            return web.Response(headers={"Location": f"{self.url}/session"})
        if request.method == "GET":
            if not self.complete:
                return web.Response(status=404)
            return web.json_response({"name": "run/large.bin", "size": str(len(self.content)), "generation": "3"})
        if self.gone:
            return web.Response(status=410)
        at, _, total = sent.removeprefix("bytes ").partition("/")
        if at != "*":
            assert int(at.split("-")[0]) == len(self.content), "sent at another place than the server is at"
            self.content += body[: len(body) // 2] if half else body
        self.complete = len(self.content) == int(total)
        if self.complete:
            return web.json_response({"name": "run/large.bin", "generation": "3"})
        headers = {"Range": f"bytes=0-{len(self.content) - 1}"} if self.content else {}
        return web.Response(status=308, headers=headers)


@pytest.fixture
def server(canned_server: Any) -> ResumableServer:
    server = ResumableServer(canned_server.url, canned_server.bodies)
    canned_server.answer = server.answer
    return server


async def upload(server: ResumableServer, content: bytes, timeout: float = 60.0) -> None:  # noqa: ASYNC109 - of the retries
    async def parts() -> AsyncIterator[Part]:
        for start in range(0, len(content), PART):
            yield nullcontext(memoryview(content[start : start + PART]))

    options = {"endpoint_url": server.url, "token": "anon"}
    store = GcsStore("gs://bucket/run", storage_options=options)
    store.capabilities = replace(store.capabilities, part_bytes=PART)
    async with RetryingStore(store, Retries(timeout, base=0.01, cap=0.02)) as retrying:
        await retrying.put_parts("large.bin", parts(), size=len(content))


CONTENT = random.Random(1).randbytes(3 * PART + 100)


@pytest.mark.parametrize("fault", ["503", "500", "half"])
@pytest.mark.parametrize("part", [1, 2, 4])
async def test_after_a_failure_the_server_is_asked_what_it_has_and_sent_the_rest(
    server: ResumableServer, fault: str, part: int
) -> None:
    server.faults = {1 + part: fault}
    await upload(server, CONTENT)
    assert server.content == CONTENT
    assert server.complete
    assert server.log.count("POST") == 1
    assert server.log.count(f"PUT bytes */{len(CONTENT)}") == 1
    again = {"503": 1, "500": 0, "half": 1}[fault]
    assert len([line for line in server.log if line.startswith("PUT bytes ") and "*" not in line]) == 4 + again


async def test_asking_and_beginning_may_fail_as_well(server: ResumableServer) -> None:
    server.faults = {1: "503", 3: "500", 4: "503", 5: "503", 7: "half", 8: "503"}
    await upload(server, CONTENT)
    assert server.content == CONTENT
    assert server.log.count("POST") == 2


async def test_an_upload_that_the_server_has_forgotten_is_over(server: ResumableServer) -> None:
    server.faults = {3: "gone"}
    with pytest.raises(StoreError, match="no more") as caught:
        await upload(server, CONTENT)
    assert caught.value.retryable
    assert len(server.log) == 4
    assert server.log[-1] == "DELETE"


async def test_told_to_send_once_nothing_is_asked_or_sent_again(server: ResumableServer) -> None:
    server.faults = {3: "503"}
    with pytest.raises(StoreError, match="503"):
        await upload(server, CONTENT, timeout=0)
    assert [line.split()[0] for line in server.log] == ["POST", "PUT", "PUT", "DELETE"]
