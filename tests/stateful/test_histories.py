"""A saver gets through each of these histories, and one that lacks the safeguard each is named after does not."""

from __future__ import annotations

import pytest

from .histories import HISTORIES
from .without_finding import FINDING
from .without_removing import REMOVING
from .without_saving import SAVING

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("mutant", sorted(HISTORIES))
def test_a_history_shows_the_lack_of_a_safeguard(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    history = HISTORIES[mutant]
    history.happens()
    {**SAVING, **FINDING, **REMOVING}[mutant](monkeypatch)
    with pytest.raises(AssertionError, match=history.shows):
        history.happens()
