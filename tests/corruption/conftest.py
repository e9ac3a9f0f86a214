"""A root that a test may damage; made once, mended before each."""

from __future__ import annotations

import asyncio

import pytest

from .scene import Scene, files_of, make_root, times_of


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The root that `scene` mends."""
    folder = tmp_path_factory.mktemp("corruption") / "root"
    asyncio.run(make_root(folder))
    return Scene(folder, files_of(folder), times_of(folder))


@pytest.fixture
def scene(whole: Scene) -> Scene:
    """The root, whole."""
    whole.mend()
    return whole
