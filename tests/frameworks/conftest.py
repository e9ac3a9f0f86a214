"""The tests of frameworks save and restore as those of states do."""

from __future__ import annotations

from ..model.conftest import save  # noqa: TID252 - test folders are not packages with a name

__all__ = ["save"]
