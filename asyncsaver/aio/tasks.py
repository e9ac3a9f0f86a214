"""Structured concurrency for work whose callers expect the plain error, not an exception group."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def run_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines at once and return their results in order.

    When one fails the others are cancelled and waited for, and its own error is raised: the first, with further ones noted
    on it. When cancelled, all are cancelled and waited for.
    """
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(coroutine) for coroutine in work)
    except BaseExceptionGroup as errors:
        raise_first(errors)
    return [task.result() for task in tasks]


async def run_both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Run two coroutines at once and return both results; errors as `run_all` raises them."""
    try:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(first)
            other = group.create_task(second)
    except BaseExceptionGroup as errors:
        raise_first(errors)
    return one.result(), other.result()


def raise_first(errors: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise the first error of a group by itself, with its own cause, and the others as notes on it."""
    leaves = list(_leaves(errors))
    for other in leaves[1:]:
        leaves[0].add_note(f"also: {type(other).__name__}: {other}")
    raise leaves[0] from leaves[0].__cause__


def _leaves(errors: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
