"""Every byte of every kind of file flipped, every file cut, emptied, swapped and deleted: found, or harmless."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from .scene import KINDS, STATE_FILE, Scene, check

Scale = Callable[[int, int], int]
# What a kind of file must make of damage: noticed always, or harmless always (then everything restores as it was saved).
NOTICED = {"manifest", "shard", "tombstone", "fence"}
pytestmark = pytest.mark.torture


async def go(scene: Scene, kind: str, path: str, data: bytes | None, *, quietly: bool = False) -> None:
    scene.put(path, data, quietly=quietly)
    try:
        noticed = await check(scene, kind, path, data)
        assert noticed == (kind in NOTICED and not (data is None and kind == "fence"))
    except AssertionError as error:
        error.add_note(f"{path} is now {data!r}")
        raise
    finally:
        scene.mend()


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_flipped(scene: Scene, kind: str, scale: Scale, figures: Any) -> None:
    rng = random.Random(kind)
    places = [(path, at) for path in scene.of_kind(kind) for at in range(len(scene.files[path]))]
    for path, at in rng.sample(places, min(len(places), scale(10, 1_000_000))):
        # Quietly: neither time nor size tell that the file has changed, so that caches hold what it was.
        await go(scene, kind, path, flipped(scene.files[path], at, rng.randrange(8)), quietly=rng.random() < 0.5)
        figures.add(f"bytes flipped, {kind}")


@pytest.mark.parametrize("kind", KINDS)
async def test_cut_at_every_length(scene: Scene, kind: str, scale: Scale, figures: Any) -> None:
    rng = random.Random(kind)
    places = [(path, at) for path in scene.of_kind(kind) for at in range(len(scene.files[path]))]
    for path, at in rng.sample(places, min(len(places), scale(4, 500))):
        await go(scene, kind, path, scene.files[path][:at])
        figures.add("files cut")


@pytest.mark.parametrize("kind", KINDS)
async def test_emptied_lengthened_blanked_deleted(scene: Scene, kind: str, figures: Any) -> None:
    for path in scene.of_kind(kind):
        whole = scene.files[path]
        blank = bytes(len(whole))
        for data in (
            b"",
            whole + b"\n",
            whole + whole,
            blank,
            blank[: len(whole) // 2] + whole[len(whole) // 2 :],
            None,
        ):
            await go(scene, kind, path, data)
            figures.add("files emptied, lengthened, blanked or deleted")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"marker", "state file"}])
async def test_swapped_with_that_of_another_checkpoint(scene: Scene, kind: str, figures: Any) -> None:
    for path in scene.of_kind(kind):
        await go(scene, kind, path, scene.files[scene.counterpart(path)])
        figures.add("files swapped")


@pytest.mark.parametrize("kind", ["manifest", "shard", "part", "state file"])
async def test_replaced_by_a_file_of_another_kind(scene: Scene, kind: str, figures: Any) -> None:
    [path, *_] = scene.of_kind(kind)
    for other in KINDS:
        if other != kind:
            await go(scene, kind, path, scene.files[scene.of_kind(other)[0]])
            figures.add("files swapped")


async def test_a_damaged_state_file_is_rebuilt_and_the_log_says_so(
    scene: Scene, scale: Scale, figures: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random("state file")
    whole = scene.files[STATE_FILE]
    for at in rng.sample(range(len(whole)), min(len(whole), scale(8, 1_000_000))):
        caplog.clear()
        scene.put(STATE_FILE, flipped(whole, at, rng.randrange(8)))
        with caplog.at_level(logging.WARNING, "asyncsaver"):
            assert not await check(scene, "state file", STATE_FILE, b"")
        assert f"{STATE_FILE} cannot be read and is rebuilt from the manifests" in caplog.text
        figures.add("bytes flipped, state file")
    scene.mend()
