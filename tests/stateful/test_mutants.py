"""Take any one safeguard away from the saver, and the machine finds the history in which that shows.

Those that chance would take long to find have a history of their own: see `histories`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from asyncsaver.errors import AsyncSaverError

from .histories import HISTORIES
from .machine import SaverMachine
from .without_finding import FINDING
from .without_removing import REMOVING
from .without_saving import SAVING

pytestmark = [pytest.mark.torture, pytest.mark.timeout(600)]

MUTANTS = {name: one for name, one in {**SAVING, **FINDING, **REMOVING}.items() if name not in HISTORIES}
_ENOUGH = 150


def hunt() -> None:
    """Run histories, the same ones each time, until one fails."""
    run_state_machine_as_test(
        SaverMachine,
        settings=settings(
            max_examples=_ENOUGH,
            stateful_step_count=30,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # one that fails is enough, however long it is
            report_multiple_bugs=False,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_saver_that_lacks_a_safeguard_is_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[mutant](monkeypatch)
    with pytest.raises((AssertionError, AsyncSaverError)):
        hunt()


def test_a_saver_that_lacks_none_gets_through(scale: Callable[[int, int], int]) -> None:
    if not scale(0, 1):
        pytest.skip("as many histories as a mutant gets: run by `make torture` only")
    hunt()
