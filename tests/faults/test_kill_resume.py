"""A trainer that is killed again and again, anywhere, ends with the same bits as one that is not.

ASYNCSAVER_TEST_KILLS says how many times it is killed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from digits.process import TrainerProcess
from digits.trainer import Settings, make_saver
from digits.watch import Event, Run

KILLS = int(os.environ.get("ASYNCSAVER_TEST_KILLS", "6"))
SAVE_EVERY = 4


async def run_trainer(
    settings: Settings,
    environment: Mapping[str, str],
    kill_when: Callable[[Event], bool] = lambda _event: False,
    kill_delay: float = 0.0,
) -> Run:
    """Run a trainer to its end, or until ``kill_delay`` seconds after the first event that ``kill_when`` wants."""
    run = Run()
    timer: asyncio.TimerHandle | None = None
    async with TrainerProcess(settings, environment) as process:
        async for event in process.events():
            run.note(event)
            if timer is None and kill_when(event):
                timer = asyncio.get_running_loop().call_later(kill_delay, process.kill)
        if timer is not None:
            timer.cancel()
        run.exit_code = await process.wait()
    return run


def in_some_save(rng: random.Random, start: int) -> Callable[[Event], bool]:
    """A moment in one of the next two saves: when a share of its bytes has been written."""
    step, share = start + SAVE_EVERY * rng.randint(1, 2), rng.uniform(0.05, 0.7)

    def decide(event: Event) -> bool:
        return event["event"] == "writing" and event["step"] >= step and event["done"] >= share * event["total"]

    return decide


def at_some_step(rng: random.Random, start: int) -> Callable[[Event], bool]:
    """A moment at one of the next steps, wherever the saves then are; or in the middle of the restore."""
    step = start + rng.randint(0, 2 * SAVE_EVERY)
    return lambda event: event["step"] >= step


async def kill_and_resume(
    settings: Settings, kills: int, environment: Mapping[str, str], storage_options: Mapping[str, Any] | None
) -> None:
    rng = random.Random(kills)
    base = settings.url.rstrip("/")
    reference = await run_trainer(replace(settings, url=f"{base}/reference"), environment)
    assert reference.exit_code == 0
    assert len(reference.losses) == settings.steps

    settings = replace(settings, url=f"{base}/killed")
    newest = 0
    unfinished: set[str] = set()
    for kill in range(kills):
        moment = in_some_save if kill % 3 else at_some_step
        delay = rng.choice([0.0, 0.0, rng.uniform(0, 0.03)])
        run = await run_trainer(settings, environment, moment(rng, newest), delay)
        assert run.exit_code in {0, -9}
        # It may have died while it was still restoring.
        assert run.resumed_from == newest or not run.losses
        assert run.losses.items() <= reference.losses.items()

        async with make_saver(settings.url, storage_options=storage_options) as saver:
            latest = await saver.latest()
            if latest is not None:
                await saver.verify()
                assert latest.step is not None
                assert latest.step >= newest
                newest = latest.step
            # Every other time the leftovers are swept before the next life, else the next life has to live with them.
            report = await saver.sweep(grace=0, dry_run=bool(kill % 2))
            unfinished |= {leftover.save_id for leftover in report.leftovers}

    last = await run_trainer(settings, environment)
    assert last.exit_code == 0
    assert last.resumed_from == newest
    assert last.losses.items() <= reference.losses.items()
    assert last.weights == reference.weights
    assert unfinished, "no kill hit a save in flight"
    async with make_saver(settings.url, storage_options=storage_options) as saver:
        await saver.sweep(grace=0)
        assert (await saver.sweep(grace=0, dry_run=True)).leftovers == []
        checkpoints = await saver.checkpoints()
        assert [checkpoint.step for checkpoint in checkpoints][-1] == settings.steps
        assert len(checkpoints) == 3
        for checkpoint in checkpoints:
            await saver.verify(checkpoint.step)


def settings_for(url: str, kills: int) -> Settings:
    # Long enough that the last kill still finds it at work: none lets it get further than two saves and a little.
    return Settings(url=url, steps=SAVE_EVERY * (3 * kills + 3), save_every=SAVE_EVERY, hidden=256)


@pytest.mark.timeout(60 + 20 * KILLS)
async def test_killed_anywhere_it_ends_the_same_on_local_disk(tmp_path: Path) -> None:
    await kill_and_resume(settings_for(str(tmp_path), KILLS), KILLS, {}, None)


@pytest.mark.server
@pytest.mark.timeout(60 + 20 * KILLS)
async def test_killed_anywhere_it_ends_the_same_on_s3(s3_root: Any) -> None:
    options = s3_root.storage_options
    environment = {
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": options["endpoint_url"],
    }
    kills = max(1, KILLS // 2)
    await kill_and_resume(settings_for(s3_root.url, kills), kills, environment, options)
