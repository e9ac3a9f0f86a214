"""The trainer: an asyncio program that computes, evaluates, reports and saves at the same time.

This is the file to read. What concerns checkpoints is in `train` and `Trainer._steps`; stop the program in any way and
at any moment, start it again, and it goes on from the newest checkpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from asyncsaver import PendingSave, Progress, Saver
from digits.model import Digits, Floats, TrainingState, accuracy, load_data, new_state, train_step

Emit = Callable[..., None]
"""Says what happened: ``emit("step", step=3, loss=0.5)``."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train.

    Attributes:
        url: the root of the checkpoints, anything that `Saver` takes.
        steps: how many steps in all.
        save_every: steps between two checkpoints.
        seed: of everything random.
        hidden: width of the hidden layers; 512 makes checkpoints of 3.6 MB.
    """

    url: str
    steps: int = 400
    save_every: int = 40
    seed: int = 0
    hidden: int = 512


def make_saver(
    url: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Saver:
    """Return the saver that the trainer uses; whoever looks after its checkpoints should use the same arguments.

    Small shards, two at a time, make the save of a toy model take as many steps as that of a real one.
    """
    return Saver(
        url,
        storage_options=storage_options,
        max_to_keep=3,
        shard_bytes=128 * 1024,
        concurrency=2,
        progress=progress,
    )


async def train(settings: Settings, emit: Emit) -> TrainingState:
    """Train to the end, from the newest checkpoint if there is one."""
    digits = await asyncio.to_thread(load_data)
    state = new_state(samples=len(digits.labels), steps=settings.steps, hidden=settings.hidden, seed=settings.seed)

    def on_progress(progress: Progress) -> None:
        emit(progress.phase, step=progress.step, done=progress.bytes_done, total=progress.bytes_total)

    async with make_saver(settings.url, progress=on_progress) as saver:
        if await saver.latest() is not None:
            # The fresh state is the target: its arrays are filled in place, and its types come back.
            state = await saver.restore(state)
            emit("resumed", step=state.step)
        await Trainer(settings, state, digits, saver, emit).run()
    emit("done", step=state.step, weights=fingerprint(state))
    return state


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Weights to evaluate, and where the answer goes."""

    params: dict[str, Floats]
    accuracy: asyncio.Future[float]


class Trainer:
    """Three coroutines: one does the steps and saves, one evaluates, one reports."""

    def __init__(self, settings: Settings, state: TrainingState, digits: Digits, saver: Saver, emit: Emit) -> None:
        self._settings = settings
        self._state = state
        self._digits = digits
        self._saver = saver
        self._emit = emit
        self._snapshots: asyncio.Queue[Snapshot | None] = asyncio.Queue()
        self._losses: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()

    async def run(self) -> None:
        """Train from the state's step to the last one; when one coroutine fails, all end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._evaluate())
            group.create_task(self._report())
            await self._steps()
            self._snapshots.put_nowait(None)
            self._losses.put_nowait(None)

    async def _steps(self) -> None:
        settings, state = self._settings, self._state
        pending: PendingSave | None = None
        while state.step < settings.steps:
            loss = await asyncio.to_thread(train_step, state, self._digits)
            self._losses.put_nowait((state.step, loss))
            if state.step % settings.save_every == 0 or state.step == settings.steps:
                recognised = await self._accuracy()
                state.best_accuracy = max(recognised, state.best_accuracy or 0.0)
                if pending is not None:
                    await pending  # never more than one save behind; one that failed raises here
                # Returns as soon as the state is copied: the next step may change it while the copy is written.
                pending = await self._saver.save_in_background(
                    state,
                    step=state.step,
                    metrics={"loss": loss, "accuracy": recognised},
                    metadata={"seed": settings.seed},
                )
        if pending is not None:
            await pending

    async def _accuracy(self) -> float:
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        params = {name: value.copy() for name, value in self._state.params.items()}
        self._snapshots.put_nowait(Snapshot(params, answer))
        return await answer

    async def _evaluate(self) -> None:
        while (snapshot := await self._snapshots.get()) is not None:
            snapshot.accuracy.set_result(await asyncio.to_thread(accuracy, snapshot.params, self._digits))

    async def _report(self) -> None:
        while (item := await self._losses.get()) is not None:
            step, loss = item
            self._emit("step", step=step, loss=loss, exact=loss.hex())


def fingerprint(state: TrainingState) -> str:
    """Return a hash of all weights and moments, to compare two trainings to the bit."""
    digest = hashlib.blake2b(digest_size=16)
    for arrays in (state.params, state.first_moment, state.second_moment):
        for name in sorted(arrays):
            digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def print_event(event: str, **fields: Any) -> None:
    """Write one event as a line of JSON, at once: whoever watches this process may act on it."""
    print(json.dumps({"event": event, **fields}), flush=True)
