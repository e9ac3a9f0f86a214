"""How a cost grows with a number of things: the figures, and their table. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

MIB = 2**20
FIELDS = ("seconds", "cpu", "stall", "memory")
Sample = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row.

    Attributes:
        labels: what was measured, a word for each column.
        items: how many things of each kind it went through.
        rounds: each with the fields of `measure.Sample`.
        why: there are none.
    """

    labels: tuple[str, ...]
    items: tuple[int, ...]
    rounds: Sequence[Sample] = ()
    why: str = ""

    def median(self, field: str) -> float:
        """Over the rounds."""
        return statistics.median(sample[field] for sample in self.rounds)


def table(heads: Sequence[str], kinds: Sequence[str], figures: Iterable[Figure]) -> Iterator[str]:
    """Markdown. What is linear shows the same time for each thing, however many there are.

    What differs only in the last label stands one below the other.

    Args:
        heads: of the labels.
        kinds: of things, one word each.
        figures: with growing numbers.
    """
    figures = list(figures)
    groups = list(dict.fromkeys(figure.labels[:-1] for figure in figures))
    each = [f"µs a {kind}" for kind in kinds]
    measured = ["seconds", "CPU, s", *each, "worst stall, ms", "extra memory, MiB", f"extra bytes a {kinds[0]}"]
    yield f"| {' | '.join([*heads, *measured])} |"
    yield f"|{'---|' * len(heads)}{'---:|' * len(measured)}"
    for figure in sorted(figures, key=lambda figure: groups.index(figure.labels[:-1])):
        cells = list(_cells(figure)) if figure.rounds else [figure.why, *[""] * (len(measured) - 1)]
        yield f"| {' | '.join([*figure.labels, *cells])} |"


def _cells(figure: Figure) -> Iterator[str]:
    seconds, cpu, stall, memory = (figure.median(field) for field in FIELDS)
    yield f"{seconds:.4f}" if seconds < 1 else f"{seconds:.2f}"
    yield f"{cpu:.4f}" if cpu < 1 else f"{cpu:.2f}"
    for count in figure.items:
        yield f"{seconds / count * 1e6:,.1f}"
    yield f"{stall * 1000:.1f}"
    yield f"{memory / MIB:.1f}"
    yield f"{memory / figure.items[0]:,.0f}"
