"""Every checkpoint that another library wrote, opened as a user does: each tensor, in every way that gives it."""

from __future__ import annotations

from typing import Any

import pytest

from .foreign_goldens import GOLDENS, Golden, blank, leaf

ALL = [pytest.param(golden, id=path) for path, golden in GOLDENS.items()]
SOME = [
    GOLDENS[path]
    for path in (
        "tensorflow/v2_sharded/model.ckpt-12",
        "tensorflow/extra/sliced",
        "tensorflow/extra/sliced-v1",
        "tensorflow/derived/big_endian",
        "huggingface/sliced",
        "dcp/mixed",
    )
]


def test_there_are_golden_checkpoints() -> None:
    assert len(GOLDENS) == 17 + 5 + 4


@pytest.mark.parametrize("golden", ALL)
async def test_every_tensor(nearby_root: Any, golden: Golden) -> None:
    await golden.put(nearby_root)
    async with await golden.open(nearby_root) as reader:
        await check_all(reader, golden)


async def check_all(reader: Any, golden: Golden) -> None:
    assert {*reader.tensors} == golden.tensors.keys() | golden.unreadable
    assert {*reader.unreadable} == golden.unreadable
    for name, wanted in golden.tensors.items():
        info = reader.tensors[name]
        assert (info.dtype_name, list(info.shape)) == (wanted["dtype"], wanted["shape"])
        assert str(info) == f"{wanted['dtype']}{wanted['shape']}"
        array = await reader.read(name)
        golden.check(name, array)
        assert array.dtype == info.dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
    # Without a target.
    state = await reader.restore(select=lambda name: name not in golden.unreadable)
    for name in golden.tensors:
        golden.check(name, leaf(state, name))
    for name, value in (golden.values or {}).items():
        assert leaf(state, name) == value
    # In place.
    target = {name: blank(reader, name) for name in golden.tensors}
    restored = await reader.restore(dict(target), select=lambda name: name in golden.tensors)
    for name, array in target.items():
        assert restored[name] is array
        golden.check(name, array)


@pytest.mark.parametrize("golden", ALL)
async def test_verify(memory_root: Any, golden: Golden) -> None:
    await golden.put(memory_root)
    async with await golden.open(memory_root) as reader:
        if golden.unreadable:
            with pytest.raises(ValueError, match=f"in {len(golden.unreadable)} places") as caught:
                await reader.verify()
            assert {*caught.value.tensors} == golden.unreadable  # type: ignore[attr-defined]
            return
        report = await reader.verify()
    assert report.tensors == len(golden.tensors)
    assert report.bytes == sum(file.size for file in reader.source.files)
    # Whatever TensorFlow writes has a checksum, and nothing of the others has.
    unverified = set() if "tensorflow" in golden.path else {*golden.tensors}
    assert {*report.unverified} == unverified


@pytest.mark.server
@pytest.mark.parametrize("golden", [pytest.param(golden, id=str(golden)) for golden in SOME])
@pytest.mark.parametrize("kind", ["s3", "s3-fsspec", "gcs", "azure", "azure-fsspec"])
async def test_from_real_servers(request: pytest.FixtureRequest, kind: str, golden: Golden) -> None:
    root = request.getfixturevalue(f"{kind.removesuffix('-fsspec')}_root")
    await golden.put(root)
    # Options that obstore has nothing for select fsspec.
    other = {
        "s3-fsspec": {"config_kwargs": {"retries": {"mode": "standard"}}},
        "azure-fsspec": {"location_mode": "primary"},
    }.get(kind, {})
    async with await golden.open(type(root)(root.url, {**root.storage_options, **other})) as reader:
        assert ("fsspec" in kind) == (engine_of(reader) in {"S3Store", "AzureStore"})
        await check_all(reader, golden)


def engine_of(reader: Any) -> str:
    return type(reader._root.store._store._store).__name__
