"""The story: one training undisturbed, one killed in the middle of a save, and proof that they end the same."""

from __future__ import annotations

import secrets
from dataclasses import replace

from rich.console import Console

from digits.place import Place, open_place
from digits.report import Screen, summarise
from digits.trainer import Settings, make_saver
from digits.watch import Kill, Killed, follow, in_the_middle_of_a_save

ATTEMPTS = 5
"""A kill takes a moment to arrive, in which a fast store may finish the save. Then the next save is the one."""


async def tell_story(settings: Settings, kill_at: int) -> bool:
    """Run it all below ``settings.url`` (an S3 server of our own if empty); return whether everything held."""
    console = Console()
    screen = Screen(console, settings.steps)
    async with open_place(settings.url) as place:
        base = f"{place.url}/digits-{secrets.token_hex(4)}"
        console.print(f"Checkpoints go to [bold]{base}[/bold]\n{place.description}\n", highlight=False)

        with screen.training("undisturbed"):
            reference, _ = await follow(replace(settings, url=f"{base}/reference"), place.environment, screen.show)
        if reference.exit_code != 0:
            console.print(f"[red]The undisturbed training failed with exit code {reference.exit_code}.[/red]")
            return False

        disturbed = replace(settings, url=f"{base}/killed")
        killed = await _kill(disturbed, kill_at, place, screen)
        if killed is None:
            return False

        with screen.training("resumed"):
            resumed, _ = await follow(disturbed, place.environment, screen.show)
        tidy = await _tidy_up(disturbed.url, place, screen)
    return summarise(console, reference, killed, resumed) and tidy


async def _kill(settings: Settings, kill_at: int, place: Place, screen: Screen) -> Killed | None:
    losses: list[tuple[int, str]] = []
    first_step = kill_at
    for _ in range(ATTEMPTS):
        with screen.training("to be killed"):
            run, kill = await follow(settings, place.environment, screen.show, in_the_middle_of_a_save(first_step))
        losses += run.losses.items()
        if kill is None:
            screen.console.print("[red]There was no save left to kill: use a smaller --save-every or --kill-at.[/red]")
            return None
        screen.console.print(
            f"[yellow]SIGKILL[/yellow] while saving step {kill.step}, {kill.done:,} of {kill.total:,} bytes written"
        )
        newest = await _newest_after(kill, settings.url, place, screen)
        if newest is not None:
            return Killed(kill, losses, newest)
        screen.console.print("The save was faster than the signal; the next one, then.")
        first_step = kill.step + 1
    return None


async def _newest_after(kill: Kill, url: str, place: Place, screen: Screen) -> int | None:
    """Look at what the dead trainer left; return the newest step, or None if the save was committed after all."""
    async with make_saver(url, storage_options=place.storage_options) as saver:
        steps = [checkpoint.step for checkpoint in await saver.checkpoints()]
        newest = await saver.latest()
        if kill.step in steps or newest is None or newest.step is None:
            return None
        await saver.verify()
        leftovers = await saver.sweep(grace=0, dry_run=True)
        screen.after_kill(steps, leftovers)
        return newest.step if leftovers.leftovers else None


async def _tidy_up(url: str, place: Place, screen: Screen) -> bool:
    """Prune and sweep; return whether the leftover is gone and every checkpoint is good."""
    async with make_saver(url, storage_options=place.storage_options) as saver:
        pruned = await saver.prune()
        swept = await saver.sweep(grace=0)
        again = await saver.sweep(grace=0, dry_run=True)
        checkpoints = await saver.checkpoints()
        for checkpoint in checkpoints:
            await saver.verify(checkpoint.step)
        screen.table(checkpoints, pruned, swept)
        return bool(checkpoints) and bool(swept.leftovers) and not again.leftovers
