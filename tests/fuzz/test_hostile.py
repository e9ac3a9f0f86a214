"""Absurd manifests: our errors, little memory, little time; and links that lead out of the root are not followed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import AsyncSaverError, CheckpointCorruptError, CheckpointNotFoundError, Saver
from asyncsaver.errors import ObjectExistsError, StoreError
from asyncsaver.store.registry import open_store

from ..saver.place import Place, sealed  # noqa: TID252 - test folders are no packages
from .documents import spoil
from .hostile import CASES

pytestmark = pytest.mark.torture
SCRIPT = Path(__file__).with_name("hostile.py")
# What restores in spite of everything: nothing is wrong with these that could do harm.
HARMLESS = {
    "no elements, but a long axis": "dict",
    "wide elements, none of them": "dict",
    "a long hexadecimal integer": "int",
    "the end of time": "dict",
    "the beginning of time": "dict",
    "doubled keys": "dict",
    "many files": "dict",
    "a long name": "dict",
}


def test_hostile_manifests_take_little_memory_and_time(tmp_path: Path, figures: Any) -> None:
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # each arena reserves addresses that nobody uses
    command = [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path / "root")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(done.stdout)
    assert found.pop("nothing wrong") == ["dict", "dict", "dict", "dict", "VerifyReport", "NoneType", "list"]
    assert found.keys() == CASES.keys()
    errors = {"CheckpointCorruptError", "ManifestError"}
    for case, (restored, latest, _, _, verified, read, listed) in found.items():
        assert restored == latest
        assert listed == "list"
        if case in HARMLESS:
            # A tree that is one number names no tensor, though there is one: only `verify` minds.
            report = "CheckpointCorruptError" if HARMLESS[case] == "int" else "VerifyReport"
            assert (restored, verified, read) == (HARMLESS[case], report, "NoneType"), case
        else:
            assert restored in errors, case
            assert {verified, read} <= errors | {"VerifyReport", "NoneType"}, case
    figures.add("hostile documents read", len(found))


async def test_spoiled_manifests_of_a_real_checkpoint(
    memory_root: Any, scale: Callable[[int, int], int], figures: Any
) -> None:
    """Whatever the manifest says, no other error comes out, and no other checkpoint suffers."""
    place = Place(memory_root.url, {})
    state = {"a": np.arange(6.0).reshape(2, 3), "b": [np.arange(5, dtype=np.uint8), "text", 2**60]}
    async with place.saver(shard_bytes=48) as saver:
        await saver.save(state, step=1)
        await saver.save(state, step=2)
    path = "ckpt-00000002/manifest.json"
    manifest = json.loads(await place.get(path))
    manifest.pop("checksum")
    restored = 0
    count = scale(100, 10_000)
    async with place.saver(read_only=True) as saver:
        for seed in range(count):
            choose = random.Random(seed)
            document = sealed(spoil(manifest, choose, choose.choice([1, 2, 3])))
            await place.put(path, document)
            try:
                try:
                    await saver.restore()
                    restored += 1
                    async with await saver.open(2) as reader:
                        for name in reader.tensors:
                            await reader.read(name)
                except (CheckpointCorruptError, CheckpointNotFoundError):
                    pass  # the latter where the state was changed to "deleted" or "aborted"
                with contextlib.suppress(CheckpointCorruptError, CheckpointNotFoundError):
                    await saver.verify(2)
                assert (await saver.restore(step=1))["b"][1:] == state["b"][1:]
            except BaseException as error:
                error.add_note(f"seed {seed}: {document!r}")
                raise
    assert 0 < restored < count
    figures.add("hostile documents read", count)


async def linked(tmp_path: Path, what: str) -> tuple[Path, Path]:
    """A root on a local disk in which something was moved out, and a link put in its place: the root, and what it leads to."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    async with Saver(root, max_to_keep=None) as saver:
        await saver.save({"w": np.arange(8)}, step=1)
        await saver.save({"w": np.arange(9)}, step=2)
    [victim] = [root, *root.glob(what)][1:]
    victim.rename(outside)
    victim.symlink_to(outside)
    return root, outside


LINKS = {
    "shard": "ckpt-00000002/*/*.safetensors",
    "save folder": "ckpt-00000002/2*Z-*",
    "checkpoint": "ckpt-00000002",
    "manifest": "ckpt-00000002/manifest.json",
}


@pytest.mark.parametrize("what", LINKS)
async def test_links_out_of_the_root_are_not_followed(tmp_path: Path, what: str) -> None:
    root, outside = await linked(tmp_path, LINKS[what])
    before = {file: file.read_bytes() for file in [outside, *outside.rglob("*")] if file.is_file()}
    assert before
    async with Saver(root, max_to_keep=1) as saver:
        for call in (saver.restore, saver.verify):
            with pytest.raises((CheckpointCorruptError, CheckpointNotFoundError, StoreError)) as caught:
                await call(step=2)
            assert not isinstance(caught.value, StoreError) or "through a symbolic link" in str(caught.value)
        assert (await saver.restore(step=1))["w"].tolist() == list(range(8))
        with contextlib.suppress(AsyncSaverError):  # what cannot be deleted is reported, and stays
            await saver.delete(2)
        for clean in (saver.prune, saver.sweep):
            with contextlib.suppress(
                AsyncSaverError
            ):  # a folder that leads elsewhere cannot be worked in, and that is said
                await clean()
        with contextlib.suppress(AsyncSaverError):
            await saver.save({"w": np.arange(7)}, step=2, overwrite=True)
        await saver.save({"w": np.arange(3)}, step=3)
        assert (await saver.restore())["w"].tolist() == list(range(3))
    assert {file: file.read_bytes() for file in before} == before


def link_shard_to(root: Path, other: Path) -> None:
    """Replace the only shard by a link, and have the manifest say that this is the size."""
    [shard] = root.glob("*/*/*.safetensors")
    shard.unlink()
    shard.symlink_to(other)
    manifest = root / "ckpt-00000001" / "manifest.json"
    document = json.loads(manifest.read_bytes())
    document["files"][0]["size"] = other.stat().st_size
    manifest.write_bytes(sealed(document))


async def test_a_link_to_a_file_of_the_system_is_no_shard(tmp_path: Path) -> None:
    async with Saver(tmp_path) as saver:
        await saver.save({"w": np.zeros(8, np.uint8)}, step=1)
        link_shard_to(tmp_path, Path("/etc/passwd"))
        for verify in (True, False):
            with pytest.raises(CheckpointCorruptError, match="is missing"):
                await saver.restore(verify=verify)


async def test_a_state_file_that_is_a_link_is_not_read_and_not_written_through(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    async with Saver(root) as saver:
        await saver.save({"w": np.zeros(8)}, step=1)
    secret.write_bytes((root / "checkpoint.json").read_bytes().replace(b"ckpt-00000001", b"ckpt-00000009"))
    before = secret.read_bytes()
    (root / "checkpoint.json").unlink()
    (root / "checkpoint.json").symlink_to(secret)
    async with Saver(root, read_only=True) as saver:
        assert [one.step for one in await saver.checkpoints()] == [1]
        assert (await saver.restore())["w"].tolist() == [0.0] * 8
    async with open_store(str(root)) as store:
        with pytest.raises(ObjectExistsError):
            await store.put("checkpoint.json", b"new", mode="create")
        assert secret.read_bytes() == before
        await store.put("checkpoint.json", b"new")
    assert secret.read_bytes() == before
    assert not (root / "checkpoint.json").is_symlink()
