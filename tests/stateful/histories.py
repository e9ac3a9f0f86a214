"""Short histories, each of which shows the lack of one safeguard, where chance would take long to find one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from .machine import SaverMachine
from .model import Saved
from .mortal import Moment

COMMITTED = Moment(1, applied=True, of="commit")
TOMBSTONE_STANDS = Moment(1, applied=True, of="tombstone")
ZERO, ONE, TWO = (Saved(step, number=0) for step in range(3))


@dataclass(frozen=True, slots=True)
class History:
    """A history.

    Attributes:
        policy: retention of the saver.
        steps: what happens.
        shows: what a saver without the safeguard fails with, as a regular expression.
    """

    policy: str
    steps: Callable[[SaverMachine], None]
    shows: str

    def happens(self) -> None:
        """On a root of its own, with a prune and a sweep at its end."""
        with _machine() as machine:
            machine.begins(self.policy)
            self.steps(machine)
            machine.holds()
            machine.clean_up()
            machine.holds()


@contextmanager
def _machine() -> Iterator[SaverMachine]:
    machine = SaverMachine()
    try:
        yield machine
        machine.loop.run(machine.saver.close())
    finally:
        machine.inside.clear()
        machine.loop.close()


def _cancelled_as_it_commits(machine: SaverMachine) -> None:
    machine.save_in_background([ONE], death=None, give_up=COMMITTED._replace(applied=False))


def _dies_once_committed(machine: SaverMachine) -> None:
    machine.save([replace(ONE, pinned=True)], death=COMMITTED)


def _dies_once_data_are_deleted(machine: SaverMachine) -> None:
    machine.save([ONE], death=None)
    machine.save([TWO], death=Moment(1, applied=True, of="deletion"))


def _deletes_what_was_replaced_and_dies(machine: SaverMachine) -> None:
    machine.save([ONE], death=None)
    machine.save([replace(ONE, overwrite=True)], death=COMMITTED)
    machine.delete(1, death=TOMBSTONE_STANDS, elsewhere=False)


def _prunes_and_dies(machine: SaverMachine) -> None:
    machine.save([ONE], death=None)
    machine.save([TWO], death=TOMBSTONE_STANDS)


def _pinned_by_one_that_died(machine: SaverMachine) -> None:
    machine.save([ONE], death=None)
    machine.pin(1, pinned=True, death=Moment(1, applied=True, of="mark"), elsewhere=True)
    machine.save([TWO], death=None)


def _replaces_what_is_not_listed(machine: SaverMachine) -> None:
    machine.save([ONE], death=None)
    machine.loses_the_state_file("lost")
    machine.save([replace(ONE, overwrite=True)], death=None)
    machine.save([TWO], death=None)


def _saves_what_is_not_listed(machine: SaverMachine) -> None:
    machine.save([ONE], death=None)
    machine.loses_the_state_file("lost")
    machine.save([TWO], death=None)


def _sweeps_what_is_fresh(machine: SaverMachine) -> None:
    machine.save([ONE], death=COMMITTED._replace(applied=False))
    machine.sweep(hours=1, death=None, elsewhere=False)


def _saves_within_the_hour(machine: SaverMachine) -> None:
    machine.save([replace(ZERO, pause=timedelta(hours=1)), ONE], death=None)


def _saves_after_two_hours(machine: SaverMachine) -> None:
    machine.save([replace(ZERO, pause=timedelta(hours=2)), ONE], death=None)


def _saves_again_what_is_preserved(machine: SaverMachine) -> None:
    machine.save([replace(ZERO, pause=timedelta(hours=2)), ONE, TWO], death=None)
    machine.save([replace(ZERO, overwrite=True)], death=None)


def _replaces_what_is_meanwhile_preserved(machine: SaverMachine) -> None:
    machine.save([replace(ZERO, pause=timedelta(hours=2))], death=None)
    machine.save_in_background([ONE, TWO, ZERO], death=None, give_up=None)


def _mark_at(hour: int) -> str:
    return rf"seen .*mark=datetime\.datetime\(2030, 1, 1, {hour}, 0.* none of"


HISTORIES: Mapping[str, History] = {
    "a_commit_that_is_cancelled_halfway": History("all", _cancelled_as_it_commits, "nobody that died has left"),
    "the_pin_after_the_commit": History("all", _dies_once_committed, "pinned=False"),
    "data_deleted_before_their_reference": History("last", _dies_once_data_are_deleted, "committed without their data"),
    "higher_slots_deleted_first": History("all", _deletes_what_was_replaced_and_dies, "number=1"),
    "prunes_not_finished": History("last", _prunes_and_dies, "belongs to nothing"),
    "the_state_file_taken_for_the_truth": History("all", _saves_what_is_not_listed, "seen .*step=2.* none of .*step=1"),
    "the_lowest_slot_taken_for_the_checkpoint": History("all", _replaces_what_is_not_listed, "seen .*number=1"),
    "a_sweep_that_heeds_no_grace": History("all", _sweeps_what_is_fresh, "swept"),
    "hours_at_their_end_counted_in": History(
        "hourly", _saves_within_the_hour, "seen .*step=0.*preserved=True.* none of"
    ),
    "hours_counted_from_the_last_one_kept": History("hourly", _saves_after_two_hours, _mark_at(2)),
    "hours_not_recorded": History("hourly", _saves_after_two_hours, _mark_at(0)),
    "marks_looked_for_only_at_the_start": History(
        "last two and hourly", _replaces_what_is_meanwhile_preserved, "seen .* none of"
    ),
    "no_mark_beside_the_preserved": History(
        "hourly", _saves_after_two_hours, "seen .*step=0.*preserved=False.*step=1.* none of .*preserved=True"
    ),
    "pins_not_looked_for": History("last", _pinned_by_one_that_died, "seen .*step=2.* none of .*step=1"),
    "replaced_slots_not_looked_for": History("last", _replaces_what_is_not_listed, "number=1"),
    "the_preserved_counted_among_the_last": History(
        "last two and hourly", _saves_again_what_is_preserved, "seen .* none of .*step=1"
    ),
}
