"""What is interrupted, on which root, and what may be found there afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncsaver import Saver
from asyncsaver.store import Store

from ..doubles.scripted import Fail, ScriptedStore  # noqa: TID252 - test folders have no name
from ..doubles.world import broken, closing, number_of, state_of  # noqa: TID252

DEAD_ATTEMPTS = ("ckpt-00000004/20200101T000000Z-0123456789abcdef/", "ckpt-00000006/20200101T000000Z-0123456789abcdee/")


def ckpt(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"ckpt-{step:08d}"


# What `populate` commits and leaves standing, in the order of the commits: name, and the number of the state.
POPULATED = ((ckpt(1), 1), (ckpt(2), 2), ("ckpt", 9), (ckpt(4), 4), (ckpt(3), 3))
BEFORE = dict(POPULATED)


def large_state(number: int, part_bytes: int) -> dict[str, Any]:
    """A state with a tensor that takes more than one request to upload."""
    return {**state_of(number), "large": np.full(part_bytes + part_bytes // 4, number % 251, np.uint8)}


def whole_number(state: dict[str, Any]) -> int:
    """The number of which this is the state, with or without a large tensor, bit for bit; anything else fails."""
    large = state.pop("large", None)
    number = number_of(state)
    if large is not None:
        assert np.all(large == number % 251)
    return number


async def numbers_of(saver: Saver) -> dict[str, int]:
    """Name → number of the state, of every checkpoint that a saver lists; each must restore whole."""
    return {one.name: whole_number(await saver.restore(checkpoint=one)) for one in await saver.checkpoints()}


async def populate(store: Store) -> None:
    """A root with all there is to clean up.

    Steps 1 (pinned) to 4 and a checkpoint without a step; step 3 was overwritten last and its replaced slot still
    stands; two attempts to save, at step 4 and at 6, have died.
    """
    scripted = ScriptedStore(store)
    async with closing(Saver(scripted, shard_bytes=1, max_to_keep=None)) as saver:
        for step in (1, 2):
            await saver.save(state_of(step), step=step)
        await saver.save(state_of(9))
        await saver.save(state_of(4), step=4)
        await saver.save(state_of(1000), step=3)
        await saver.pin(1)
        # The saver that overwrites dies before it prunes what it has replaced.
        scripted.script = lambda call: Fail(broken()) if call.operation == "replace_if" else None
        await saver.save(state_of(3), step=3, overwrite=True)
    for folder in DEAD_ATTEMPTS:
        await store.put(folder + "part-00000.json", b"dead")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done on a populated root.

    Attributes:
        name: for the test's id.
        action: what is interrupted; gets the saver and the size of a part of a large object.
        commits: what it commits, in order: checkpoint name and number of the state.
        removed: names of checkpoints that are gone when it is through.
        max_to_keep: of the saver.
        manifest_format: of the saver; the one before it, and those that come afterwards, write JSON.
        format: of the saver, and of what stands.
        before: what stands, in the order of the commits: name, and the number of the state.
    """

    name: str
    action: Callable[[Saver, int], Awaitable[object]]
    commits: tuple[tuple[str, int], ...] = ()
    removed: frozenset[str] = field(default_factory=frozenset)
    max_to_keep: int | None = None
    manifest_format: str = "json"
    format: str = "native"
    before: tuple[tuple[str, int], ...] = POPULATED

    @property
    def after(self) -> dict[str, int]:
        """What stands when it was not interrupted: name → number of the state."""
        return {
            name: number
            for name, number in (dict(self.before) | dict(self.commits)).items()
            if name not in self.removed
        }

    def allowed(self, name: str) -> set[int]:
        """The numbers of states that a checkpoint may have after an interruption; 0 for not there."""
        numbers = {dict(self.before).get(name, 0), *(number for of, number in self.commits if of == name)}
        return numbers | {0} if name in self.removed else numbers

    def newest(self, found: Mapping[str, int]) -> str:
        """The name of the checkpoint among those found that was committed last."""
        return [name for name, number in (*self.before, *self.commits) if found.get(name) == number][-1]


async def _save_in_background(saver: Saver, part_bytes: int) -> None:
    state = state_of(50)
    pending = await saver.save_in_background(state, step=5)
    state["weights"][:] = np.nan  # the caller trains on
    await pending


async def _save_twice_and_prune(saver: Saver, part_bytes: int) -> None:
    await saver.save(state_of(50), step=5)
    await saver.save(state_of(60), step=6)
    await saver.prune()


async def _save_twice_without_step(saver: Saver, part_bytes: int) -> None:
    await saver.save(state_of(80))
    await saver.save(state_of(81))


async def _save_overwrite_and_prune(saver: Saver, part_bytes: int) -> None:
    await saver.save(large_state(50, part_bytes), step=5, write_meta=b"graph")
    await saver.save(state_of(30), step=3, overwrite=True)
    await saver.prune()


ALL_BUT_PINNED = frozenset(BEFORE) - {ckpt(1)}

SCENARIOS = (
    Scenario("save", lambda saver, _: saver.save(state_of(50), step=5), commits=((ckpt(5), 50),)),
    Scenario(
        "save in parts",
        lambda saver, part_bytes: saver.save(large_state(50, part_bytes), step=5, pin=True),
        commits=((ckpt(5), 50),),
    ),
    Scenario("overwrite", lambda saver, _: saver.save(state_of(40), step=4, overwrite=True), commits=((ckpt(4), 40),)),
    Scenario("background save", _save_in_background, commits=((ckpt(5), 50),)),
    Scenario(
        "saves without a step",
        _save_twice_without_step,
        commits=(("ckpt", 80), ("ckpt", 81)),
    ),
    Scenario(
        "two saves then prune",
        _save_twice_and_prune,
        commits=((ckpt(5), 50), (ckpt(6), 60)),
        removed=ALL_BUT_PINNED,
        max_to_keep=2,
    ),
    Scenario("prune", lambda saver, _: saver.prune(), removed=ALL_BUT_PINNED - {ckpt(3)}, max_to_keep=1),
    Scenario("sweep", lambda saver, _: saver.sweep(0)),
    Scenario("delete", lambda saver, _: saver.delete(3), removed=frozenset({ckpt(3)})),
    Scenario(
        "overwrite with protobuf",
        lambda saver, _: saver.save(state_of(40), step=4, overwrite=True),
        commits=((ckpt(4), 40),),
        manifest_format="proto",
    ),
    Scenario(
        "two saves with protobuf then prune",
        _save_twice_and_prune,
        commits=((ckpt(5), 50), (ckpt(6), 60)),
        removed=ALL_BUT_PINNED,
        max_to_keep=2,
        manifest_format="proto",
    ),
)
TENSORFLOW = Scenario(
    "TensorFlow's files",
    _save_overwrite_and_prune,
    commits=((ckpt(5), 50), (ckpt(3), 30)),
    removed=frozenset({ckpt(1), ckpt(2)}),
    max_to_keep=2,
    format="tensorflow",
    before=((ckpt(1), 1), (ckpt(2), 2), (ckpt(3), 3)),
)
BY_NAME = {scenario.name: scenario for scenario in (*SCENARIOS, TENSORFLOW)}


def saver_for(scenario: Scenario, store: Store) -> Saver:
    """The saver that will be interrupted: three shards a state, and little patience, but enough for requests over HTTP."""
    commit_timeout = 5 if store.url.startswith("s3://") else 2
    return Saver(
        store,
        shard_bytes=1,
        max_to_keep=scenario.max_to_keep,
        commit_timeout=commit_timeout,
        retry_timeout=0.3,
        manifest_format=scenario.manifest_format,
        format=scenario.format,
    )
