"""What goes wrong between a client and a storage server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from multidict import CIMultiDict

from .proxy import Answer, Exchange, Fault

_CODES = {
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    500: "InternalError",
    503: "SlowDown",
}


def error_answer(status: int, *, condition: str = "") -> Answer:
    """An error, such that S3's clients can read it; those of Google and Azure go by the status.

    Args:
        status: of HTTP.
        condition: which one failed, as S3 says after a 412.
    """
    said = f"<Condition>{condition}</Condition>" if condition else ""
    code = _CODES[status]
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message>{said}</Error>'
    headers = CIMultiDict({"Content-Type": "application/xml"})
    if condition:
        headers["x-ms-error-code"] = "ConditionNotMet"
    return Answer(status, headers, body.encode())


def refuse(status: int, *, condition: str = "") -> Fault:
    """Answer with an error; the server never sees the request."""

    async def fault(_: Exchange) -> Answer:
        return error_answer(status, condition=condition)

    return fault


def refuse_after(status: int) -> Fault:
    """Let the server carry the request out, and answer with an error."""

    async def fault(exchange: Exchange) -> Answer:
        await exchange.forward()
        return error_answer(status)

    return fault


async def forget_the_condition(exchange: Exchange) -> Answer:
    """Pass the request on; when the answer is a 412, leave out which condition failed, as Ceph does."""
    answer = await exchange.forward()
    return error_answer(412) if answer.status == 412 else answer


async def hang(exchange: Exchange) -> None:
    """Hold the answer until the client has given up; the server never sees the request."""
    await exchange.released.wait()
    exchange.cut()


async def hang_after(exchange: Exchange) -> None:
    """Let the server carry the request out, and hold the answer until the client has given up."""
    await exchange.forward()
    await exchange.released.wait()
    exchange.cut()


async def reset(exchange: Exchange) -> None:
    """Reset the connection; the server never sees the request."""
    exchange.cut()


async def lose_the_reply(exchange: Exchange) -> None:
    """Let the server carry the request out, and reset the connection before a byte of the answer."""
    await exchange.forward()
    exchange.cut()


async def cut_the_answer(exchange: Exchange) -> None:
    """Let the server carry the request out, and reset the connection in the middle of the answer."""
    answer = await exchange.forward()
    headers = answer.headers.copy()
    headers["Content-Length"] = str(len(answer.body) + 1)
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(exchange.request)
    await response.write(answer.body[: len(answer.body) // 2])
    exchange.cut()


async def error_in_success(exchange: Exchange) -> Answer:
    """Answer 200 and say in the body that it failed, as S3 may when it completes an upload."""
    answer = error_answer(500)
    del exchange
    return Answer(200, answer.headers, answer.body)


def meanwhile(do: Callable[[], Awaitable[object]], then: Fault) -> Fault:
    """Do something before the request goes on its way, then let it meet a fault."""

    async def fault(exchange: Exchange) -> Answer | None:
        await do()
        return await then(exchange)

    return fault


async def pass_on(exchange: Exchange) -> Answer:
    """No fault."""
    return await exchange.forward()


def late(copies: list[asyncio.Task[Answer]], landing: asyncio.Event) -> Fault:
    """Lose the request on its way to the server, which carries it out much later, when ``landing`` is set.

    Args:
        copies: where the requests under way are put.
        landing: until then they are under way.
    """

    async def arrive(exchange: Exchange) -> Answer:
        await landing.wait()
        return await exchange.forward()

    async def fault(exchange: Exchange) -> None:
        copies.append(asyncio.create_task(arrive(exchange)))
        exchange.cut()

    return fault


REFUSALS: Mapping[str, Fault] = {
    "412": refuse(412, condition="If-None-Match"),
    "412 without a condition": refuse(412),
    "409": refuse(409),
}
"""What says that the request itself cannot be."""

FAILURES: Mapping[str, Fault] = {
    "503": refuse(503),
    "500": refuse(500),
    "500 though done": refuse_after(500),
    "no answer": hang,
    "no answer though done": hang_after,
    "reset": reset,
    "reply lost": lose_the_reply,
    "answer cut": cut_the_answer,
}
"""What may pass when the request is sent again."""

FAULTS: Mapping[str, Fault] = {**FAILURES, **REFUSALS}
"""All of them."""
