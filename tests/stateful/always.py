"""What is true of a saver after whatever has happened."""

from __future__ import annotations

from hypothesis.stateful import invariant

from ..doubles.world import number_of  # noqa: TID252 - test folders have no name
from .ground import Ground


class Always(Ground):
    """After each step the saver lists exactly what the model does, all of it whole, and the newest restores bit for bit."""

    @invariant()
    def lists_what_there_is(self) -> None:
        seen = self.loop.run(self._seen())
        assert seen == self.held, f"seen {seen} in place of {self.held}"

    @invariant()
    def newest_restores(self) -> None:
        async def check() -> None:
            latest = await self.saver.latest()
            if not self.held.saved:
                assert latest is None
                return
            assert latest is not None
            assert latest.step == self.held.saved[-1].step
            assert number_of(await self.saver.restore()) == self.held.saved[-1].number

        self.loop.run(check())

    @invariant()
    def leaves_the_foreign_alone(self) -> None:
        there = self.inside.objects()
        assert {path: there.get(path) for path in self.foreign} == self.foreign

    @invariant()
    def leaves_nothing_behind(self) -> None:
        """A save that was refused or cancelled takes back what it wrote; only one that died leaves it to a sweep."""
        left = self.inside.leftovers(self.foreign) - self.left_by_the_dead
        assert not left, f"nobody that died has left {left}"

    @invariant()
    def has_the_data_of_what_is_committed(self) -> None:
        """Also of what was replaced or is about to go: whoever lists it now may still read it."""
        ruins = self.inside.ruins(self.foreign)
        assert not ruins, f"committed without their data: {ruins}"

    def holds(self) -> None:
        """Check all of this, in a history that nothing else checks."""
        self.lists_what_there_is()
        self.newest_restores()
        self.leaves_the_foreign_alone()
        self.leaves_nothing_behind()
        self.has_the_data_of_what_is_committed()
