"""The blocking saver: the same from plain code, from several threads, and within a running loop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from asyncsaver import CheckpointNotFoundError, SaverClosedError, UnsupportedLeafError, WrongLoopError, blocking


def state(value: float) -> dict[str, object]:
    return {"w": np.full((4, 5), value), "n": 3}


def test_the_whole_round_without_a_loop(tmp_path: Path) -> None:
    with blocking.Saver(tmp_path, max_to_keep=2) as saver:
        assert saver.latest() is None
        for step in range(3):
            assert saver.save(state(step), step=step, metrics={"loss": 0.5}).step == step
        assert [checkpoint.step for checkpoint in saver.checkpoints()] == [1, 2]
        target = state(0)
        array = target["w"]
        assert saver.restore(target)["w"] is array
        np.testing.assert_array_equal(array, np.full((4, 5), 2.0))
        with saver.open(1) as reader:
            assert reader.checkpoint.step == 1
            np.testing.assert_array_equal(reader.read("w", (0, slice(1, 3))), [1.0, 1.0])
            assert reader.restore(select="n") == {"n": 3}
            assert list(reader.tensors) == ["w"]
            assert reader.metadata is None
        assert saver.verify().tensors == 1
        saver.pin(1)
        assert saver.checkpoints()[0].pinned
        saver.unpin(1)
        assert len(saver.prune(dry_run=True).kept) == 2
        assert saver.sweep().leftovers == []
        saver.delete(1)
        assert saver.url == str(tmp_path)
        with pytest.raises(CheckpointNotFoundError):
            saver.restore(step=1)


def test_a_save_in_the_background(tmp_path: Path) -> None:
    with blocking.Saver(tmp_path) as saver:
        changing = state(1)
        pending = saver.save_in_background(changing, step=1)
        changing["w"][:] = 7  # type: ignore[index]
        assert pending.result().step == 1
        assert pending.done()
        assert pending.step == 1
        assert pending.progress.phase == "committed"
        np.testing.assert_array_equal(saver.restore()["w"], np.ones((4, 5)))


def test_an_unseen_failure_is_raised_by_close(tmp_path: Path) -> None:
    saver = blocking.Saver(tmp_path)
    saver.save(state(1), step=1)
    saver.save_in_background(state(1), step=1)
    with pytest.raises(FileExistsError, match="committed already"):
        saver.close()
    saver.close()


def test_errors_are_those_of_the_asyncio_saver(tmp_path: Path) -> None:
    with blocking.Saver(tmp_path) as saver, pytest.raises(UnsupportedLeafError, match="thing"):
        saver.save({"thing": object()}, step=1)


async def test_it_works_while_a_loop_runs_here(tmp_path: Path) -> None:
    with blocking.Saver(tmp_path) as saver:
        saver.save(state(1), step=1)
        assert await asyncio.to_thread(saver.restore, select="n") == {"n": 3}


def test_many_threads_share_one(tmp_path: Path) -> None:
    with blocking.Saver(tmp_path, max_to_keep=None) as saver, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda step: saver.save(state(step), step=step), range(16)))
        assert sorted(checkpoint.step or 0 for checkpoint in saver.checkpoints()) == list(range(16))


def test_closing_ends_the_thread_and_what_comes_after_is_refused(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    saver = blocking.Saver(tmp_path)
    saver.save(state(1), step=1)
    saver.close()
    saver.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)  # those of the store were told to end, and are not waited for
    assert set(threading.enumerate()) <= before
    with pytest.raises(SaverClosedError, match="closed"):
        saver.latest()


def test_an_error_in_the_block_is_not_hidden(tmp_path: Path) -> None:
    def body() -> None:
        with blocking.Saver(tmp_path) as saver:
            saver.save(state(1), step=1)
            saver.save_in_background(state(1), step=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        body()
    assert any("CheckpointExistsError" in note for note in caught.value.__notes__)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_refused(tmp_path: Path) -> None:
    with blocking.Saver(tmp_path) as saver:
        saver.save(state(1), step=1)
        child = os.fork()
        if not child:
            try:
                saver.latest()
            except WrongLoopError:
                os._exit(42)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_ctrl_c_cancels_the_save_and_leaves_nothing(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import signal
        import sys
        import numpy as np
        from asyncsaver import blocking

        # What runs the tests in the background has them ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def say(progress):
            if progress.phase == "writing":
                print("writing", flush=True)

        state = {f"w{i}": np.ones(2**18) for i in range(200)}
        with blocking.Saver(sys.argv[1], shard_bytes=2**20, concurrency=1, progress=say) as saver:
            try:
                saver.save(state, step=1)
            except KeyboardInterrupt:
                print("interrupted", saver.latest(), flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGINT)
        said = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert said[-1] == "interrupted None"
    assert not list(tmp_path.rglob("*.safetensors"))
