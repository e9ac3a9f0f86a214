"""The tables as pictures, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from results import Results
from scenarios import Scenario

MIB = 2**20
OURS, THEIRS = "#1f6f8b", "#b8c4c9"


def draw(results: Results, measured: Sequence[Scenario], folder: Path) -> Iterator[tuple[str, str]]:
    """Draw a chart of each scenario that compares several peers. Gives titles, and files relative to the folder."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    for scenario in measured:
        if len(results.peers(scenario.name)) > 1:
            file = f"performance/{scenario.name}.png"
            (folder / "performance").mkdir(exist_ok=True)
            _chart(results, scenario, folder / file)
            yield scenario.title, file


def _chart(results: Results, scenario: Scenario, file: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional

    whats = results.whats(scenario.name)
    peers = results.peers(scenario.name)[::-1]
    figure = Figure(figsize=(5.5 * len(whats), 0.8 + 0.32 * len(peers)), layout="constrained")
    axes = figure.subplots(1, len(whats), sharey=True, squeeze=False)[0]
    for what, ax in zip(whats, axes, strict=True):
        seconds = [results.median(scenario.name, peer, what, "seconds") for peer in peers]
        speeds = [scenario.shape.nbytes / MIB / found if found else 0.0 for found in seconds]
        colours = [OURS if peer.startswith("asyncsaver") else THEIRS for peer in peers]
        bars = ax.barh(peers, speeds, color=colours)
        ax.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
        ax.set_title(f"{what}, MiB/s", fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.15)
    figure.suptitle(scenario.title, fontsize=11)
    figure.savefig(file, dpi=110)
