"""Golden checkpoints: what an earlier version wrote is listed, verified, opened and restored; see tests/golden/README.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import CheckpointDeletedError, CheckpointExistsError, CheckpointNotFoundError, Saver

from ..golden.describe import describe, describe_array, fields, hashes  # noqa: TID252 - test folders are no packages
from ..golden.states import small  # noqa: TID252 - likewise

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OPTIONS: dict[str, dict[str, Any]] = {"unpadded": {"prefix": "run_1", "pad_step_number": False}}
ROOTS = sorted(
    path.relative_to(GOLDEN).as_posix().removesuffix(".expected.json")
    for path in GOLDEN.glob("v[0-9]*/*.expected.json")
)


class Golden:
    """A copy of a golden root, and what must be found in it."""

    def __init__(self, root: str, folder: Path) -> None:
        self.folder = folder / "root"
        self.expected: Any = json.loads((GOLDEN / f"{root}.expected.json").read_text(encoding="utf-8"))
        self.options = OPTIONS.get(Path(root).name, {})
        shutil.copytree(GOLDEN / root, self.folder)

    def saver(self, **options: Any) -> Saver:
        return Saver(self.folder, **self.options, **options)

    @property
    def checkpoints(self) -> list[Any]:
        found: list[Any] = self.expected["checkpoints"]
        return found


@pytest.fixture(params=ROOTS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    return Golden(request.param, tmp_path)


@pytest.fixture(params=["v1", "v2"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    return Golden(f"{request.param}/history", tmp_path)


@pytest.fixture
def overwritten(tmp_path: Path) -> Golden:
    return Golden("v1/overwritten", tmp_path)


def without_state(checkpoint: Any) -> Any:
    return {key: value for key, value in checkpoint.items() if key not in {"state", "tensors"}}


def test_there_are_golden_checkpoints() -> None:
    assert {"v1/history", "v1/mixed", "v1/overwritten", "v1/unpadded"} <= {*ROOTS}
    assert {"v2/both", "v2/history", "v2/mixed"} <= {*ROOTS}


def test_no_file_has_changed(golden: Golden) -> None:
    assert hashes(golden.folder) == golden.expected["files"]


@pytest.mark.parametrize("state_file", [True, False], ids=["listed", "state file lost"])
async def test_listed(golden: Golden, state_file: bool) -> None:
    if not state_file:
        for path in golden.folder.glob("checkpoint.*"):
            path.unlink()
    async with golden.saver(read_only=True) as saver:
        listed = await saver.checkpoints()
        latest = await saver.latest()
    assert [fields(checkpoint) for checkpoint in listed] == [without_state(one) for one in golden.checkpoints]
    assert latest is not None
    assert fields(latest) == fields(listed[-1])


async def test_restored_and_verified(golden: Golden) -> None:
    async with golden.saver(read_only=True) as saver:
        listed = await saver.checkpoints()
        for checkpoint, expected in zip(listed, golden.checkpoints, strict=True):
            assert describe(await saver.restore(checkpoint=checkpoint)) == expected["state"]
            if checkpoint.step is not None:
                assert describe(await saver.restore(step=checkpoint.step)) == expected["state"]
                report = await saver.verify(checkpoint.step)
                assert report.tensors == len(expected["tensors"])
                assert report.bytes == expected["total_bytes"]
        assert describe(await saver.restore()) == golden.checkpoints[-1]["state"]
    assert hashes(golden.folder) == golden.expected["files"]


async def test_opened(golden: Golden) -> None:
    async with golden.saver(read_only=True) as saver:
        for expected in golden.checkpoints:
            if expected["step"] is None:
                continue
            async with await saver.open(expected["step"]) as reader:
                found = {name: describe_array(await reader.read(name)) for name in reader.tensors}
                assert found == expected["tensors"]
                assert reader.metadata == expected["metadata"]
                for name, info in reader.tensors.items():
                    if info.shape and info.shape[0]:
                        first = await reader.read(name, 0)
                        assert isinstance(first, np.ndarray)
                        assert first.tobytes() == (await reader.read(name))[0, ...].tobytes()


async def test_what_is_gone_stays_gone(history: Golden) -> None:
    async with history.saver(read_only=True) as saver:
        assert history.expected["deleted"]
        for step in history.expected["deleted"]:
            with pytest.raises(CheckpointDeletedError):
                await saver.restore(step=step)
        assert history.expected["fenced"]
        for step in history.expected["fenced"]:
            with pytest.raises(CheckpointNotFoundError) as caught:
                await saver.restore(step=step)
            assert not isinstance(caught.value, CheckpointDeletedError)


@pytest.mark.parametrize("manifest_format", ["json", "proto"])
async def test_life_goes_on_beside_them(golden: Golden, manifest_format: str) -> None:
    async with golden.saver(max_to_keep=None, manifest_format=manifest_format) as saver:
        new = await saver.save(small(77), step=77, metrics={"loss": 0.0})
        assert (new.stats is not None, new.slot) == (True, 0)
        report = await saver.prune()
        assert [item.name for item in report.kept] == [*(one["name"] for one in golden.checkpoints), new.name]
        await saver.sweep()
        listed = await saver.checkpoints()
        assert [fields(one) for one in listed[:-1]] == [without_state(one) for one in golden.checkpoints]
        for checkpoint, expected in zip(listed, golden.checkpoints, strict=False):
            assert describe(await saver.restore(checkpoint=checkpoint)) == expected["state"]
        assert describe(await saver.restore()) == describe(small(77))


async def test_they_are_pruned_like_any_other(history: Golden) -> None:
    async with history.saver(max_to_keep=1) as saver:
        await saver.save(small(77), step=77)
        kept = {item.name: item.reason for item in (await saver.prune()).kept}
    assert kept == {
        "ckpt-00000001": "pinned",
        "ckpt-00000003": "preserved earlier, for good",
        "ckpt-00000077": "the newest, one of the last 1",
    }
    assert not any((history.folder / "ckpt").glob("*/*.safetensors"))
    assert not any((history.folder / "ckpt-00000006").glob("*/*.safetensors"))


async def test_a_replaced_checkpoint_is_pruned_and_its_successor_stays(overwritten: Golden) -> None:
    folder = overwritten.folder / "ckpt-00000003"
    assert len([*folder.glob("*/*.safetensors")]) == 2
    async with overwritten.saver() as saver:
        report = await saver.prune()
        assert [item.reason for item in report.deleted] == ["replaced by ckpt-00000003/manifest-0001.json"]
        assert describe(await saver.restore(step=3)) == describe(small(2))
    assert len([*folder.glob("*/*.safetensors")]) == 1


async def test_slots_go_on_where_they_were(overwritten: Golden) -> None:
    async with overwritten.saver() as saver:
        with pytest.raises(CheckpointExistsError):
            await saver.save(small(3), step=3)
        assert (await saver.save(small(3), step=3, overwrite=True)).slot == 2
        assert describe(await saver.restore(step=3)) == describe(small(3))


async def test_a_deleted_and_a_fenced_step_can_be_saved_again(history: Golden) -> None:
    async with history.saver(max_to_keep=None) as saver:
        for step in [*history.expected["deleted"], *history.expected["fenced"]]:
            assert (await saver.save({"again": np.ones(step)}, step=step)).slot == 1
            assert (await saver.restore(step=step))["again"].tolist() == [1.0] * step
