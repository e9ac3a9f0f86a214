"""What users need to test their own stores; the names below are imported when first asked for.

`StoreContract` needs pytest, which asyncsaver itself does not depend on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncsaver.testing.store_contract import StoreContract

__all__ = ["StoreContract"]


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
