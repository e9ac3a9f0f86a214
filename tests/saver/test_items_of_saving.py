"""What TensorFlow's saver does with arguments, steps and its list of checkpoints, in every format, by the list's numbers."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.blocking import Saver as BlockingSaver

FORMATS = ("native", "tensorflow")
STATE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}


class Clock:
    """A clock that is set by hand, in seconds since 1970."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=FORMATS)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Arguments of a saver of one of the formats."""
    return {"url": tmp_path / "run", "format": request.param, "pad_step_number": False, "prefix": "m"}


async def names(saver: Saver) -> list[str]:
    return [found.name for found in await saver.checkpoints()]


@pytest.mark.parametrize("nothing", [None, 0])
async def test_item_014_no_limit_keeps_everything_and_lists_nothing(
    options: dict[str, Any], nothing: int | None
) -> None:
    async with Saver(**options, max_to_keep=nothing) as saver:
        for step in range(7):
            await saver.save(STATE, step=step)
        assert saver.last_checkpoints == []
        assert await names(saver) == [f"m-{step}" for step in range(7)]


@pytest.mark.parametrize("wrong", [2.0, "2", True])
def test_item_015_a_limit_is_an_integer(options: dict[str, Any], wrong: object) -> None:
    with pytest.raises(TypeError, match="max_to_keep"):
        Saver(**options, max_to_keep=wrong)  # type: ignore[arg-type]


def test_item_016_a_negative_limit_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_to_keep"):
        Saver(**options, max_to_keep=-1)


@pytest.mark.parametrize("hours", [None, 0, math.inf, 0.5])
async def test_item_017_hours_that_are_taken(options: dict[str, Any], hours: float | None) -> None:
    clock = Clock()
    async with Saver(**options, max_to_keep=1, keep_checkpoint_every_n_hours=hours, clock=clock) as saver:
        for step in range(3):
            await saver.save(STATE, step=step)
            clock.now += 3600
        # The first was saved when the saver was made, not later than that.
        assert await names(saver) == (["m-1", "m-2"] if hours == 0.5 else ["m-2"])


@pytest.mark.parametrize("hours", [math.nan, -1.0])
def test_item_017_hours_that_are_not(options: dict[str, Any], hours: float) -> None:
    with pytest.raises(ValueError, match="keep_checkpoint_every_n_hours"):
        Saver(**options, keep_checkpoint_every_n_hours=hours)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("format", "tf"), ("write_version", 2), ("write_version", "v3"), ("manifest_format", "text")],
)
def test_item_018_an_unknown_format_or_version(options: dict[str, Any], argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=argument):
        Saver(**{**options, argument: value})


async def test_item_021_the_name_is_on_logs_and_figures(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []
    async with Saver(**options, name="generator", on_stats=lambda _, stats: told.append(stats.saver)) as saver:
        assert "generator" in repr(saver)
        with caplog.at_level(logging.INFO, "asyncsaver"):
            saved = await saver.save(STATE, step=1)
            await saver.restore()
        assert saved.stats is not None
        assert saved.stats.saver == "generator"
    assert told == ["generator", "generator"]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(": ")[0] for line in lines if " saved " in line or " restored " in line] == ["generator"] * 2


def test_item_021_a_name_is_text(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="name"):
        Saver(**options, name=7)  # type: ignore[arg-type]


async def test_item_022_the_prefix_begins_every_name(options: dict[str, Any]) -> None:
    async with Saver(**{**options, "prefix": "model.ckpt"}) as saver:
        assert (await saver.save(STATE, step=3)).name == "model.ckpt-3"
        assert (await saver.save(STATE)).name == "model.ckpt"


@pytest.mark.parametrize("step", [5, np.int64(5), np.uint8(5), np.array(5), lambda: 5, lambda: np.int32(5)])
async def test_items_045_and_046_what_a_step_may_be(options: dict[str, Any], step: Any) -> None:
    async with Saver(**options) as saver:
        saved = await saver.save(STATE, step=step)
        assert (saved.name, saved.step) == ("m-5", 5)


@pytest.mark.parametrize("step", [True, np.bool_(True), np.array(True)])
async def test_item_045_a_bool_is_no_step(options: dict[str, Any], step: Any) -> None:
    async with Saver(**options) as saver:
        with pytest.raises(TypeError, match="step"):
            await saver.save(STATE, step=step)
        assert await saver.checkpoints() == []


@pytest.mark.parametrize("step", [1.0, "1", np.array([1]), np.float32(1), lambda: 1.0])
async def test_item_047_what_is_no_step(options: dict[str, Any], step: Any) -> None:
    async with Saver(**options) as saver:
        with pytest.raises(TypeError, match="step"):
            await saver.save(STATE, step=step)


async def test_item_048_a_negative_step_is_refused(options: dict[str, Any]) -> None:
    async with Saver(**options) as saver:
        with pytest.raises(ValueError, match="step"):
            await saver.save(STATE, step=-1)


@pytest.mark.parametrize(("step", "name"), [(7, "m-00000007"), (123_456_789, "m-123456789")])
async def test_item_049_padded_steps(options: dict[str, Any], step: int, name: str) -> None:
    async with Saver(**{**options, "pad_step_number": True}) as saver:
        assert (await saver.save(STATE, step=step)).name == name


async def test_item_055_missing_folders_are_made(options: dict[str, Any]) -> None:
    async with Saver(**{**options, "url": Path(options["url"]) / "a" / "b"}) as saver:
        await saver.save(STATE, step=1)
        assert await names(saver) == ["m-1"]


async def test_item_057_what_is_not_recorded_stays_and_lets_nothing_go(options: dict[str, Any]) -> None:
    async with Saver(**options, max_to_keep=2) as saver:
        for step in (1, 2):
            await saver.save(STATE, step=step)
        await saver.save(STATE, step=3, write_state=False)
        assert saver.last_checkpoints == [f"{saver.url}/m-1", f"{saver.url}/m-2"]
        assert await names(saver) == ["m-1", "m-2", "m-3"]
        for step in (4, 5, 6):
            await saver.save(STATE, step=step)
        assert await names(saver) == ["m-3", "m-5", "m-6"]
        assert saver.last_checkpoints == [f"{saver.url}/m-5", f"{saver.url}/m-6"]
    async with Saver(**options, max_to_keep=1) as saver:
        report = await saver.prune()
        assert [item.name for item in report.kept] == ["m-3", "m-6"]


async def test_item_061_the_same_step_again_is_the_newest(options: dict[str, Any]) -> None:
    async with Saver(**options, max_to_keep=3) as saver:
        for step in (1, 2, 3):
            await saver.save(STATE, step=step)
        await saver.save({"w": STATE["w"] + 1}, step=1, overwrite=True)
        assert saver.last_checkpoints == [f"{saver.url}/m-{step}" for step in (2, 3, 1)]
        np.testing.assert_array_equal((await saver.restore())["w"], STATE["w"] + 1, strict=True)
        await saver.save(STATE, step=4)
        assert await names(saver) == ["m-3", "m-1", "m-4"]


async def test_item_071_paths_may_be_objects(options: dict[str, Any]) -> None:
    assert isinstance(options["url"], Path)
    async with Saver(**options) as saver:
        await saver.save(STATE, step=1)
        saver.set_last_checkpoints_with_time([(Path(options["url"]) / "m-1", 5.0)])
        assert saver.last_checkpoints == [f"{saver.url}/m-1"]


@pytest.mark.parametrize("argument", ["url", "prefix"])
def test_item_072_empty_paths_are_refused_first(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(ValueError, match=r"empty|1 to 100"):
        Saver(**{**options, argument: ""})


async def test_item_078_what_stays_for_good_leaves_the_list(options: dict[str, Any]) -> None:
    clock = Clock()
    async with Saver(**options, max_to_keep=2, keep_checkpoint_every_n_hours=1, clock=clock) as saver:
        for step in range(1, 5):
            clock.now += 5000
            await saver.save(STATE, step=step)
        assert saver.last_checkpoints == [f"{saver.url}/m-3", f"{saver.url}/m-4"]
        report = await saver.prune()
        reasons = {item.name: item.reason for item in report.kept}
        assert [*reasons] == ["m-1", "m-2", "m-3", "m-4"]
        assert "for good" in reasons["m-1"]
        assert report.last_checkpoints == ["m-3", "m-4"]


async def test_item_080_the_list_is_a_copy_oldest_first(options: dict[str, Any]) -> None:
    async with Saver(**options) as saver:
        assert saver.last_checkpoints == []
        for step in (2, 1):
            await saver.save(STATE, step=step)
        found = saver.last_checkpoints
        assert found == [f"{saver.url}/m-2", f"{saver.url}/m-1"]
        found.clear()
        assert len(saver.last_checkpoints) == 2


@pytest.mark.parametrize("hours", [None, 1.0])
async def test_item_081_those_set_without_times_stay(options: dict[str, Any], hours: float | None) -> None:
    async with Saver(**options, max_to_keep=None) as saver:
        for step in (1, 2, 3):
            await saver.save(STATE, step=step)
    async with Saver(**options, max_to_keep=1, keep_checkpoint_every_n_hours=hours) as saver:
        saver.set_last_checkpoints([f"{saver.url}/m-1", "m-2"])
        assert saver.last_checkpoints == [f"{saver.url}/m-1", f"{saver.url}/m-2"]
        for step in (4, 5, 6):
            await saver.save(STATE, step=step)
        assert await names(saver) == ["m-1", "m-2", "m-3", "m-6"]  # 3 was not on the list, so nobody decides about it


async def test_item_082_times_that_are_set_decide(options: dict[str, Any]) -> None:
    clock = Clock()
    async with Saver(**options, max_to_keep=None, clock=clock) as saver:
        for step in (1, 2, 3):
            await saver.save(STATE, step=step)
    async with Saver(**options, max_to_keep=1, keep_checkpoint_every_n_hours=1, clock=clock) as saver:
        pairs: list[tuple[str, float]] = [("m-2", clock.now + 5000), ("m-1", clock.now)]
        saver.set_last_checkpoints_with_time(pairs)
        pairs.clear()
        assert saver.last_checkpoints == [f"{saver.url}/m-2", f"{saver.url}/m-1"]
        await saver.save(STATE, step=4)
        # 2 is the oldest now, and so late that it stays for good; 1 goes; 3 was not on the list.
        assert await names(saver) == ["m-2", "m-3", "m-4"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("m-1", TypeError), ({"m-1": 1.0}, TypeError), (["m-1"], TypeError), ([("m-1",)], TypeError), ([("m-1", "1")], TypeError),
        ([("m-1", math.nan)], ValueError), ([("other-1", 1.0)], ValueError), ([("/elsewhere/m-1", 1.0)], ValueError),
    ],
)  # fmt: skip
def test_item_082_what_is_no_list_is_refused_and_changes_nothing(
    options: dict[str, Any], given: Any, error: type[Exception]
) -> None:
    saver = Saver(**options)
    saver.set_last_checkpoints_with_time([("m-1", 1.0), ("m-2", math.inf)])
    with pytest.raises(error):
        saver.set_last_checkpoints_with_time(given)
    assert saver.last_checkpoints == [f"{saver.url}/m-1", f"{saver.url}/m-2"]


async def test_item_083_times_are_recovered_by_path(options: dict[str, Any]) -> None:
    clock = Clock()
    async with Saver(**options, max_to_keep=None, clock=clock) as saver:
        for step in (1, 2, 3):
            await saver.save(STATE, step=step)
            clock.now += 5000
    async with Saver(**options, max_to_keep=2, keep_checkpoint_every_n_hours=1, clock=clock) as saver:
        await saver.recover_last_checkpoints([f"{saver.url}/m-1", f"{saver.url}/m-9", f"{saver.url}/m-3"])
        assert saver.last_checkpoints == [f"{saver.url}/m-1", f"{saver.url}/m-3"]
        await saver.save(STATE, step=4)
        assert await names(saver) == ["m-2", "m-3", "m-4"]


async def test_item_084_a_new_saver_reads_the_state_first(options: dict[str, Any]) -> None:
    async with Saver(**options, max_to_keep=None) as saver:
        for step in (1, 2, 3):
            await saver.save(STATE, step=step)
    async with Saver(**options, max_to_keep=2) as saver:
        await saver.save(STATE, step=4)
        assert await names(saver) == ["m-3", "m-4"]


def test_lists_without_a_loop(options: dict[str, Any]) -> None:
    with BlockingSaver(options.pop("url"), **options) as saver:
        saver.save(STATE, step=1)
        assert saver.last_checkpoints == [f"{saver.url}/m-1"]
        saver.set_last_checkpoints(["m-1"])
        saver.set_last_checkpoints_with_time([("m-1", 1.0)])
        saver.recover_last_checkpoints(["m-1", "m-2"])
        assert saver.last_checkpoints == [f"{saver.url}/m-1"]
