"""Whatever happens to a saver, in whatever order, it holds what a plain list says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import SaverMachine


@pytest.mark.torture
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kinds", [("json",), ("json", "proto")], ids=" and ".join)
def test_a_saver_holds_what_the_model_says(
    kinds: Sequence[str], scale: Callable[[int, int], int], figures: Any
) -> None:
    counts: Counter[str] = Counter()

    class Counted(SaverMachine):
        formats = kinds

        @staticmethod
        def tally(what: str) -> None:
            counts[what] += 1

    run_state_machine_as_test(
        Counted,
        settings=settings(
            max_examples=scale(60, 2_700),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert counts["deaths of the process in random histories"] > 0
    for what, count in counts.items():
        figures.add(what, count)
