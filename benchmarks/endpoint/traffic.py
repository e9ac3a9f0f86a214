"""How slow and how faulty the endpoint pretends to be, and what went through it."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import IO

SLACK = 0.005
"""Seconds by which a timer may be late without making the connection slower than it should be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line asks for.

    Attributes:
        latency: seconds before each answer.
        bandwidth: bytes a second of each connection and direction; 0 for as fast as can be.
        error_rate: the share of requests that get 503.
        seed: of the choice of those requests.
    """

    latency: float = 0.0
    bandwidth: float = 0.0
    error_rate: float = 0.0
    seed: int = 0


class Pace:
    """A token bucket for one direction of one connection."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = 0.0

    def spend(self, count: int) -> float:
        """So many bytes went through. Returns how long to wait before the next ones, in seconds."""
        now = time.monotonic()
        self._due = max(self._due, now - SLACK) + count / self._rate
        return max(0.0, self._due - now)


class Traffic:
    """Counts requests by kind, draws the failures, and writes the log."""

    def __init__(self, settings: Settings, log: IO[str] | None = None) -> None:
        self._settings = settings
        self._random = random.Random(settings.seed)
        self._log = log
        self._requests: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()

    def fails(self) -> bool:
        """Whether this request gets 503."""
        rate = self._settings.error_rate
        return rate > 0 and self._random.random() < rate

    def count(self, kind: str, target: str, status: int, *, taken: int, sent: int) -> None:
        """Note a request, with the sizes of the two bodies."""
        self._requests[kind] += 1
        self._counts["bytes_in"] += taken
        self._counts["bytes_out"] += sent
        self._counts["refused"] += status == 503
        if self._log is not None:
            line = {"at": time.time(), "kind": kind, "target": target, "status": status, "in": taken, "out": sent}
            self._log.write(json.dumps(line) + "\n")

    def connected(self) -> None:
        """Note a connection."""
        self._counts["connections"] += 1

    def reset(self) -> None:
        """Count from zero."""
        self._requests.clear()
        self._counts.clear()

    def summary(self) -> bytes:
        """The counts so far as JSON; ``cpu`` is of this process since its start, in seconds."""
        document = {"requests": dict(self._requests), **self._counts, "cpu": time.process_time()}
        return json.dumps(document).encode()
