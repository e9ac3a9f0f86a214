"""PyTorch tensors, modules and optimizers in a state."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from asyncsaver.errors import ManifestError, StructureMismatchError, UnsupportedLeafError
from asyncsaver.model.leaves import Adapters

torch = pytest.importorskip("torch")

DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "float16", "bfloat16", "float32", "float64",
    "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e8m0fnu",
]  # fmt: skip


@pytest.fixture
def adapter() -> Any:
    found = Adapters.discover().find(torch.zeros(1))
    assert found is not None
    return found


def module() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def trained() -> tuple[Any, Any]:
    model = module()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_saved_without_a_copy_and_comes_back(dtype: str, adapter: Any, save: Any) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    array = adapter.to_numpy(tensor)
    assert array.ctypes.data == tensor.data_ptr()
    assert adapter.describe(tensor).dtype.name == array.dtype.name == dtype
    target = torch.zeros(2, 3).to(tensor.dtype)
    restored = save({"x": tensor}).restore(target={"x": target})
    assert restored["x"] is target
    assert torch.equal(target.view(torch.uint8), tensor.view(torch.uint8))
    again = adapter.from_numpy(array)
    assert again.dtype == tensor.dtype
    assert again.data_ptr() == tensor.data_ptr()


def test_without_a_target_tensors_are_arrays(save: Any) -> None:
    saved = save({"x": torch.ones(2, dtype=torch.bfloat16)})
    assert saved.flat.tree == {"dict": {"x": {"tensor": "x", "kind": "torch"}}}
    restored = saved.restore()
    assert isinstance(restored["x"], np.ndarray)
    assert restored["x"].dtype.name == "bfloat16"


def test_shapes_and_layouts(save: Any) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "scalar": torch.tensor(5.0), "empty": torch.zeros(0, 3), "transposed": base.t(), "strided": base[:, ::2],
        "expanded": torch.ones(1).expand(3), "conj": torch.tensor([1 + 2j]).conj(),
        "neg": torch.tensor([1 + 2j]).conj().imag, "grad": torch.ones(2, requires_grad=True) * 2,
        "half": base.to(torch.bfloat16).t(), "size": base.shape,
    }  # fmt: skip
    target = {
        key: torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).fill_(0)
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    target["size"] = torch.Size((0, 0))
    restored = save(state).restore(target=target)
    for key, value in target.items():
        if key != "size":
            assert torch.equal(restored[key], state[key].detach().resolve_conj().resolve_neg()), key
            assert restored[key] is value or key == "expanded"
    assert restored["size"] == torch.Size((3, 4))
    assert type(restored["size"]) is torch.Size


def test_a_parameter_is_filled_where_it_is(save: Any) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    pointer = parameter.data_ptr()
    saved = save({"p": torch.nn.Parameter(torch.ones(2, 2))})
    plan = saved.plan(target={"p": parameter})
    assert plan.reads[0].direct
    assert plan.build(saved.read(plan))["p"] is parameter
    assert parameter.data_ptr() == pointer
    assert parameter.requires_grad
    assert parameter.detach().tolist() == [[1, 1], [1, 1]]
    view = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64).t())
    saved.restore(target={"p": view}, dtype="target")
    assert view.detach().tolist() == [[1, 1], [1, 1]]


def test_numpy_and_torch_targets_are_interchangeable(save: Any) -> None:
    target = {"t": torch.zeros(2), "n": np.zeros(2, "f4")}
    save({"t": np.ones(2, "f4"), "n": torch.ones(2)}).restore(target=target)
    assert target["t"].tolist() == target["n"].tolist() == [1, 1]


def _dtensor_like() -> Any:
    class Wrapper(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return NotImplemented

    return torch.Tensor._make_wrapper_subclass(Wrapper, (2,))


def _released() -> Any:
    tensor = torch.zeros(2)
    tensor.untyped_storage().resize_(0)
    return tensor


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # PyTorch's own, on making these
@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: torch.eye(2).to_sparse(), "to_dense"),
        (lambda: torch.eye(2).to_sparse_csr(), "to_dense"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "unbind"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "dequantize"),
        (lambda: torch.zeros(2, device="meta"), "meta device"),
        (lambda: torch.zeros(2, dtype=torch.complex32), "complex64"),
        (lambda: torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), r"view\(torch.uint8\)"),
        (lambda: torch.nn.LazyLinear(2).weight, "lazy"),
        (_dtensor_like, "full_tensor"),
        (_released, "released"),
    ],
)
def test_what_cannot_be_saved_says_what_to_do(make: Any, advice: str, save: Any) -> None:
    with pytest.raises(UnsupportedLeafError, match=f"^m.x: .*{advice}"):
        save({"m": {"x": make()}})
    with pytest.raises(StructureMismatchError, match=advice):
        save({"m": {"x": torch.zeros(2)}}).plan(target={"m": {"x": make()}})


def test_an_inference_tensor_is_filled(save: Any) -> None:
    with torch.inference_mode():
        target = torch.zeros(2)
    save({"x": np.ones(2)}).restore(target={"x": target}, dtype="target")
    assert target.tolist() == [1, 1]


def test_a_trainer_comes_back_whole(save: Any) -> None:
    model, optimizer = trained()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    fresh_model = module()
    fresh_optimizer = torch.optim.AdamW(fresh_model.parameters(), lr=0.5)
    fresh_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(fresh_optimizer, 20)
    saved = save(
        {"model": model, "optimizer": optimizer, "schedule": schedule, "rng": torch.get_rng_state(), "step": 1}
    )
    weight = fresh_model[0].weight
    target = {
        "model": fresh_model, "optimizer": fresh_optimizer, "schedule": fresh_schedule, "rng": torch.get_rng_state(),
        "step": 0,
    }  # fmt: skip
    restored = saved.restore(target=target)
    assert restored["model"] is fresh_model
    assert fresh_model[0].weight is weight
    for key, value in model.state_dict().items():
        assert torch.equal(fresh_model.state_dict()[key], value)
    ours, theirs = fresh_optimizer.state_dict(), optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for index, state in theirs["state"].items():
        for key, value in state.items():
            assert torch.equal(ours["state"][index][key], value)
    assert fresh_schedule.T_max == 10
    assert restored["step"] == 1
    fresh_optimizer.step()


def test_a_module_that_does_not_fit_is_found_before_anything_changes(save: Any) -> None:
    saved = save({"m": module(), "w": torch.ones(1)})
    other = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Identity(), torch.nn.Linear(2, 2))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(StructureMismatchError) as caught:
        saved.plan(target={"m": other, "w": torch.zeros(1)})
    assert caught.value.missing == ("m.2.weight", "m.2.bias")
    assert "m.1.running_mean" in caught.value.unexpected
    assert caught.value.mismatched == ("m.0.weight: shape [2, 3] in the checkpoint, [2, 4] in the target",)
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


def test_a_module_takes_what_fits_when_not_strict(save: Any) -> None:
    source = module()
    other = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Identity(), torch.nn.Linear(2, 2))
    kept = other[2].weight.clone()
    save({"m": source}).restore(target={"m": other}, strict=False)
    assert torch.equal(other[0].weight, source[0].weight)
    assert torch.equal(other[2].weight, kept)


def test_an_optimizer_that_does_not_fit_is_found_before_anything_changes(save: Any) -> None:
    source, optimizer = trained()
    saved = save({"m": source, "opt": optimizer})
    for groups in ([{"params": [torch.zeros(1)]}], [{"params": [p]} for p in module().parameters()]):
        target = {"m": module(), "opt": torch.optim.AdamW(groups)}
        before = {key: value.clone() for key, value in target["m"].state_dict().items()}
        with pytest.raises(StructureMismatchError) as caught:
            saved.restore(target=target)
        own = [len(group["params"]) for group in groups]
        there = len(list(source.parameters()))
        assert caught.value.mismatched == (
            f"opt.param_groups: [{there}] parameters in the checkpoint, {own} in the target",
        )
        assert all(torch.equal(before[key], value) for key, value in target["m"].state_dict().items())
    with pytest.raises(StructureMismatchError, match="loaded from a dict with a list of param_groups"):
        save({"opt": {"state": {}}}).plan(target={"opt": optimizer})


def test_an_optimizer_that_adapts_what_it_loads_may(save: Any) -> None:
    _, optimizer = trained()
    other = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    other.register_load_state_dict_pre_hook(lambda own, _: own.state_dict())
    save({"opt": optimizer}).restore(target={"opt": other})
    assert other.param_groups[0]["lr"] == 0.5


def test_a_kind_that_has_no_such_dtype_is_damage(save: Any) -> None:
    saved = save({"o": torch.nn.Linear(1, 1), "s": np.array(["x"])})
    saved.text = saved.text.replace(b'{"tensor":"o.bias","kind":"torch"}', b'{"tensor":"s","kind":"torch"}')
    saved.text = saved.text.replace(b'"s":{"tensor":"s"}', b'"s":1')

    class Anything:
        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            raise AssertionError(state)

    with pytest.raises(ManifestError, match="PyTorch has no dtype"):
        saved.restore(target={"o": Anything(), "s": 0})


def test_torch_is_not_imported_by_saving_arrays() -> None:
    script = (
        "import sys, numpy\n"
        "from asyncsaver.model.leaves import Adapters\n"
        "from asyncsaver.model.flatten import flatten\n"
        "adapters = Adapters.discover()\n"
        "flatten({'x': numpy.zeros(1)}, adapters)\n"
        "assert 'torch' not in sys.modules\n"
        "import torch\n"
        "print(flatten({'x': torch.zeros(1)}, adapters).tensors[0].kind)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stdout == "torch\n", done.stderr
