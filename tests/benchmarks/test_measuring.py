from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import measure
import worker
from measure import measured
from peers.contract import Place, What
from processes import FailedError, in_a_process
from states import Shape
from worker import Job

WORKER = Path(worker.__file__)


async def test_memory_is_the_peak_and_not_what_is_left() -> None:
    if not measure.STATUS.exists():
        pytest.skip("peaks cannot be reset on this system")

    async def call() -> int:
        return int(np.ones(64 * 2**20, np.uint8)[-1])

    sample, result = await measured(call)
    assert result == 1
    assert sample.memory >= 60 * 2**20


async def test_a_blocked_loop_is_seen() -> None:
    async def call() -> None:
        time.sleep(0.05)  # noqa: ASYNC251 - what is to be found

    sample, _ = await measured(call)
    assert sample.stall >= 0.045


def test_a_state_that_came_back_changed_is_noticed() -> None:
    shape = Shape(3, 64)
    state = shape.state()
    shape.check(state)
    state["layer0.2"].view(np.uint32)[5] ^= 1
    with pytest.raises(ValueError, match=r"layer0\.2"):
        shape.check(state)
    del state["layer0.2"]
    with pytest.raises(ValueError, match="2 tensors of 3"):
        shape.check(state)


def test_a_peer_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    place = Place("disk", folder=str(tmp_path))
    whats: tuple[What, ...] = ("save", "restore", "restore, warm")
    for what in whats:
        job = Job("asyncsaver", what, place, Shape(3, 64))
        found = in_a_process(WORKER, job.as_json(), timeout=100)
        assert found.keys() >= {"seconds", "cpu", "memory", "stall", "requests"}


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    job = Job("asyncsaver", "restore", Place("disk", folder=str(tmp_path)), Shape(3, 64))
    with pytest.raises(FailedError, match="CheckpointNotFoundError"):
        in_a_process(WORKER, job.as_json(), timeout=100)
