"""The results for people: tables in Markdown, and their place in the document."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from results import Results
from scenarios import Scenario
from targets import Verdict

MIB = 2**20


def whole(results: Results, measured: Sequence[Scenario], verdicts: Iterable[Verdict], ours: str, rounds: int) -> str:
    """Everything, as Markdown."""
    pieces = [heading(rounds), *_targets(verdicts, ours)]
    for scenario in measured:
        pieces += ["", f"## {scenario.title}", "", *_scenario(results, scenario, ours)]
    return "\n".join(pieces)


def heading(rounds: int) -> str:
    """When, with what, and where."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, asyncsaver {version('asyncsaver')}, Python {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores; medians of {rounds} rounds.\n"
    )


def _targets(verdicts: Iterable[Verdict], ours: str) -> Iterator[str]:
    yield f"## Targets, for {ours}"
    yield ""
    yield "| what | target | found | |"
    yield "|---|---|---|---|"
    for verdict in verdicts:
        yield f"| {verdict.what} | {verdict.wanted} | {verdict.found} | {verdict.word} |"


def _scenario(results: Results, scenario: Scenario, ours: str) -> Iterator[str]:
    yield "| what | who | seconds | MiB/s | of our time | CPU, s | extra memory, MiB | worst stall, ms | requests |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---|"
    ours = next((peer for peer in results.peers(scenario.name) if peer.startswith(ours)), ours)
    for what in results.whats(scenario.name):
        own = results.median(scenario.name, ours, what, "seconds")
        for peer in results.peers(scenario.name):
            if results.has(scenario.name, peer, what):
                yield _row(results, scenario, peer, what, own)
    absent = {peer: why for (name, peer), why in results.absent.items() if name == scenario.name}
    if absent:
        yield ""
        yield from (f"- {peer}: {why}" for peer, why in absent.items())


def _row(results: Results, scenario: Scenario, peer: str, what: str, own: float | None) -> str:
    def median(field: str) -> float:
        return results.median(scenario.name, peer, what, field) or 0.0

    seconds = median("seconds")
    times = f"{seconds / own:.2f}x" if own else ""
    requests = _requests(results.last(scenario.name, peer, what).get("requests", {}))
    return (
        f"| {what} | {peer} | {seconds:.3f} | {scenario.shape.nbytes / MIB / seconds:.0f} | {times} | {median('cpu'):.2f} "
        f"| {median('memory') / MIB:.0f} | {median('stall') * 1000:.1f} | {requests} |"
    )


def _requests(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(counts.items()))


def rewritten(document: str, figures: str, *, mark: str = "figures") -> str:
    """The document with these figures between its marks of that name.

    Raises:
        ValueError: it has no such marks.
    """
    opening, closing = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    before, begin, rest = document.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ValueError(f"the document has no {opening} … {closing}")
    return f"{before}{opening}\n{figures}\n{closing}{after}"
