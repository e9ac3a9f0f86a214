"""Following trainers: what each said, and killing one at the worst moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from digits.process import TrainerProcess
from digits.trainer import Settings

Event = Mapping[str, Any]
OnEvent = Callable[[Event], None]


@dataclass(slots=True)
class Run:
    """What one trainer process said.

    Attributes:
        resumed_from: the step it started from; 0 for a fresh start.
        losses: step → the loss, exact (`float.hex`).
        weights: fingerprint of the final state; None if it did not get that far.
        exit_code: negative for the signal that ended it.
    """

    resumed_from: int = 0
    losses: dict[int, str] = field(default_factory=dict)
    weights: str | None = None
    exit_code: int = 0

    def note(self, event: Event) -> None:
        """Take one event in."""
        match event["event"]:
            case "resumed":
                self.resumed_from = event["step"]
            case "step":
                self.losses[event["step"]] = event["exact"]
            case "done":
                self.weights = event["weights"]


@dataclass(frozen=True, slots=True)
class Kill:
    """Where a trainer was killed: in the save of ``step``, with ``done`` of ``total`` bytes written."""

    step: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Killed:
    """A trainer that was killed in the middle of a save.

    Attributes:
        where: in which save, and how far it had come.
        losses: step and loss of all its steps before, those done twice included.
        newest: the step of the newest checkpoint that it has left.
    """

    where: Kill
    losses: list[tuple[int, str]]
    newest: int


async def follow(
    settings: Settings,
    environment: Mapping[str, str],
    on_event: OnEvent,
    kill_when: Callable[[Event], bool] = lambda _event: False,
) -> tuple[Run, Kill | None]:
    """Run one trainer to its end, or to the first event at which it shall be killed.

    Args:
        settings: of the training.
        environment: variables for credentials.
        on_event: called with everything the trainer says.
        kill_when: looks at an event and decides.

    Returns:
        What it said, and where it was killed, if it was.
    """
    run = Run()
    kill: Kill | None = None
    async with TrainerProcess(settings, environment) as process:
        async for event in process.events():
            run.note(event)
            on_event(event)
            if kill is None and kill_when(event):
                process.kill()
                kill = Kill(event["step"], event.get("done", 0), event.get("total", 0))
        run.exit_code = await process.wait()
    return run, kill


def in_the_middle_of_a_save(first_step: int) -> Callable[[Event], bool]:
    """Return a ``kill_when`` for `follow`: a third of the bytes is written, in a save at or after ``first_step``."""

    def decide(event: Event) -> bool:
        if event["event"] != "writing" or event["step"] < first_step:
            return False
        return bool(event["total"] / 3 <= event["done"] < event["total"])

    return decide
