"""Release: let go of what a restore has made for each tensor, bit by bit."""

from __future__ import annotations

from typing import Any


def release(*nested: Any) -> None:
    """Empty lists and dicts, and those inside them. Blocking.

    The last reference to a list of a hundred thousand objects frees them all at once, and holds the GIL for as long; on the
    loop, it holds the loop.

    Args:
        nested: that nobody else looks at any more.
    """
    rest = list(nested)
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            rest.extend(item.values())
            item.clear()
        elif isinstance(item, list):
            rest.extend(item)
            item.clear()
