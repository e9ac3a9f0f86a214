from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(params=["memory", "local"])
def nearby_root(request: pytest.FixtureRequest) -> Any:
    """A fresh root in each store that needs no server."""
    return request.getfixturevalue(f"{request.param}_root")
