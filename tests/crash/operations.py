"""What is cancelled: every operation of a saver that waits for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from asyncsaver import Saver

from ..doubles.world import state_of  # noqa: TID252 - test folders have no name
from .scenarios import BEFORE, large_state, whole_number
from .suspensions import Canceller


@dataclass(slots=True)
class Run:
    """One run of an operation that is to be cancelled.

    Attributes:
        saver: that does it.
        canceller: to be given its target when what is to be cancelled begins.
        part_bytes: the size of a part of a large object.
    """

    saver: Saver
    canceller: Canceller
    part_bytes: int

    async def cancel(self, work: Any) -> bool:
        """Run work that may be cancelled from its start; returns whether it has ended well."""
        task = asyncio.ensure_future(work)
        self.canceller.target = task.cancel
        await asyncio.wait([task])
        self.canceller.target = None
        return self._ended_well(task)

    async def cancel_upload(self, state: dict[str, Any], **arguments: Any) -> bool:
        """Stage a state in the background, and cancel its upload."""
        pending = await self.saver.save_in_background(state, **arguments)
        self.canceller.target = pending.cancel
        await asyncio.wait([pending._task])
        self.canceller.target = None
        return self._ended_well(pending._task)

    async def cancel_restore(self) -> bool:
        """Restore into a target: it is filled whole, or not touched."""
        number = BEFORE["ckpt"]
        target = state_of(0)
        well = await self.cancel(self.saver.restore(target, checkpoint=await self._checkpoint("ckpt")))
        assert target["bias"][0] in {0, number}
        if target["bias"][0] or well:
            assert whole_number({**target, "number": number}) == number
        else:
            assert whole_number(target) == 0
        return well

    async def cancel_straight_restore(self) -> bool:
        """Restore what is larger than the memory budget: it goes straight into the target."""
        await self.saver.save(large_state(30, self.part_bytes), step=30)
        target = large_state(0, self.part_bytes)
        well = await self.cancel(self.saver.restore(target))
        restored = await self.saver.restore(target)
        assert restored["large"] is target["large"]
        assert whole_number(restored) == 30
        return well

    async def cancel_close(self) -> bool:
        """Close while saves are under way."""
        pendings = [await self.saver.save_in_background(state_of(40 + step), step=step) for step in (10, 11)]
        well = await self.cancel(self.saver.close())
        assert all(pending.done() for pending in pendings)
        return well

    async def _checkpoint(self, name: str) -> Any:
        return next(one for one in await self.saver.checkpoints() if one.name == name)

    def _ended_well(self, task: asyncio.Task[Any]) -> bool:
        if task.cancelled():
            return False
        error = task.exception()
        # A save that was condemned, or whose commit is unknown, would be wrong here: nobody else is at work.
        assert error is None, f"failed in place of being cancelled: {type(error).__name__}: {error}"
        return True


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that can be cancelled.

    Attributes:
        name: for the test's id.
        run: runs it once.
        commits: name → number of what it commits.
        prunes: whether checkpoints but the newest and the pinned may go.
        memory_budget: of the saver; less than a large tensor, for that one to go straight.
    """

    name: str
    run: Callable[[Run], Awaitable[bool]]
    commits: tuple[tuple[str, int], ...] = ()
    prunes: bool = False
    memory_budget: int = 2**29


OPERATIONS = (
    Operation(
        "save",
        lambda run: run.cancel(run.saver.save(state_of(50), step=5)),
        commits=(("ckpt-00000005", 50),),
        prunes=True,
    ),
    Operation(
        "save in parts, overwriting",
        lambda run: run.cancel(run.saver.save(large_state(40, run.part_bytes), step=4, overwrite=True)),
        commits=(("ckpt-00000004", 40),),
        memory_budget=1,
    ),
    Operation(
        "staging of a background save",
        lambda run: run.cancel(run.saver.save_in_background(state_of(50), step=5, pin=True)),
        commits=(("ckpt-00000005", 50),),
    ),
    Operation(
        "upload of a background save",
        lambda run: run.cancel_upload(large_state(50, run.part_bytes), step=5, pin=True),
        commits=(("ckpt-00000005", 50),),
    ),
    Operation("restore", lambda run: run.cancel_restore()),
    Operation(
        "straight restore", lambda run: run.cancel_straight_restore(), commits=(("ckpt-00000030", 30),), memory_budget=1
    ),
    Operation("verify", lambda run: run.cancel(run.saver.verify())),
    Operation("prune", lambda run: run.cancel(run.saver.prune()), prunes=True),
    Operation("sweep", lambda run: run.cancel(run.saver.sweep(0))),
    Operation("delete", lambda run: run.cancel(run.saver.delete(2)), prunes=True),
    Operation(
        "close",
        lambda run: run.cancel_close(),
        commits=(("ckpt-00000010", 50), ("ckpt-00000011", 51)),
    ),
)


def open_saver(operation: Operation, store: Any) -> Saver:
    """The saver whose operation will be cancelled: three shards a state."""
    keep = 1 if operation.prunes and operation.name != "delete" else None
    return Saver(store, shard_bytes=1, max_to_keep=keep, memory_budget=operation.memory_budget)
