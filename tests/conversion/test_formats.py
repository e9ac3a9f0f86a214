"""Every format into every other: golden checkpoints of other libraries, and states of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from asyncsaver import Saver, convert, open_checkpoint
from asyncsaver.model.parse import TensorNode, parse_tree

from ..formats.tensorflow.checkpoints import CHECKPOINTS  # noqa: TID252 - test folders have no name
from .checkpoints import GOLDEN, Content, assert_same, can_hold, content_of, files_under

TARGETS = {"native": "root/ckpt-00000007", "huggingface": "model-7", "tensorflow": "folder/model.ckpt-7"}
SOURCES = [
    *[f"tensorflow/{path}" for path in CHECKPOINTS if "rotation" not in path],
    *[f"huggingface/{path.name}" for path in sorted((GOLDEN / "huggingface").iterdir()) if path.is_dir()],
    *[f"dcp/{path.name}" for path in sorted((GOLDEN / "dcp").iterdir()) if path.is_dir()],
]


async def tensors_of(source: str, into: str) -> tuple[Content, set[str]]:
    """All that a golden checkpoint has, and names of the leaves that a format can hold."""
    content = await content_of(source)
    async with await open_checkpoint(source) as reader:
        leaves = parse_tree(reader.source.tree, reader.source.specs()).leaves.values()
    wanted = {leaf.tensor for leaf in leaves if isinstance(leaf, TensorNode) and leaf.tensor in content}
    return content, {
        leaf.name
        for leaf in leaves
        if isinstance(leaf, TensorNode) and leaf.tensor in wanted and can_hold(into, content[leaf.tensor][0])
    }


@pytest.mark.parametrize("into", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
async def test_golden_checkpoints_become_every_format(source: str, into: str, tmp_path: Path) -> None:
    content, leaves = await tensors_of(str(GOLDEN / source), into)
    if not leaves:
        pytest.skip("it holds nothing that the format could")
    target = str(tmp_path / TARGETS[into])
    written = await convert(str(GOLDEN / source), target, format=into, select=leaves.__contains__)
    assert (written.name, written.step) == (Path(target).name, 7)
    async with await open_checkpoint(target, into) as reader:
        assert not reader.source.unreadable
        assert reader.checkpoint.total_bytes == written.total_bytes
        assert not (await reader.verify()).unverified or into == "huggingface"
        kept = set(reader.source.tensors)
    assert_same(await content_of(target), content, kept.__contains__)
    assert len(kept) == len(leaves)


ORDERED = ["v2_single/model.ckpt", "v2_sharded_onedevice/model.ckpt", "meta/model-1000", "derived/small_blocks"]
"""Those in whose data file the tensors stand in the order of their names."""


@pytest.mark.parametrize("path", ORDERED)
async def test_an_index_is_that_of_tensorflow_byte_for_byte(path: str, tmp_path: Path) -> None:
    await convert(str(GOLDEN / "tensorflow" / path), str(tmp_path / "m"), format="tensorflow", shard_bytes=2**40)
    # What has small blocks is the same checkpoint, and TensorFlow itself does not write such.
    reference = GOLDEN / "tensorflow" / path.replace("derived/small_blocks", "v2_single/model.ckpt")
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"m{suffix}").read_bytes() == reference.with_name(reference.name + suffix).read_bytes()


STATE: dict[str, Any] = {
    "model": {"weight": np.arange(60, dtype=np.float32).reshape(3, 4, 5), "bias": np.zeros((0, 3), np.float16)},
    "layers": [np.arange(7, dtype=np.int64), np.array(True), np.array(2.5)],
}


async def saved(root: Path, state: Any = STATE, **arguments: Any) -> str:
    async with Saver(root) as saver:
        return (await saver.save(state, step=3, **arguments)).url


async def test_a_native_checkpoint_keeps_tree_metadata_and_metrics(tmp_path: Path) -> None:
    state = {
        **STATE,
        "step": 12,
        "note": "ü",
        "pair": (1.5, None),
        "large": b"\1" * 5000,
        "one": np.float32(2),
        "s": np.array(["a", "ü"]),
    }
    source = await saved(tmp_path / "a", state, metrics={"loss": 0.5, "nan": float("nan")}, metadata={"git": ["abc"]})
    written = await convert(source, tmp_path / "b" / "other-00000009", shard_bytes=64)
    assert written.stats is not None
    async with Saver(tmp_path / "b", prefix="other") as saver:
        [listed] = await saver.checkpoints()
        assert (listed.name, listed.step, listed.metadata) == ("other-00000009", 9, {"git": ["abc"]})
        assert listed.metrics["loss"] == 0.5
        assert np.isnan(listed.metrics["nan"])
        await saver.verify()
        restored = await saver.restore()
    assert restored["pair"] == (1.5, None)
    assert (restored["step"], restored["note"], restored["large"], restored["one"]) == (
        12,
        "ü",
        b"\1" * 5000,
        np.float32(2),
    )
    async with await open_checkpoint(source) as one, await open_checkpoint(written.url) as other:
        assert one.source.tree == other.source.tree
        digests = [
            {name: [chunk.xxh3_128 for chunk in entry.chunks] for name, entry in reader.source.tensors.items()}
            for reader in (one, other)
        ]
    assert digests[0] == digests[1]
    assert_same(await content_of(written.url), await content_of(source))


async def test_a_selection_keeps_the_structure_of_what_is_left(tmp_path: Path) -> None:
    source = await saved(tmp_path / "a", {**STATE, "step": 12, "empty": {}, "ids": {1: np.ones(2), 2**60: np.zeros(1)}})
    written = await convert(
        source, tmp_path / "b" / "ckpt-00000001", select=["model.weight", "layers.1", "empty", f"ids.{2**60}"]
    )
    async with Saver(tmp_path / "b") as saver:
        restored = await saver.restore()
    assert restored.keys() == {"model", "layers", "empty", "ids"}
    assert restored["model"].keys() == {"weight"}
    assert restored["layers"][0] is None
    assert restored["layers"][1].shape == ()
    assert restored["layers"][2] is None
    assert restored["empty"] == {}
    assert list(restored["ids"]) == [2**60]
    assert set(await content_of(written.url)) == {"model.weight", "layers.1", f"ids.{2**60}"}


async def test_a_folder_is_read_by_safetensors_itself(tmp_path: Path) -> None:
    source = await saved(tmp_path / "a", metadata={"run": 5})
    written = await convert(source, tmp_path / "out", format="huggingface", shard_bytes=200)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"run": 5, "total_size": 60 * 4 + 7 * 8 + 1 + 8}
    files = {name: load_file(tmp_path / "out" / name) for name in set(index["weight_map"].values())}
    assert len(files) > 1
    found = {name: files[file][name] for name, file in index["weight_map"].items()}
    for name, (_, array) in (await content_of(source)).items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert written.metadata == {"run": 5}
    assert written.total_bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))


async def test_what_a_format_cannot_hold_is_named_before_anything_is_written(tmp_path: Path) -> None:
    source = await saved(tmp_path / "a", {**STATE, "epoch": 3, "z": np.zeros(2, np.complex128), "s": np.array(["ab"])})
    for into, named in (("huggingface", ["epoch", "z", "s"]), ("tensorflow", ["epoch", "s"])):
        with pytest.raises(ValueError, match="cannot hold all of it") as caught:
            await convert(source, tmp_path / "out" / "m-1", format=into)
        lines = str(caught.value).splitlines()[1:]
        assert sorted(line.split(":")[0].strip() for line in lines) == sorted(named)
    strings = str(GOLDEN / "tensorflow" / "v2_single" / "model.ckpt")
    with pytest.raises(ValueError, match="string/vec: has the dtype string"):
        await convert(strings, tmp_path / "out" / "ckpt-1")
    variant = str(GOLDEN / "tensorflow" / "extra" / "variant")
    with pytest.raises(ValueError, match="cannot be read; select= leaves them out"):
        await convert(variant, tmp_path / "out" / "m-1", format="tensorflow")
    assert not (tmp_path / "out").exists()


async def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    source = await saved(tmp_path / "a")
    with pytest.raises(ValueError, match="PyTorch's own format is not written"):
        await convert(source, tmp_path / "b" / "x", format="dcp")
    with pytest.raises(ValueError, match="format='zip' is unknown"):
        await convert(source, tmp_path / "b" / "x", format="zip")
    with pytest.raises(ValueError, match="is unknown; format can be one of"):
        await convert(source, tmp_path / "b" / "x", source_format="zip")
    with pytest.raises(ValueError, match="memory_budget"):
        await convert(source, tmp_path / "b" / "x", memory_budget=0)
    with pytest.raises(ValueError, match="prefix"):
        await convert(source, tmp_path / "b" / "what is this?")
    with pytest.raises(ValueError, match="selects none"):
        await convert(source, tmp_path / "b" / "ckpt-1", select="nothing")
    with pytest.raises(FileNotFoundError):
        await convert(tmp_path / "a" / "ckpt-00000099", tmp_path / "b" / "ckpt-1")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("into", TARGETS)
async def test_what_is_there_is_replaced_only_when_asked(into: str, tmp_path: Path) -> None:
    first, second = await saved(tmp_path / "a"), await saved(tmp_path / "c", {"other": np.arange(1000)})
    target = tmp_path / TARGETS[into]
    await convert(first, target, format=into)
    before = files_under(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True replaces it"):
        await convert(second, target, format=into)
    assert files_under(tmp_path) == before
    await convert(second, target, format=into, overwrite=True)
    assert_same(await content_of(str(target)), await content_of(second))
    if into == "tensorflow":
        data = [f"model.ckpt-7.data-0000{file}-of-00002" for file in range(2)]
        assert [*files_under(target.parent)] == [*data, "model.ckpt-7.index"]
    elif into == "huggingface":
        assert len(files_under(target)) == 2
    await convert(first, target, format=into, overwrite=True)
    assert_same(await content_of(str(target)), await content_of(first))


async def test_a_checkpoint_may_replace_itself(tmp_path: Path) -> None:
    source = await saved(tmp_path / "a")
    for into in ("huggingface", "tensorflow"):
        target = tmp_path / into / "x-1"
        await convert(source, target, format=into)
        await convert(target, target, format=into, overwrite=True)
        assert_same(await content_of(str(target)), await content_of(source))
    await convert(source, source, overwrite=True)
    async with Saver(tmp_path / "a") as saver:
        await saver.verify()
        np.testing.assert_array_equal((await saver.restore())["model"]["weight"], STATE["model"]["weight"])


async def test_a_v1_file_gives_way_to_what_replaces_it(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "m"
    target.parent.mkdir()
    shutil.copy(GOLDEN / "tensorflow" / "v1_single" / "model.ckpt-v1", target)
    source = await saved(tmp_path / "a")
    with pytest.raises(FileExistsError):
        await convert(source, target, format="tensorflow")
    await convert(source, target, format="tensorflow", overwrite=True)
    assert [*files_under(target.parent)] == ["m.data-00000-of-00001", "m.index"]


async def test_names_that_dead_attempts_have_left_are_not_used(tmp_path: Path) -> None:
    source = await saved(tmp_path / "a")
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"left")
    (tmp_path / "m.data-00001-of-00002").write_bytes(b"left")
    await convert(source, tmp_path / "m", format="tensorflow")
    assert_same(await content_of(str(tmp_path / "m")), await content_of(source))
    files = files_under(tmp_path, "m.data*")
    assert files["m.data-00000-of-00001"] == files["m.data-00001-of-00002"] == b"left"
    assert [len(files[f"m.data-0000{file}-of-00003"]) > 0 for file in range(3)] == [True, False, False]
