"""Folders of `torch.distributed.checkpoint`: those that PyTorch wrote, and those that are not what they say."""

from __future__ import annotations

import io
import random
import zipfile
from typing import Any

import numpy as np
import pytest

from asyncsaver.errors import CheckpointCorruptError, CheckpointNotFoundError, ManifestError
from asyncsaver.formats.dcp import describe
from asyncsaver.formats.dcp.transposed import Transposed
from asyncsaver.model.dtypes import dtype_from_name
from asyncsaver.model.foreign import Foreign
from asyncsaver.model.leaves import TensorSpec
from asyncsaver.model.materialise import materialise
from asyncsaver.model.parse import ValueNode, parse_tree

from .foreign_folders import GOLDEN, check_tensors, described, expected, files, store_with, tensor
from .pickle_writer import META, Code, called, made, metadata, named, pickled, place, value, write
from .pickle_writer import tensor as entry

FOLDERS = sorted(path.name for path in (GOLDEN / "dcp").iterdir() if path.is_dir())
Array = np.ndarray[Any, np.dtype[Any]]


def test_there_are_golden_checkpoints() -> None:
    assert FOLDERS == ["files", "mixed", "ranks-20", "safetensors"]


def parsed(found: Foreign) -> Any:
    specs = {
        name: TensorSpec(found.dtypes[name] if name in found.dtypes else dtype_from_name(one.dtype), one.shape)
        for name, one in found.tensors.items()
    }
    return parse_tree(found.tree, specs)


@pytest.mark.parametrize("name", FOLDERS)
async def test_every_tensor_is_what_torch_says(memory_root: Any, name: str) -> None:
    wanted = expected(f"dcp/{name}")
    content = {f"runs/{name}/{path}": data for path, data in files(f"dcp/{name}").items()}
    async with store_with(memory_root.url, content) as store:
        found = await described(describe, store, f"runs/{name}")
        await check_tensors(store, found, wanted["tensors"], wanted.get("unreadable", []))
    assert (found.format, found.name, found.step) == ("dcp", name, 20 if name == "ranks-20" else None)
    assert all(file.size == len(content[file.path]) for file in found.files)
    leaves = parsed(found).leaves
    values = {name: leaf.value for name, leaf in leaves.items() if isinstance(leaf, ValueNode)}
    assert wanted.get("values", {}).items() <= values.items()
    assert leaves.keys() - values.keys() == found.tensors.keys()


async def test_the_tree_is_the_state_that_was_saved(memory_root: Any) -> None:
    async with store_with(memory_root.url, files("dcp/mixed")) as store:
        found = await described(describe, store, "")
    state = materialise(parsed(found).root, lambda node: node.tensor)
    assert state["optim"] == {
        "state": {"0": {"step": "optim.state.0.step", "exp_avg": "optim.state.0.exp_avg"}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "name": None, "fused": False}],
    }
    assert state["list"] == ["list.0", 5, "text", "list.3"]
    assert (state["bytes"], state["big"], state["ordered"]) == (b"\x00\xff", 2**60, {"a": 1, "b": [True]})
    assert list(state) == ["model", "optim", "list", "epoch", "big", "nan", "bytes", "ordered", "numbers", "dtypes"]
    assert "lazy conjugate" in found.unreadable["model.conj"]
    assert "torch.float4_e2m1fn_x2" in found.unreadable["model.packed"]
    assert "__builtin__:set" in found.unreadable["numbers.set"]


async def test_no_metadata(memory_root: Any) -> None:
    async with store_with(memory_root.url, {"f/__0_0.distcp": b"x"}) as store:
        for path in ("f", "g", ""):
            with pytest.raises(CheckpointNotFoundError, match=r"has no \.metadata"):
                await described(describe, store, path)


# --- archives as torch.save writes them, and as it does not ------------------------------------------------------


def archive(pickle: bytes, data: bytes | None = None, *, order: bytes = b"little", compress: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as zipped:
        zipped.writestr("archive/data.pkl", pickle)
        zipped.writestr("archive/byteorder", order)
        if data is not None:
            zipped.writestr("archive/data/0", data)
    return buffer.getvalue()


def saved(
    array: Array, storage: str = "FloatStorage", *, offset: int = 0, strides: Any = None, flags: Any = ()
) -> bytes:
    return pickled(rebuilt(array, storage, offset=offset, strides=strides, flags=flags))


def rebuilt(array: Array, storage: str, *, offset: int, strides: Any, flags: Any) -> Code:
    pid = ("storage", named("torch", storage), "0", "cpu", array.size)
    if strides is None:
        strides = tuple(stride // array.itemsize for stride in array.strides)
    args: tuple[Any, ...] = (
        Code(write(pid) + b"Q"),
        offset,
        array.shape,
        strides,
        False,
        called("collections", "OrderedDict"),
        *flags,
    )
    return called("torch._utils", "_rebuild_tensor_v2", *args)


W = np.arange(6, dtype=np.float32).reshape(2, 3)
GOOD = archive(saved(W), W.tobytes())


async def only(memory_root: Any, data: bytes, meta: bytes | None = None) -> tuple[Foreign, Array | None]:
    """A folder with one tensor ``w`` beside a good one, ``good``: what is said of it, and ``w`` itself where it can be read."""
    if meta is None:
        meta = metadata(
            {"w": entry("float32", (2, 3), [((0, 0), (2, 3))]), "good": entry("float32", (2, 3), [((0, 0), (2, 3))])},
            [place("w", (0, 0), "d", 0, len(data)), place("good", (0, 0), "d", len(data), len(GOOD))],
        )
    async with store_with(memory_root.url, {"f/.metadata": meta, "f/d": data + GOOD}) as store:
        found = await described(describe, store, "f")
        if "good" in found.tensors:
            assert (await tensor(store, found, "good")).tolist() == W.tolist()
        return found, await tensor(store, found, "w") if "w" in found.tensors.keys() - found.unreadable.keys() else None


READABLE: dict[str, bytes] = {
    "plain": GOOD,
    "in a larger storage": archive(saved(W, offset=4), b"?" * 16 + W.tobytes() + b"?" * 9),
    "Fortran": archive(saved(W, strides=(1, 2)), W.tobytes("F")),
    "flags that are not set": archive(saved(W, flags=({},)), W.tobytes()),
}


@pytest.mark.parametrize("case", READABLE)
async def test_readable_archives(memory_root: Any, case: str) -> None:
    found, array = await only(memory_root, READABLE[case])
    assert not found.unreadable
    assert array is not None
    assert array.tolist() == W.tolist()


async def test_an_archive_whose_parts_lie_far_apart(memory_root: Any) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("archive/data/0", b"?" * 50_000)
        zipped.writestr("archive/data/1", b"?" * 50_000)
        zipped.writestr("archive/data.pkl", saved(W).replace(b"X\1\0\0\0000", b"X\1\0\0\0002"))
        zipped.writestr("archive/data/2", W.tobytes())
        zipped.writestr("archive/more", b"?" * 50_000)
    found, array = await only(memory_root, buffer.getvalue())
    assert not found.unreadable
    assert array is not None
    assert array.tolist() == W.tolist()


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no archive": (b"x" * 300, "neither torch.save wrote it nor safetensors"),
    "an archive cut off": (GOOD[:-30], "no archive of torch.save|too large"),
    "only its magic": (b"PK\3\4", "no archive of torch.save"),
    "compressed": (archive(saved(W), W.tobytes(), compress=True), "is compressed"),
    "big-endian": (archive(saved(W), W.tobytes(), order=b"big"), "byte order"),
    "no storage": (archive(saved(W)), "its storage 'data/0' is missing"),
    "a short storage": (archive(saved(W), W.tobytes()[:-1]), "the 24 bytes of its chunk at .* end beyond"),
    "beyond its storage": (archive(saved(W, offset=2**40), W.tobytes()), "end beyond their storage"),
    "overlapping rows": (archive(saved(W, strides=(1, 1)), W.tobytes()), "do not stand together"),
    "expanded": (archive(saved(W, strides=(0, 1)), W.tobytes()), "do not stand together"),
    "another dtype": (archive(saved(W, "IntStorage"), W.tobytes()), r"int32\[2, 3\] there, where .metadata says float32"),
    "another shape": (archive(saved(W.T.copy()), W.tobytes()), r"float32\[3, 2\] there"),
    "conjugate": (archive(saved(W, flags=({"conj": True},)), W.tobytes()), "lazy conjugate"),
    "a value": (archive(pickled(5)), "no plain tensor"),
    "os.system": (archive(pickled(called("os", "system", "true"))), "it names 'os:system'"),
    "a parameter": (archive(pickled(called("torch._utils", "_rebuild_parameter", 1))), "_rebuild_parameter"),
    "a storage of another name": (archive(saved(W, "QInt8Storage")), "QInt8Storage"),
    "a large pickle": (archive(pickled("x" * 2_000_000)), "more than the 1048576 that are read|too large"),
    "negative strides": (archive(saved(W, strides=(3, -1)), W.tobytes()), "damaged"),
    "a shape without end": (archive(saved(np.empty((0,) * 30, np.float32), strides=(1,) * 30).replace(b"\x8a\x01\x00" * 30,
                            b"\x8a\x01\x7f" * 30)), "there, where .metadata|impossible shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
async def test_unreadable_tensors_hinder_no_other(memory_root: Any, case: str) -> None:
    data, message = UNREADABLE[case]
    found, _ = await only(memory_root, data)
    assert found.unreadable.keys() == {"w"}
    with pytest.raises(ValueError, match=message):
        raise ValueError(found.unreadable["w"])
    assert len(found.unreadable["w"]) < 500
    assert found.tensors["w"].shape == (2, 3)


# --- values ------------------------------------------------------------------------------------------------------

LAUGHS = Code(b"]\x94(NNNNNNNNNNe" + b"".join(b"0]\x94(" + (b"h" + bytes([n])) * 10 + b"e" for n in range(9)))  # fmt: skip
VALUES: dict[str, tuple[bytes, str]] = {
    "billion laughs": (pickled(LAUGHS), "many times over"),
    "a cycle": (b"\x80\x04]\x94h\x00a.", "contains itself|many times over"),
    "deep": (b"\x80\x04" + b")" + b"\x94\x85" * 5000 + b".", "nested more than"),
    "a record": (pickled(called("_codecs", "encode", "x", "utf-8")), "an object of _codecs:encode"),
    "long bytes": (pickled(called("_codecs", "encode", "x" * 5000, "latin1")), "5000 bytes are too many"),
    "a tensor": (saved(W), "torch._utils:_rebuild_tensor_v2"),
    "os.system": (pickled(called("os", "system", "true")), "it names 'os:system'"),
    "keys of objects": (pickled({called("_codecs", "encode", "x", "latin1"): 1}), "with keys that are neither"),
}


@pytest.mark.parametrize("case", VALUES)
async def test_values_that_are_not_plain(memory_root: Any, case: str) -> None:
    pickle, message = VALUES[case]
    data = archive(pickle)
    meta = metadata({"v": value(), "x": value()}, [place("v", None, "d", 0, len(data))])
    async with store_with(memory_root.url, {"f/.metadata": meta, "f/d": data}) as store:
        found = await described(describe, store, "f")
    assert found.unreadable.keys() == {"v", "x"}
    with pytest.raises(ValueError, match=message):
        raise ValueError(found.unreadable["v"])
    assert "does not say where" in found.unreadable["x"]
    assert found.tree == {"dict": {"v": {"tensor": "v"}, "x": {"tensor": "x"}}}
    assert (found.tensors["v"].dtype, found.dtypes["v"]) == ("object", np.dtype(object))


# --- .metadata ---------------------------------------------------------------------------------------------------

SIZE = len(GOOD)
PLACED = place("w", (0, 0), "d", 0, SIZE)
WHOLE = [((0, 0), (2, 3))]
WRONG: dict[str, tuple[Code, list[tuple[Code, Code]], str]] = {
    "no place": (entry("float32", (2, 3), WHOLE), [], "does not say where its chunk at"),
    "no chunks": (entry("float32", (2, 3), []), [], "no chunks"),
    "a hole": (entry("float32", (3, 3), WHOLE), [PLACED], "hold 6 of its 9"),
    "chunks that overlap": (entry("float32", (2, 3), WHOLE * 2), [PLACED], "hold 12 of its 6"),
    "outside": (entry("float32", (1, 3), WHOLE), [PLACED], "outside"),
    "a missing file": (entry("float32", (2, 3), WHOLE), [place("w", (0, 0), "e", 0, SIZE)], "its file f/e is missing"),
    "a file elsewhere": (entry("float32", (2, 3), WHOLE), [place("w", (0, 0), "../f/d", 0, SIZE)], "does not stay under"),
    "an absolute file": (entry("float32", (2, 3), WHOLE), [place("w", (0, 0), "/etc/passwd", 0, SIZE)], "does not stay under"),
    "beyond the file": (entry("float32", (2, 3), WHOLE), [place("w", (0, 0), "d", 0, 2**40)], "are not within f/d"),
    "within another": (entry("float32", (2, 3), WHOLE), [place("w", (0, 0), "d", SIZE + 3, SIZE - 3)], "is also that of 'good'"),
    "a negative place": (entry("float32", (2, 3), WHOLE), [place("w", (0, 0), "d", -1, SIZE)], "does not say where"),
    "compressed": (entry("float32", (2, 3), WHOLE), [place("w", (0, 0), "d", 0, SIZE, transform_descriptors=["stream.zstd/1"])],
                   r"transformed on its way to storage \(stream.zstd/1\)"),
    "an endless shape": (entry("float32", (2**62, 2**62), [((0, 0), (2**62, 2**62))]), [PLACED], "impossible shape"),
    "a negative shape": (entry("float32", (-2, 3), WHOLE), [PLACED], "its entry in .metadata is damaged"),
    "too many axes": (entry("float32", (1,) * 65, []), [PLACED], "its entry in .metadata is damaged"),
    "a text for a shape": (entry("float32", ("x",), []), [PLACED], "its entry in .metadata is damaged"),
    "a quantized dtype": (entry("qint8", (2, 3), WHOLE), [PLACED], "those of torch.qint8"),
    "no entry": (write(None), [PLACED], "its entry in .metadata is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
async def test_wrong_entries_hinder_no_other(memory_root: Any, case: str) -> None:
    wrong, places, message = WRONG[case]
    good = entry("float32", (2, 3), WHOLE)
    meta = metadata({"w": wrong, "good": good}, [*places, place("good", (0, 0), "d", SIZE, SIZE)])
    found, _ = await only(memory_root, GOOD, meta)
    assert found.unreadable.keys() == {"w"}
    with pytest.raises(ValueError, match=message):
        raise ValueError(found.unreadable["w"])
    assert "w" in found.tensors


REFUSED: dict[str, bytes] = {
    "empty": b"",
    "os.system": pickled(called("os", "system", "true")),
    "os.system in it": metadata({"w": called("os", "system", "true")}, []),
    "another class": pickled(called("torch", "Size", (1,))),
    "a number": pickled(5),
    "no places": pickled(made(META, "Metadata", {"state_dict_metadata": {}})),
    "no tensors": pickled(made(META, "Metadata", {"storage_data": {}})),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_metadata_that_are_refused(memory_root: Any, case: str) -> None:
    with pytest.raises(ManifestError, match=r"^f/\.metadata: "):
        await only(memory_root, GOOD, REFUSED[case])


async def test_a_list_of_chunks_that_all_tensors_share_takes_no_time(memory_root: Any) -> None:
    shared = entry("float32", (1000, 1), [((row, 0), (1, 1)) for row in range(1000)])
    many = Code(b"}(" + write("a") + shared + b"\x94" + b"".join(write(f"n{n}") + b"h\0" for n in range(20_000)) + b"u")
    found, _ = await only(memory_root, GOOD, metadata({}, []).replace(b"}(u", many, 1))
    assert len(found.tensors) == len(found.unreadable) == 20_001
    assert sum("damaged" in reason for reason in found.unreadable.values()) > 19_000


@pytest.mark.parametrize(
    ("planner", "tree"),
    [
        (None, {"dict": {"a.b": 5, "a": 5}}),
        ({"a.b": ("a", 0), "a": ("a", 1)}, {"dict": {"a": {"list": [5, 5]}}}),
        ({"a.b": ("a", 0), "a": ("a", 2**40)}, {"dict": {"a": {"items": [[0, 5], [2**40, 5]]}}}),
        ({"a.b": ("a", 0), "a": ("a", "x")}, {"dict": {"a": {"items": [[0, 5], ["x", 5]]}}}),
        ({"a.b": ("a", "b"), "a": ("a",)}, {"dict": {"a.b": 5, "a": 5}}),
        ({"a.b": ("a", "b"), "a": ("a", "b")}, {"dict": {"a.b": 5, "a": 5}}),
        ({"a.b": ("x",) * 300, "a": ("a",)}, {"dict": {"a.b": 5, "a": 5}}),
        ({"a.b": ("a", None), "a": ("a",)}, {"dict": {"a.b": 5, "a": 5}}),
    ],
)  # fmt: skip
async def test_paths(memory_root: Any, planner: Any, tree: Any) -> None:
    data = archive(pickled(5))
    places = [place("a.b", None, "d", 0, len(data)), place("a", None, "d", len(data), len(data))]
    meta = metadata({"a.b": value(), "a": value()}, places, planner)
    async with store_with(memory_root.url, {".metadata": meta, "d": data * 2}) as store:
        assert (await described(describe, store, "")).tree == tree


async def test_spoiled_folders(memory_root: Any) -> None:
    """Whatever the bytes: a description, or our error; and what is said to be readable can be read."""
    whole = files("dcp/ranks-20") | {f"v/{path}": data for path, data in files("dcp/mixed").items()}
    described_ones = 0
    async with store_with(memory_root.url, whole) as store:
        for seed in range(300):
            choose = random.Random(seed)
            folder = choose.choice(["", "v/"])
            path = folder + choose.choice([".metadata", ".metadata", "__0_0.distcp"])
            data = bytearray(whole[path])
            for _ in range(choose.choice([1, 1, 3, 20])):
                start = choose.randrange(len(data))
                stop = start + choose.choice([0, 1, 1, 4, 30])
                data[start:stop] = choose.choice([choose.randbytes(1), choose.randbytes(stop - start), b"", data[:50]])
            await store.put(path, bytes(data))
            try:
                found = await described(describe, store, folder)
                described_ones += 1
                for name in found.tensors.keys() - found.unreadable.keys():
                    await tensor(store, found, name)
                if found.tree is not None:
                    parsed(found)
            except ManifestError as error:
                assert len(str(error)) < 2000  # noqa: PT017 - most cannot be described
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            finally:
                await store.put(path, whole[path])
    assert 50 < described_ones < 280


def test_transposed_data_of_another_length_are_refused() -> None:
    with pytest.raises(CheckpointCorruptError, match="23 bytes cannot be"):
        Transposed((1, 0)).decode(memoryview(bytes(23)), np.dtype("f4"), (2, 3))


async def test_chunks_whose_axes_lie_in_different_orders(memory_root: Any) -> None:
    whole = np.arange(12, dtype=np.float32).reshape(4, 3)
    first = archive(saved(whole[:2], strides=(1, 2)), whole[:2].tobytes("F"))
    second = archive(saved(whole[2:]), whole[2:].tobytes())
    meta = metadata(
        {"w": entry("float32", (4, 3), [((0, 0), (2, 3)), ((2, 0), (2, 3))])},
        [place("w", (0, 0), "d", 0, len(first)), place("w", (2, 0), "d", len(first), len(second))],
    )
    async with store_with(memory_root.url, {".metadata": meta, "d": first + second}) as store:
        found = await described(describe, store, "")
        assert not found.unreadable
        assert (await tensor(store, found, "w")).tolist() == whole.tolist()
