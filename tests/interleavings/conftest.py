"""What tests of interleavings share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of schedules log what goes wrong in them, as they should; collecting that would take most of the time."""
    logger = logging.getLogger("asyncsaver")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
