"""Roots to save under, in the shape that the tests of `Saver` use."""

from __future__ import annotations

from typing import Any

import pytest

from .place import Place


def _place(root: Any) -> Place:
    return Place(root.url, root.storage_options)


@pytest.fixture
def anywhere(any_root: Any) -> Place:
    """A fresh root in each kind of store, in turn."""
    return _place(any_root)


@pytest.fixture
def memory(memory_root: Any) -> Place:
    """A fresh root in memory."""
    return _place(memory_root)


@pytest.fixture
def local(local_root: Any) -> Place:
    """A fresh root on the local disk."""
    return _place(local_root)


@pytest.fixture(params=["memory", "local"])
def nearby(request: pytest.FixtureRequest) -> Place:
    """A fresh root in each store that needs no server."""
    return _place(request.getfixturevalue(f"{request.param}_root"))
