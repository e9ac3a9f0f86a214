"""What users need to test their own stores and trainers; `StoreContract` is imported when first asked for.

It needs pytest, which asyncsaver itself does not depend on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncsaver.testing.explorer import RandomChooser, Replay, all_schedules, explore, random_schedules
from asyncsaver.testing.faults import (
    Delay,
    FailBefore,
    Fault,
    FlipBit,
    Hang,
    LoseReply,
    Operation,
    Throttle,
    Truncate,
    after,
    at,
    on,
)
from asyncsaver.testing.faulty import FaultyStore, Injected
from asyncsaver.testing.scheduler import Chooser, DeadlockError, InOrder, Option, Outcome, Scheduler
from asyncsaver.testing.simulated import Guarantees, SimulatedBucket, SimulatedStore, always_done

if TYPE_CHECKING:
    from asyncsaver.testing.store_contract import StoreContract

__all__ = [
    "Chooser",
    "DeadlockError",
    "Delay",
    "FailBefore",
    "Fault",
    "FaultyStore",
    "FlipBit",
    "Guarantees",
    "Hang",
    "InOrder",
    "Injected",
    "LoseReply",
    "Operation",
    "Option",
    "Outcome",
    "RandomChooser",
    "Replay",
    "Scheduler",
    "SimulatedBucket",
    "SimulatedStore",
    "StoreContract",
    "Throttle",
    "Truncate",
    "after",
    "all_schedules",
    "always_done",
    "at",
    "explore",
    "on",
    "random_schedules",
]


def __getattr__(name: str) -> Any:
    """Import the test class on first use, with pytest's readable asserts turned on for it."""
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # noqa: PLC0415 - only those who test a store have it

    # Without this a failed assert says nothing but its line: pytest rewrites only test files by itself.
    pytest.register_assert_rewrite("asyncsaver.testing._contract_parts", "asyncsaver.testing._contract_objects")
    pytest.register_assert_rewrite("asyncsaver.testing._contract_races")
    from asyncsaver.testing.store_contract import StoreContract  # noqa: PLC0415

    return StoreContract
