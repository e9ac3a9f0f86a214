"""Damage: what TensorFlow refuses is refused, and what it reads is read. Items 103, 115 and 116 of its behaviours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asyncsaver.errors import CheckpointCorruptError, CheckpointNotFoundError, ManifestError
from asyncsaver.store.contract import Store

from .checkpoints import GOLDEN, contents, described, fingerprint, put_folder, read

CASES: dict[str, Any] = json.loads((GOLDEN / "damaged/golden.json").read_text())["damage"]
WHOLE = contents(GOLDEN / "damaged/good/m.json") or {}


@pytest.mark.parametrize("case", CASES)
async def test_as_tensorflow(store: Store, case: str) -> None:
    said = CASES[case]
    await put_folder(store, GOLDEN / "damaged" / case)
    path = f"damaged/{case}/m"
    if not said["exists"]:
        with pytest.raises(CheckpointNotFoundError, match=f"{path} is not a valid checkpoint"):
            await described(store, path)
        return
    if "error" in said["list"]:
        with pytest.raises(ManifestError, match=rf"{path}\.index") as caught:
            await described(store, path)
        assert caught.value.path == f"{path}.index"
        return
    foreign = await described(store, path)
    assert list(foreign.tensors) == said["list"]
    for name, wanted in WHOLE.items():
        if said[f"reader {name}"] == "ok":
            assert fingerprint(await read(store, foreign, name)) == wanted["sha256"]
        else:
            with pytest.raises(CheckpointCorruptError):
                await read(store, foreign, name)


async def test_a_missing_data_file_is_named(store: Store) -> None:
    await put_folder(store, GOLDEN / "damaged/data_missing")
    foreign = await described(store, "damaged/data_missing/m")
    assert not foreign.files
    assert foreign.unreadable["a/f32"] == (
        "damaged/data_missing/m.index: tensor 'a/f32': damaged/data_missing/m.data-00000-of-00001 is missing"
    )


async def test_a_cut_data_file_is_named_with_the_place(store: Store) -> None:
    await put_folder(store, GOLDEN / "damaged/data_truncated_half")
    foreign = await described(store, "damaged/data_truncated_half/m")
    assert (
        "is said to be bytes 0 to 800 of damaged/data_truncated_half/m.data-00000-of-00001, which has"
        in (foreign.unreadable["a/f32"])
    )


async def test_every_bit_of_an_index_is_watched(store: Store) -> None:
    """But for the padding of the footer and the handle of the empty metaindex, which TensorFlow does not look at either."""
    folder = GOLDEN / "damaged/good"
    await put_folder(store, folder)
    whole = (folder / "m.index").read_bytes()
    expected = await described(store, "damaged/good/m")
    unwatched, paths = 0, set()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        await store.put("damaged/good/m.index", data)
        try:
            assert await described(store, "damaged/good/m") == expected
            unwatched += 1
        except ManifestError as error:
            paths.add(error.path)
    assert paths == {"damaged/good/m.index"}
    assert unwatched <= 48 + 13  # the padding and the metaindex, block and handle
