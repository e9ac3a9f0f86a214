"""What TensorFlow's savers kept, deleted and noted in 75 scripted runs and in eight folders: items 74 to 86, replayed."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asyncsaver.store import Store
from asyncsaver.store.registry import open_store
from asyncsaver.tensorflow import CheckpointList, remove_rotated, update_checkpoint_state

from .golden import GOLDEN, ROTATION, TRACES, Clock, files_of, names_in

START: float = TRACES["T0"]


@dataclass(slots=True)
class Run:
    """A saver of the arguments that the trace names, saving into a folder of any store.

    Attributes:
        url: of the folder.
        store: the same, to look into.
        saver: the arguments of TensorFlow's.
        clock: that it asks.
        checkpoints: what it keeps count of.
    """

    url: str
    store: Store
    saver: Mapping[str, Any]
    clock: Clock
    checkpoints: CheckpointList

    @property
    def version(self) -> Any:
        return str(self.saver["write_version"]).lower()

    def path(self, name: str, step: int) -> str:
        number = f"{step:08d}" if self.saver["pad_step_number"] else str(step)
        shards = "-?????-of-00001" if self.saver["sharded"] and self.version == "v1" else ""
        return f"{self.url}/{name}-{number}{shards}"

    async def save(
        self, path: str, *, state: bool = True, sidecar: str | None = "meta", filename: str | None = None
    ) -> None:
        for file in files_of(path, version=self.version, suffix=sidecar):
            await self.store.put(file.removeprefix(f"{self.url}/"), b"content")
        if not state:
            return
        self.checkpoints.record(path, meta_graph_suffix=sidecar or "meta")
        await update_checkpoint_state(
            self.url,
            path,
            self.checkpoints.last_checkpoints,
            latest_filename=filename,
            save_relative_paths=self.saver["save_relative_paths"],
            dropped=self.checkpoints.dropped,
        )
        await remove_rotated(self.checkpoints, self.version)

    async def remove(self, path: str) -> None:
        assert not await self.store.delete(
            [file.removeprefix(f"{self.url}/") for file in files_of(path, version=self.version)]
        )

    async def files(self) -> list[str]:
        return [info.path for info in (await self.store.list()).objects]

    async def state(self, filename: str = "checkpoint") -> str | None:
        return (await self.store.get(filename)).data.decode() if filename in await self.files() else None


def begin(url: str, store: Store, saver: Mapping[str, Any], start: float) -> Run:
    clock = Clock(start)
    hours = saver["keep_checkpoint_every_n_hours"]
    return Run(url, store, saver, clock, CheckpointList(saver["max_to_keep"], hours, clock=clock))


async def take(run: Run, step: Mapping[str, Any]) -> None:
    """Do what the trace did."""
    match step["op"]:
        case "save" | "resave":
            await run.save(run.path("m", step["step"]))
        case "altname":
            await run.save(run.path("b", step["step"]))
        case "nometa":
            await run.save(run.path("m", step["step"]), sidecar=None)
        case "nostate":
            await run.save(run.path("m", step["step"]), state=False)
        case "external_rm":
            if "removed" in step:
                await run.remove(step["removed"].replace("$DIR", run.url))
        case "setlast":
            run.checkpoints.set_last_checkpoints(run.checkpoints.last_checkpoints)
        case "settime":
            times = [run.clock.now + offset for offset in step["offsets"]]
            paths = run.checkpoints.last_checkpoints
            run.checkpoints.set_last_checkpoints_with_time(list(zip(paths, times, strict=True)))
        case unknown:
            pytest.fail(unknown)


async def replay(url: str, store: Store, trace: Mapping[str, Any], *, relative: bool) -> None:
    """Replay a trace. Nothing of it is left out: no step does what one of the items is to fix."""
    run = begin(url, store, trace["saver"], START)
    for number, step in enumerate(trace["trace"]):
        run.clock.now += step["dt"]
        await take(run, step)
        here = f"trace {trace['id']}, step {number}: {step['op']}"
        text = await run.state()
        expected = step["state_text"]
        assert [path.replace(url, "$DIR", 1) for path in run.checkpoints.last_checkpoints] == step[
            "last_checkpoints"
        ], here
        assert run.checkpoints.next_time_to_keep - START == step["next_keep"], here
        assert await run.files() == step["files"], here
        assert (text and text.replace(url, "$DIR")) == (
            expected.replace("$DIR/", "") if expected and relative else expected
        ), here
        assert [one.path for one in run.checkpoints.to_delete] == step["to_delete"], here


def test_the_traces_are_those_that_were_promised() -> None:
    assert len(TRACES["traces"]) == 75
    longest = {
        trace["id"]: max(len(step["last_checkpoints"]) for step in trace["trace"])
        - (trace["saver"]["max_to_keep"] or 0)
        for trace in TRACES["traces"]
    }
    assert max(longest.values()) == 0, "with an over-long list, item 75 would differ on purpose"


@pytest.mark.parametrize("trace", TRACES["traces"], ids=lambda trace: str(trace["id"]))
async def test_items_074_to_086_every_trace_on_disk(trace: Mapping[str, Any], tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await replay(str(tmp_path), store, trace, relative=False)


@pytest.mark.parametrize("trace", TRACES["traces"], ids=lambda trace: str(trace["id"]))
async def test_items_074_to_086_every_trace_in_an_object_store(trace: Mapping[str, Any], memory_root: Any) -> None:
    async with open_store(memory_root.url) as store:
        await replay(memory_root.url, store, trace, relative=True)


def number_in(arguments: Mapping[str, str], name: str, default: float | None) -> Any:
    return ast.literal_eval(arguments[name]) if name in arguments else default


@pytest.mark.parametrize("name", [name for name, run in ROTATION["runs"].items() if "saver_kwargs" in run])
async def test_items_074_to_086_every_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = ROTATION["runs"][name]
    arguments, options = golden["saver_kwargs"], golden["save_kwargs"] or {}
    folder = tmp_path / "rotation" / name
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    saver = {
        "max_to_keep": number_in(arguments, "max_to_keep", 5),
        "keep_checkpoint_every_n_hours": number_in(arguments, "keep_checkpoint_every_n_hours", 10_000.0),
        "write_version": f"v{number_in(arguments, 'write_version', 2)}",
        "save_relative_paths": number_in(arguments, "save_relative_paths", False),
    }
    filename = options.get("latest_filename", "checkpoint")
    start: float = ROTATION["T0"]
    async with open_store(folder) as store:
        run = begin("." if name == "relprefix" else str(folder), store, saver, start)
        for step in golden["trace"]:
            run.clock.now = start + step["clock"]
            path = step["returned"].replace("$ROOT", str(tmp_path))
            await run.save(path, sidecar=options.get("meta_graph_suffix", "meta"), filename=filename)
            assert [one.replace(str(tmp_path), "$ROOT") for one in run.checkpoints.last_checkpoints] == step[
                "last_checkpoints"
            ]
            assert run.checkpoints.next_time_to_keep - start == step["next_checkpoint_time"]
            assert await run.files() == step["files"]
        text = await run.state(filename)
        files = await run.files()
    assert text == (GOLDEN / "rotation" / name / filename).read_text().replace("/train/golden", str(tmp_path))
    assert files == names_in(GOLDEN / "rotation" / name)
