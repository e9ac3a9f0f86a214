"""From the first use of a saver to its end: loops, processes, threads, tasks."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import (
    CheckpointExistsError,
    Progress,
    SaverClosedError,
    StructureMismatchError,
    WrongLoopError,
)

from .place import Place
from .states import bits, mixed_state, plain

uvloop = pytest.importorskip("uvloop", reason="uvloop is not made for this platform")

STATE = {"x": np.arange(100, dtype=np.float32)}
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


def saver_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("asyncsaver")]


def join_threads(threads: list[threading.Thread]) -> None:
    """Wait until threads that were told to end have ended."""
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)


async def test_every_method_refuses_after_close(memory: Place) -> None:
    saver = memory.saver()
    await saver.save(STATE, step=1)
    await saver.close()
    for call in (
        saver.save(STATE, step=2),
        saver.save_in_background(STATE, step=2),
        saver.restore(),
        saver.latest(),
        saver.checkpoints(),
        saver.open(),
        saver.verify(),
        saver.delete(1),
        saver.pin(1),
        saver.unpin(1),
        saver.prune(),
        saver.sweep(),
        saver.__aenter__(),
    ):
        with pytest.raises(SaverClosedError, match=r"memory://.* is closed"):
            await call
    assert saver.url == memory.url


async def test_closing_twice_and_closing_what_was_never_used(memory: Place) -> None:
    saver = memory.saver()
    await saver.close()
    await saver.close()


async def test_threads_end_and_no_task_stays(nearby: Place, no_leaks: None, tmp_path: Path) -> None:
    earlier = set(saver_threads())
    async with nearby.saver() as saver:
        await saver.save(mixed_state(tmp_path), step=1)
        await saver.restore()
        mine = [thread for thread in saver_threads() if thread not in earlier]
        assert mine
    join_threads(mine)


async def test_an_error_in_the_block_goes_first(memory: Place) -> None:
    async def block() -> None:
        async with memory.saver() as saver:
            await saver.save(STATE, step=1)
            await saver.save_in_background(STATE, step=1)
            raise LookupError("of the block")

    with pytest.raises(LookupError, match="of the block") as caught:
        await block()
    [note] = caught.value.__notes__
    assert "CheckpointExistsError" in note
    assert "ckpt-00000001" in note


async def test_an_error_in_the_block_still_lets_background_saves_end(memory: Place) -> None:
    async def block() -> None:
        async with memory.saver() as saver:
            await saver.save_in_background(STATE, step=1)
            raise LookupError("of the block")

    with pytest.raises(LookupError, match="of the block"):
        await block()
    async with memory.saver() as other:
        assert bits(await other.restore()) == bits(STATE)


async def test_closing_while_other_coroutines_save_and_restore(memory: Place) -> None:
    """What runs when a saver is closed ends as if it had not been closed, or says that it is closed."""
    state = {"x": np.zeros(300_000)}
    earlier = set(saver_threads())
    saver = memory.saver(shard_bytes=100_000)
    await saver.save(state, step=0)
    work = [asyncio.create_task(saver.save(state, step=step)) for step in (1, 2)]
    reads = [asyncio.create_task(saver.restore()) for _ in range(2)]
    await asyncio.sleep(0)
    await saver.close()
    saved = await asyncio.gather(*work, return_exceptions=True)
    read = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(one) for one in [*saved, *read] if isinstance(one, BaseException)] == []
    join_threads([thread for thread in saver_threads() if thread not in earlier])
    async with memory.saver() as other:
        assert [one.step for one in await other.checkpoints()] == [0, 1, 2]
        for step in (0, 1, 2):
            await other.verify(step)


def test_another_loop_is_refused(memory: Place) -> None:
    saver = memory.saver()
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(saver.save(STATE, step=1))
        with pytest.raises(WrongLoopError, match="another one"):
            second.run(saver.save(STATE, step=2))
        with pytest.raises(WrongLoopError):
            second.run(saver.restore())
        with pytest.raises(WrongLoopError):
            second.run(saver.close())
        assert first.run(saver.save(STATE, step=3)).step == 3
        first.run(saver.close())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
async def test_a_fork_is_refused(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forking with threads, as we do
            child = os.fork()
        if child == 0:
            code = 1
            try:
                asyncio.run(saver.save(STATE, step=2))
            except WrongLoopError as error:
                code = 0 if "fork" in str(error) else 2
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - the child ends by itself
        assert os.waitstatus_to_exitcode(status) == 0
        assert (await saver.save(STATE, step=2)).step == 2


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("kind", ["memory", "local", "s3", "s3-fsspec", "azure"])
def test_every_loop(
    kind: str, make_loop: Any, request: pytest.FixtureRequest, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    cloud, _, engine = kind.partition("-")
    root = request.getfixturevalue(f"{cloud}_root")
    place = Place(root.url, root.storage_options, engine or "auto")
    state = mixed_state(tmp_path)

    async def work() -> Any:
        async with place.saver(shard_bytes=2000) as saver:
            pending = await saver.save_in_background(state, step=1)
            await saver.save(state, step=2)
            await pending
            with pytest.raises(CheckpointExistsError):
                await saver.save(state, step=1)
            cancelled = asyncio.create_task(saver.save(state, step=3))
            await asyncio.sleep(0)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await saver.verify()
            return await saver.restore()

    with asyncio.Runner(loop_factory=make_loop, debug=True) as runner:
        assert bits(runner.run(work())) == bits(plain(state))
    assert [str(warning.message) for warning in recwarn] == []


async def test_progress_tells_the_phases_in_order(memory: Place) -> None:
    seen: list[Progress] = []
    async with memory.saver(progress=seen.append, shard_bytes=100) as saver:
        await saver.save({"a": np.zeros(100, np.uint8), "b": np.zeros(100, np.uint8)}, step=5)
        phases = [one.phase for one in seen]
        assert phases == ["staging", "writing", "writing", "committing", "committed"]
        assert {one.step for one in seen} == {5}
        assert {one.bytes_total for one in seen} == {200}
        done = [one.bytes_done for one in seen if one.phase == "writing"]
        assert done == sorted(done)
        assert seen[-1] == Progress("committed", 5, 200, 200)
        seen.clear()
        await saver.restore()
        assert [one.phase for one in seen] == ["reading", "reading", "restored"]
        assert seen[-1] == Progress("restored", 5, 200, 200)


async def test_an_error_in_the_progress_callback_harms_nothing(memory: Place, caplog: pytest.LogCaptureFixture) -> None:
    def broken(progress: Progress) -> None:
        raise LookupError(progress.phase)

    async with memory.saver(progress=broken) as saver:
        await saver.save(STATE, step=1)
        pending = await saver.save_in_background(STATE, step=2)
        await pending
        assert bits(await saver.restore()) == bits(STATE)
    assert "progress callback failed" in caplog.text


class Stubborn:
    """An object whose `load_state_dict` fails."""

    def state_dict(self) -> dict[str, Any]:
        return {"x": np.arange(3)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise RuntimeError(f"not me: {sorted(state)}")


async def test_an_object_that_refuses_its_state(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save({"a": np.arange(3), "b": Stubborn()}, step=1)
        target: dict[str, Any] = {"a": np.zeros(3, np.int64), "b": Stubborn()}
        with pytest.raises(StructureMismatchError, match=r"b: Stubborn\.load_state_dict failed: not me"):
            await saver.restore(target)
        assert not target["a"].any()


async def test_an_object_whose_state_dict_fails(memory: Place) -> None:
    class Broken(Stubborn):
        def state_dict(self) -> dict[str, Any]:
            raise LookupError("no state today")

    async with memory.saver() as saver:
        with pytest.raises(LookupError, match="no state today"):
            await saver.save({"b": Broken()}, step=1)
        assert await memory.paths() == []
        await saver.save(STATE, step=1)
