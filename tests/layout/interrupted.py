"""What is interrupted, and what may be found afterwards, whichever version of TensorFlow's files is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from asyncsaver import Saver
from asyncsaver.errors import AsyncSaverError, CommitUnknownError

Act = Callable[[Saver], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done, and what may be found afterwards.

    Attributes:
        act: what is interrupted.
        before: what stands before: name → number of the state.
        commits: what it commits, in order.
        removed: names that are gone when it is through.
        max_to_keep: of the saver.
    """

    act: Act
    before: Mapping[str, int]
    commits: tuple[tuple[str, int], ...] = ()
    removed: frozenset[str] = field(default_factory=frozenset)
    max_to_keep: int | None = None

    @property
    def after(self) -> dict[str, int]:
        """What stands when it was not interrupted."""
        return {
            name: number for name, number in {**self.before, **dict(self.commits)}.items() if name not in self.removed
        }

    def allowed(self, name: str) -> set[int]:
        """The numbers that a checkpoint may have at any time; 0 for not there."""
        found = {self.before.get(name, 0), *(number for one, number in self.commits if one == name)}
        return found | {0} if name in self.removed else found


def ckpt(step: int) -> str:
    return f"ckpt-{step:08d}"


THREE = {ckpt(1): 1, ckpt(2): 2, ckpt(3): 3}


def is_refused(outcome: BaseException) -> bool:
    """Whether it says that nothing was committed."""
    return isinstance(outcome, AsyncSaverError) and not isinstance(outcome, CommitUnknownError)
