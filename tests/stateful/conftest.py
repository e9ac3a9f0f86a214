"""What tests of histories share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Random histories log what goes wrong in them, as they should; collecting that would take much of the time."""
    logger = logging.getLogger("asyncsaver")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
