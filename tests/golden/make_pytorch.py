"""Write the golden checkpoints of PyTorch and Hugging Face: ``python tests/golden/make_pytorch.py tests/golden``.

Needs torch 2.13 and safetensors, and not asyncsaver. Run once, and never again for what is there: see README.md. Each checkpoint has
a ``<name>.expected.json`` beside it, with what torch or safetensors itself holds: dtype, shape and bytes of every tensor.
"""

from __future__ import annotations

import base64
import collections
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch.distributed.checkpoint.filesystem import SerializationFormat
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

RANKS = 2


def described(tensor: torch.Tensor) -> dict[str, Any]:
    """A tensor as JSON: dtype, shape, and the bytes of its elements, little-endian in C order."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    name = str(tensor.dtype).removeprefix("torch.")
    return {"dtype": name, "shape": list(tensor.shape), "data": base64.b64encode(data).decode()}


def expect(folder: Path, tensors: dict[str, torch.Tensor], **more: Any) -> None:
    """Write down what is in a checkpoint."""
    found = {name: described(tensor) for name, tensor in tensors.items()}
    text = json.dumps({"torch": torch.__version__, **more, "tensors": found}, indent=1)
    folder.with_name(f"{folder.name}.expected.json").write_text(text + "\n")


def flat(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a state by the names that torch gives them."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {n: t for key, item in items for n, t in flat(item, f"{name}.{key}" if name else str(key)).items()}


def every_dtype() -> dict[str, torch.Tensor]:
    """A few elements of each dtype that can be saved."""
    names = (
        "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128 "
        "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
    ).split()
    return {name: torch.arange(1, 7).reshape(2, 3).to(getattr(torch, name)) for name in names}


def state() -> dict[str, Any]:
    """What a trainer saves: tensors of all kinds, and values beside them."""
    grid = torch.arange(24.0).reshape(2, 3, 4)
    return {
        "model": {
            "weight": grid[0].clone(),
            "transposed": torch.arange(12.0).reshape(3, 4).t(),
            "channels_last": torch.arange(48.0).reshape(2, 3, 4, 2).to(memory_format=torch.channels_last),
            "view": grid[:, 1:, ::2],
            "expanded": torch.tensor([[1.5], [2.5]]).expand(2, 3),
            "scalar": torch.tensor(7),
            "empty": torch.zeros(0, 3),
            "conj": torch.tensor([1 + 2j, 3 - 4j]).conj(),
            "packed": torch.zeros(2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        },
        "optim": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.full((2, 2), 0.5)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "name": None, "fused": False}],
        },
        "list": [torch.ones(2), 5, "text", torch.zeros(1, dtype=torch.int32)],
        "epoch": 3,
        "big": 2**60,
        "nan": float("nan"),
        "bytes": b"\x00\xff",
        "ordered": collections.OrderedDict(a=1, b=[True]),
        "numbers": {"set": {1, 2}},
        "dtypes": every_dtype(),
    }


VALUES = {
    "list.1": 5, "list.2": "text", "epoch": 3, "big": 2**60, "ordered.a": 1,
    "optim.param_groups.0.lr": 1e-3, "optim.param_groups.0.name": None,
}  # fmt: skip


def sharded() -> dict[str, DTensor]:
    """Slices over two ranks: even, uneven, along the second axis, and one that all ranks have."""
    mesh = dist.device_mesh.init_device_mesh("cpu", (RANKS,))
    return {
        "even": distribute_tensor(torch.arange(12.0).reshape(4, 3), mesh, [Shard(0)]),
        "uneven": distribute_tensor(torch.arange(15, dtype=torch.int64).reshape(5, 3), mesh, [Shard(0)]),
        "columns": distribute_tensor(torch.arange(12.0).reshape(3, 4).to(torch.bfloat16), mesh, [Shard(1)]),
        "one row": distribute_tensor(torch.arange(3.0).reshape(1, 3), mesh, [Shard(0)]),
        "replicated": distribute_tensor(torch.arange(4.0), mesh, [Replicate()]),
    }


def rank_main(rank: int, folder: Path) -> None:
    """What each of two ranks does."""
    warnings.simplefilter("ignore")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29533")
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    tensors = sharded()
    whole = {name: tensor.full_tensor() for name, tensor in tensors.items()}
    dcp.save({**tensors, "rank": 0}, storage_writer=dcp.FileSystemWriter(folder / "dcp" / "ranks-20"))
    parts = {name: tensor for name, tensor in tensors.items() if name != "one row"}
    writer = dcp.HuggingFaceStorageWriter(str(folder / "huggingface" / "sliced"), save_distributed=True)
    dcp.save(parts, storage_writer=writer)
    consolidated = folder / "huggingface" / "consolidated"
    writer = dcp.HuggingFaceStorageWriter(str(consolidated), save_distributed=True, enable_consolidation=True)
    floating = {name: part for name, part in parts.items() if part.is_floating_point()}  # it fails for others
    dcp.save(floating, storage_writer=writer)
    dist.barrier()
    if rank == 0:
        expect(folder / "dcp" / "ranks-20", whole)
        expect(folder / "huggingface" / "sliced", {name: whole[name] for name in parts})
        expect(consolidated, {name: whole[name] for name in floating})
    dist.destroy_process_group()


def make(folder: Path) -> None:
    """Write all of them."""
    mixed = state()
    dcp.save(mixed, storage_writer=dcp.FileSystemWriter(folder / "dcp" / "mixed"), no_dist=True)
    expect(folder / "dcp" / "mixed", flat(mixed), values=VALUES, unreadable=["model.conj", "model.packed", "numbers.set"])
    small = {"a": torch.arange(6.0).reshape(2, 3), "b": {"c": torch.ones(2, dtype=torch.float16)}, "step": 9}
    files = dcp.FileSystemWriter(folder / "dcp" / "files", single_file_per_rank=False)
    dcp.save(small, storage_writer=files, no_dist=True)
    expect(folder / "dcp" / "files", flat(small), values={"step": 9})
    tensors = dcp.FileSystemWriter(folder / "dcp" / "safetensors", serialization_format=SerializationFormat.SAFETENSORS)
    dcp.save(small, storage_writer=tensors, no_dist=True)
    expect(folder / "dcp" / "safetensors", flat(small), values={"step": 9})
    (folder / "huggingface" / "single").mkdir(parents=True)
    dtypes = {name: tensor for name, tensor in every_dtype().items() if name != "complex128"}
    save_file(dtypes, folder / "huggingface" / "single" / "model.safetensors", metadata={"format": "pt"})
    expect(folder / "huggingface" / "single", dtypes)
    (folder / "huggingface" / "diffusion").mkdir()
    save_file({"w": torch.ones(3)}, folder / "huggingface" / "diffusion" / "diffusion_pytorch_model.safetensors")
    expect(folder / "huggingface" / "diffusion", {"w": torch.ones(3)})
    numbers = {"a": 1, "b.c": 2}
    indexed = dcp.HuggingFaceStorageWriter(str(folder / "huggingface" / "indexed-5"), fqn_to_index_mapping=numbers)
    dcp.save({"a": small["a"], "b": small["b"]}, storage_writer=indexed, no_dist=True)
    expect(folder / "huggingface" / "indexed-5", flat({"a": small["a"], "b": small["b"]}))
    mp.spawn(rank_main, (folder,), nprocs=RANKS)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    make(Path(sys.argv[1]).absolute())
