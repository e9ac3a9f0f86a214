"""What was measured, and the medians of it. No I/O."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

Measured = Mapping[str, Any]


class Results:
    """Samples by scenario, peer and what was done; and why others are not there."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str, str], list[Measured]] = {}
        self.absent: dict[tuple[str, str], str] = {}

    def add(self, scenario: str, peer: str, what: str, sample: Measured) -> None:
        """One more round."""
        self._samples.setdefault((scenario, peer, what), []).append(sample)

    def leave_out(self, scenario: str, peer: str, why: str) -> None:
        """A peer that is not installed, or failed. What it did before does not count."""
        self.absent[scenario, peer] = why
        for key in [key for key in self._samples if key[:2] == (scenario, peer)]:
            del self._samples[key]

    def has(self, scenario: str, peer: str, what: str = "save") -> bool:
        """Whether there is a figure."""
        return (scenario, peer, what) in self._samples

    def peers(self, scenario: str) -> list[str]:
        """Who was measured, in order."""
        return list(dict.fromkeys(peer for name, peer, _ in self._samples if name == scenario))

    def whats(self, scenario: str) -> list[str]:
        """What was measured, in order."""
        return list(dict.fromkeys(what for name, _, what in self._samples if name == scenario))

    def median(self, scenario: str, peer: str, what: str, field: str) -> float | None:
        """The median of a figure over the rounds; None where there is none."""
        samples = self._samples.get((scenario, peer, what))
        return statistics.median(float(sample[field]) for sample in samples) if samples else None

    def last(self, scenario: str, peer: str, what: str) -> Measured:
        """The last round, for what does not vary."""
        return self._samples.get((scenario, peer, what), [{}])[-1]

    def as_json(self) -> Iterator[dict[str, Any]]:
        """Everything, one record for each series."""
        for (scenario, peer, what), samples in self._samples.items():
            yield {"scenario": scenario, "peer": peer, "what": what, "samples": samples}
        for (scenario, peer), why in self.absent.items():
            yield {"scenario": scenario, "peer": peer, "absent": why}
