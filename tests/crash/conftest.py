"""Roots to interrupt work on, and the process whose forks are killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from .grounds import S3, Disk, Ground, Memory, open_ground
from .killing import Killer
from .scenarios import populate


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A folder that does not exist yet."""
    return Disk.fresh(tmp_path)


@pytest.fixture
def s3(s3_root: Any) -> S3:
    """A prefix in a fresh bucket."""
    return S3(s3_root.url, s3_root.storage_options)


@pytest.fixture(params=["memory", "disk"])
def near(request: pytest.FixtureRequest) -> Ground:
    """An empty root in each store that needs no server."""
    found: Ground = Memory.fresh() if request.param == "memory" else request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def populated_near(near: Ground) -> Ground:
    """A root in each store that needs no server, with all there is to clean up."""
    async with open_ground(near) as store:
        await populate(store)
    return near


@pytest.fixture
async def populated_s3(s3: S3) -> S3:
    """The same in S3."""
    async with open_ground(s3) as store:
        await populate(store)
    return s3


@pytest.fixture
async def killer() -> AsyncIterator[Killer]:
    """Runs scenarios in processes that kill themselves."""
    async with Killer() as running:
        yield running
