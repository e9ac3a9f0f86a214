"""Faults for a `FaultyStore`, and which operations they strike."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from asyncsaver.errors import ObjectTruncatedError, StoreError, StoreTimeoutError
from asyncsaver.store.buffers import plain_bytes
from asyncsaver.store.contract import Blob

_READS = frozenset({"get", "get_into"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One call on a store.

    Attributes:
        name: of the method of `Store`; a ``put`` that creates is called "create", a part of an upload "part".
        path: of the object; of a delete the first one, of a list the prefix.
        count: which call on this store it is, from 1.
        ranges: what a ``get_into`` reads.
        buffers: where to.
    """

    name: str
    path: str
    count: int
    ranges: Sequence[tuple[int, int]] = field(default=(), repr=False)
    buffers: Sequence[memoryview] = field(default=(), repr=False)


When = Callable[[Operation], bool]
Work = Callable[[], Awaitable[Any]]


def at(*counts: int) -> When:
    """Strike the n-th operation of the store, counted from 1; several may be given."""
    return lambda operation: operation.count in counts


def after(count: int) -> When:
    """Strike every operation after so many: the network is gone."""
    return lambda operation: operation.count > count


def on(name: str = "*", path: str = "*") -> When:
    """Strike operations by name and path; both may hold ``*`` and ``?`` as file names do.

    Args:
        name: such as ``create`` or ``get*``.
        path: such as ``*/manifest*.json``; here ``*`` also stands for slashes.
    """
    return lambda operation: fnmatch.fnmatchcase(operation.name, name) and fnmatch.fnmatchcase(operation.path, path)


class Fault(Protocol):
    """What happens to an operation in place of just being carried out. Anything with these two serves."""

    def strikes(self, operation: Operation) -> bool:
        """Whether it strikes this operation. Asked once for each."""
        ...

    async def around(self, operation: Operation, work: Work) -> Any:
        """Carry the operation out, or not, and return its result or raise.

        Args:
            operation: which.
            work: carries it out; a coroutine function without arguments.
        """
        ...


@dataclass(slots=True)
class _Striking:
    """When a fault strikes, and how often.

    Attributes:
        when: which operations; see `at`, `after` and `on`, or any function of the `Operation`.
        times: how many of them; None for all.
    """

    when: When
    times: int | None = field(default=1, kw_only=True)

    def strikes(self, operation: Operation) -> bool:
        """See `Fault`."""
        if self.times == 0 or not self.when(operation):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(slots=True)
class FailBefore(_Striking):
    """The operation is not carried out, and fails.

    Attributes:
        error: makes the error; a `StoreError` that is not worth a retry by default.
    """

    error: Callable[[Operation], Exception] = field(
        default=lambda operation: StoreError(f"{operation.name} {operation.path}: broken", path=operation.path),
        kw_only=True,
    )

    async def around(self, operation: Operation, work: Work) -> Any:  # noqa: ARG002 - it is not carried out
        """See `Fault`."""
        raise self.error(operation)


@dataclass(slots=True)
class Throttle(_Striking):
    """The operation is not carried out: 503, slow down. Worth a retry."""

    async def around(self, operation: Operation, work: Work) -> Any:  # noqa: ARG002 - it is not carried out
        """See `Fault`."""
        message = f"{operation.name} {operation.path}: 503, slow down"
        raise StoreError(message, retryable=True, path=operation.path)


@dataclass(slots=True)
class LoseReply(_Striking):
    """The operation is carried out, and its reply is lost: the caller sees a timeout. Worth a retry."""

    async def around(self, operation: Operation, work: Work) -> Any:
        """See `Fault`."""
        await work()
        message = f"{operation.name} {operation.path}: no answer"
        raise StoreTimeoutError(message, retryable=True, path=operation.path)


@dataclass(slots=True)
class Delay(_Striking):
    """The operation is carried out later.

    Attributes:
        seconds: how much later.
    """

    seconds: float = field(default=0.1, kw_only=True)

    async def around(self, operation: Operation, work: Work) -> Any:  # noqa: ARG002 - all are delayed alike
        """See `Fault`."""
        await asyncio.sleep(self.seconds)
        return await work()


@dataclass(slots=True)
class Hang(_Striking):
    """The operation never answers, and is carried out, if at all, before it hangs.

    Attributes:
        applied: whether it is carried out.
    """

    applied: bool = field(default=False, kw_only=True)

    async def around(self, operation: Operation, work: Work) -> Any:  # noqa: ARG002 - all hang alike
        """See `Fault`."""
        if self.applied:
            await work()
        await asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class Truncate(_Striking):
    """Reads find an object that was cut: `Store.get` returns its beginning, `Store.get_into` meets its end.

    Attributes:
        size: bytes that are left.
    """

    size: int = field(default=0, kw_only=True)

    def strikes(self, operation: Operation) -> bool:
        """See `Fault`; only reads."""
        return operation.name in _READS and _Striking.strikes(self, operation)

    async def around(self, operation: Operation, work: Work) -> Any:
        """See `Fault`."""
        if any(start < stop and stop > self.size for start, stop in operation.ranges):
            raise ObjectTruncatedError(f"{operation.path} ends at byte {self.size}", path=operation.path)
        result = await work()
        return Blob(result.data[: self.size], result.info) if isinstance(result, Blob) else result


@dataclass(slots=True)
class FlipBit(_Striking):
    """Reads return one bit that is not as it was written.

    Attributes:
        bit: which, counted from the first byte that is read and from its lowest bit; past the end it wraps around.
    """

    bit: int = field(default=0, kw_only=True)

    def strikes(self, operation: Operation) -> bool:
        """See `Fault`; only reads."""
        return operation.name in _READS and _Striking.strikes(self, operation)

    async def around(self, operation: Operation, work: Work) -> Any:
        """See `Fault`."""
        result = await work()
        if isinstance(result, Blob):
            data = bytearray(result.data)
            self._flip([memoryview(data)])
            return Blob(bytes(data), result.info)
        self._flip([plain_bytes(buffer) for buffer in operation.buffers])
        return result

    def _flip(self, views: Sequence[memoryview]) -> None:
        bits = 8 * sum(view.nbytes for view in views)
        if not bits:
            return
        position, bit = divmod(self.bit % bits, 8)
        for view in views:
            if position < view.nbytes:
                view[position] ^= 1 << bit
                return
            position -= view.nbytes
