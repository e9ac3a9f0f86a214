"""What TensorFlow's savers kept, deleted and noted, replayed through savers of ours that write its files: items 74 to 86.

Lists, state files, the next time to keep and files are those of TensorFlow at every step, but for these differences:

- 7, 45: a saver has one prefix. What TensorFlow saved under another name is saved here at a step of its own.
- 17: 0 hours keep nothing for good here. The shortest interval does what 0 did in TensorFlow.
- 61, 62: an overwrite is atomic, so another save of a name has other data files: how many they are called to be is not compared.
- 84: state files have times, as `CheckpointManager` writes them: these are not compared.
- 78: what is kept for good stays so when it is saved again, and takes no other's place in the list. From there on a trace
  differs; that TensorFlow finds the same latest one, and all that it lists, is compared to its end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.formats.tensorflow.state_text import State, decode_state
from asyncsaver.store import Store
from asyncsaver.store.registry import open_store
from asyncsaver.tensorflow import latest_checkpoint

from ..doubles.world import World  # noqa: TID252 - test folders have no name
from ..tensorflow.golden import TRACES, Clock  # noqa: TID252

START: float = TRACES["T0"]
OTHER_NAME = 1_000_000
SHORTEST_HOURS = 1e-9
SAVES = {"save", "resave", "altname", "nometa", "nostate"}
DIFFERENT = {18, 54, 102, 126}
"""Those in which something that was kept for good is saved again."""
V2 = [trace for trace in TRACES["traces"] if trace["saver"]["write_version"] == "V2"]


@dataclass(slots=True)
class Replay:
    """A saver with the arguments that the trace names.

    Attributes:
        saver: ours.
        store: the same folder, to look into.
        clock: that the saver asks.
        arguments: of TensorFlow's saver.
        hours: how often one is kept for good.
        files: that TensorFlow had after the step before.
        listed: what its state file listed then.
        differs: whether something kept for good was saved again.
    """

    saver: Saver
    store: Store
    clock: Clock
    arguments: Mapping[str, Any]
    hours: float
    files: Sequence[str] = ()
    listed: Sequence[str] = ()
    differs: bool = field(default=False)

    def number(self, step: int) -> str:
        return f"{step:08d}" if self.arguments["pad_step_number"] else str(step)

    def theirs(self, path: str) -> str:
        """What TensorFlow calls a file, or a checkpoint, of ours."""
        name = path.rpartition("/")[2]
        found = re.fullmatch(r"m-(\d+)(.*?)(-of-\d{5})?", name)
        if found is None:
            return name
        kind, step = ("m", int(found[1])) if int(found[1]) < OTHER_NAME else ("b", int(found[1]) - OTHER_NAME)
        return f"{kind}-{self.number(step)}{found[2]}" + ("-of-00001" if found[3] else "")

    async def take(self, step: Mapping[str, Any]) -> None:
        """Do what the trace did."""
        self.clock.now += step["dt"]
        match step["op"]:
            case "setlast":
                self.saver.set_last_checkpoints(self.saver.last_checkpoints)
            case "settime":
                if not self.differs:
                    times = [self.clock.now + offset for offset in step["offsets"]]
                    pairs = zip(self.saver.last_checkpoints, times, strict=True)
                    self.saver.set_last_checkpoints_with_time(list(pairs))
            case "external_rm":
                if "removed" in step:
                    gone = step["removed"].rpartition("/")[2]
                    paths = [item.path for item in (await self.store.list(delimiter=True)).objects]
                    assert not await self.store.delete(
                        [path for path in paths if self.theirs(path).startswith(gone + ".")]
                    )
            case operation:
                assert operation in SAVES
                name = f"{'b' if operation == 'altname' else 'm'}-{self.number(step['step'])}"
                limited = bool(self.arguments["max_to_keep"])
                self.differs |= limited and f"{name}.index" in self.files and name not in self.listed
                await self.saver.save(
                    {"w": np.full(3, step["step"])},
                    step["step"] + (OTHER_NAME if operation == "altname" else 0),
                    overwrite=True,
                    write_state=operation != "nostate",
                    write_meta=None if operation == "nometa" else b"graph",
                )

    async def compare(self, step: Mapping[str, Any]) -> None:
        """See that all is as it was in TensorFlow's folder."""
        paths = [item.path for item in (await self.store.list(delimiter=True)).objects if item.path[0] != "."]
        files = sorted({self.theirs(path) for path in paths})
        latest = [path.rpartition("/")[2] for path in step["last_checkpoints"]]
        state = decode_state((await self.store.get("checkpoint")).data, "ours") if "checkpoint" in paths else State("")
        expected = decode_state((step["state_text"] or "").encode(), "theirs") if step["state_text"] else State("")
        assert self.theirs(state.latest) == expected.latest.rpartition("/")[2]
        if self.differs:
            assert {f"{name}.index" for name in latest} & set(step["files"]) <= set(files)
        else:
            assert files == step["files"]
            assert [self.theirs(path) for path in self.saver.last_checkpoints] == latest
            assert [self.theirs(path) for path in state.paths] == [path.rpartition("/")[2] for path in expected.paths]
            if state.latest and self.arguments["max_to_keep"]:
                mark = START if state.last_preserved is None else state.last_preserved
                # One hour is that long here too, but nanoseconds are rounded to microseconds.
                assert mark - START + 3600 * self.hours == pytest.approx(step["next_keep"], abs=1e-3)
        self.files, self.listed = step["files"], latest


async def replay(url: str, trace: Mapping[str, Any]) -> bool:
    """Replay a trace; returns whether it went as TensorFlow's to its end."""
    arguments, clock = trace["saver"], Clock(START)
    hours = arguments["keep_checkpoint_every_n_hours"] or SHORTEST_HOURS
    saver = Saver(
        url,
        format="tensorflow",
        prefix="m",
        pad_step_number=arguments["pad_step_number"],
        max_to_keep=arguments["max_to_keep"],
        keep_checkpoint_every_n_hours=hours,
        sharded=arguments["sharded"],
        save_relative_paths=arguments["save_relative_paths"],
        clock=clock,
    )
    async with saver, open_store(url) as store:
        run = Replay(saver, store, clock, arguments, hours)
        for step in trace["trace"]:
            await run.take(step)
            await run.compare(step)
    return not run.differs


def test_how_many_traces_there_are() -> None:
    assert len(V2) == 63, "the other 12 are of V1"


@pytest.mark.parametrize("trace", V2, ids=lambda trace: str(trace["id"]))
async def test_items_074_to_086_every_trace_in_an_object_store(trace: Mapping[str, Any]) -> None:
    assert await replay(World().url, trace) == (trace["id"] not in DIFFERENT)


@pytest.mark.parametrize("trace", V2[::4], ids=lambda trace: str(trace["id"]))
async def test_items_074_to_086_traces_on_disk(trace: Mapping[str, Any], tmp_path: Path) -> None:
    assert await replay(str(tmp_path), trace) == (trace["id"] not in DIFFERENT)


async def test_items_061_and_078_what_is_kept_for_good_and_saved_again_is_the_latest() -> None:
    url, clock = World().url, Clock(START)
    arguments: dict[str, Any] = {"format": "tensorflow", "prefix": "m", "pad_step_number": False, "clock": clock}
    async with Saver(url, **arguments, max_to_keep=1, keep_checkpoint_every_n_hours=1) as saver:
        for step in (1, 2):
            clock.now += 5000
            await saver.save({"w": 0}, step=step)
        await saver.save({"w": 1}, step=1, overwrite=True)
        assert saver.last_checkpoints == [f"{url}/m-2"]
        found = await saver.latest()
        assert found is not None
        assert await latest_checkpoint(url) == found.url == f"{url}/m-1"
        await saver.save({"w": 1}, step=3)
        assert await latest_checkpoint(url) == f"{url}/m-3"
        assert [one.name for one in await saver.checkpoints()] == ["m-2", "m-1", "m-3"]
