"""What the story shows on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from asyncsaver import Checkpoint, PruneReport, SweepReport
from digits.watch import Event, Killed, Run


class Screen:
    """A line for each training, and the tables after it.

    Args:
        console: where to print.
        steps: of a whole training.
    """

    def __init__(self, console: Console, steps: int) -> None:
        self.console = console
        self._steps = steps
        self._progress: Progress | None = None
        self._task = TaskID(0)

    @contextmanager
    def training(self, name: str) -> Iterator[None]:
        """Show the line of one training while the block runs; `show` feeds it."""
        columns = (
            TextColumn("{task.description:<13}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[saver]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            self._progress = progress
            self._task = progress.add_task(name, total=self._steps, loss="-", saver="starting")
            yield
        self._progress = None

    def show(self, event: Event) -> None:
        """Show what a trainer has said."""
        if self._progress is None:
            return
        match event["event"]:
            case "resumed":
                text = f"resumed from step {event['step']}"
                self._progress.update(self._task, completed=event["step"], saver=text)
            case "step":
                self._progress.update(self._task, completed=event["step"], loss=f"{event['loss']:.4f}")
            case "writing" if event["total"]:
                text = f"writing step {event['step']}: {event['done'] / event['total']:4.0%}"
                self._progress.update(self._task, saver=text)
            case "committed":
                self._progress.update(self._task, saver=f"committed step {event['step']}")

    def after_kill(self, steps: Sequence[int | None], leftovers: SweepReport) -> None:
        """Say what a dead trainer left on the store."""
        self.console.print(f"  checkpoints: {', '.join(map(str, steps))}; the newest one verified")
        for item in leftovers.leftovers:
            self.console.print(f"  unfinished:  {item.name}, {item.objects} objects, {item.bytes:,} bytes: not listed")
        self.console.print()

    def table(self, checkpoints: Sequence[Checkpoint], pruned: PruneReport, swept: SweepReport) -> None:
        """List what is on the store in the end, and why."""
        reasons = {item.name: item.reason for item in pruned.kept}
        table = Table(
            *("checkpoint", "step", "size", "loss", "accuracy", "why it stays"),
            title="\nAfter prune and sweep",
            box=None,
            padding=(0, 2, 0, 0),
        )
        for column in table.columns[1:5]:
            column.justify = "right"
        for checkpoint in checkpoints:
            loss, accuracy = (checkpoint.metrics.get(name, float("nan")) for name in ("loss", "accuracy"))
            size = f"{checkpoint.total_bytes / 1e6:.1f} MB"
            why = reasons.get(checkpoint.name, "")
            table.add_row(checkpoint.name, str(checkpoint.step), size, f"{loss:.4f}", f"{accuracy:.1%}", why)
        for item in swept.leftovers:
            size = f"{item.bytes / 1e6:.1f} MB"
            table.add_row(item.name, "", size, "", "", "gone: it was never finished", style="dim")
        self.console.print(table)


def summarise(console: Console, reference: Run, killed: Killed, resumed: Run) -> bool:
    """Compare the two trainings, print what came out, and return whether they are the same to the bit.

    Args:
        console: where to print.
        reference: the training that nothing disturbed.
        killed: the other one's first life.
        resumed: its second life.
    """
    where = killed.where
    console.print(f"\nKilled while saving step {where.step}, {where.done:,} of {where.total:,} bytes written.")
    both = [*killed.losses, *resumed.losses.items()]
    different = sum(reference.losses.get(step) != loss for step, loss in both)
    complete = {step for step, _ in both} == reference.losses.keys()
    checks = {
        f"resumed from step {resumed.resumed_from}, the newest checkpoint": resumed.resumed_from == killed.newest,
        f"{len(resumed.losses)} losses after it, {len(both)} in all, {different} differ from the undisturbed run": (
            complete and not different
        ),
        "final weights and moments are the same bits": (
            resumed.exit_code == 0 and resumed.weights is not None and resumed.weights == reference.weights
        ),
    }
    for text, held in checks.items():
        console.print(f"[green]ok[/] {text}" if held else f"[red]NO[/] {text}")
    return all(checks.values())
