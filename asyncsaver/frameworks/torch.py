"""PyTorch tensors as leaves, and what is known about modules before they load a state."""

# pyright: reportAttributeAccessIssue=false
# (torch is optional: without it pyright has only a few stubs to go by)

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch

from asyncsaver.errors import UnsupportedLeafError
from asyncsaver.model.dtypes import Array, DType, dtype_from_name
from asyncsaver.model.leaves import Differences, LeafAdapter, TensorSpec, has_repeated_memory

# Dtypes that NumPy has no own type for pass through integers of the same width.
_CARRIERS = MappingProxyType({1: torch.uint8, 2: torch.int16})

_NAMES = (
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
    "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu",
)  # fmt: skip


class TorchAdapter:
    """Dense tensors on any device, parameters included."""

    kind = "torch"

    def __init__(self) -> None:
        # Older releases lack some.
        known: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _NAMES if hasattr(torch, name)}
        self._torch_dtypes: Mapping[str, torch.dtype] = MappingProxyType(known)
        self._dtypes: Mapping[torch.dtype, DType] = MappingProxyType(
            {dtype: dtype_from_name(name) for name, dtype in known.items()}
        )

    def matches(self, value: object) -> bool:
        """See `LeafAdapter`."""
        return isinstance(value, torch.Tensor)

    def describe(self, value: torch.Tensor) -> TensorSpec:
        """See `LeafAdapter`."""
        dtype = self._dtypes.get(value.dtype)
        problem = _problem(value)
        if problem is None and dtype is None:
            problem = f"{value.dtype} has no equal in NumPy: {_dtype_advice(value.dtype)}"
        if problem is not None or dtype is None:
            raise UnsupportedLeafError(f"a tensor that cannot be saved: {problem}")
        return TensorSpec(dtype, tuple(value.shape))

    def to_numpy(self, value: torch.Tensor) -> Array:
        """See `LeafAdapter`. Copies what is on another device, or conjugated or negated lazily."""
        return self._as_numpy(value.detach().cpu().resolve_conj().resolve_neg())

    def is_immutable(self, value: torch.Tensor) -> bool:
        """Never: any tensor can be changed in place."""
        del value
        return False

    def writable_view(self, target: torch.Tensor) -> Array | None:
        """See `LeafAdapter`. Tensors on the CPU have one, unless their elements share memory."""
        if target.device.type != "cpu" or target.is_conj() or target.is_neg():
            return None
        if has_repeated_memory(target.shape, target.stride()):
            return None
        return self._as_numpy(target.detach())

    def from_numpy(self, array: Array, like: torch.Tensor | None = None) -> torch.Tensor:
        """See `LeafAdapter`."""
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        dtype = self._torch_dtypes.get(native.dtype.name)
        if dtype is None:
            raise UnsupportedLeafError(f"PyTorch has no dtype {array.dtype}")
        if not native.flags.writeable or any(stride < 0 for stride in native.strides):
            native = native.copy()  # PyTorch has neither read-only tensors nor negative strides
        if self._is_carried(dtype):
            tensor = torch.from_numpy(native.view(f"i{native.itemsize}" if native.itemsize > 1 else "u1")).view(dtype)
        else:
            tensor = torch.from_numpy(native)
        return tensor if like is None else tensor.to(like.device)

    def fill(self, target: torch.Tensor, array: Array) -> torch.Tensor:
        """See `LeafAdapter`. Parameters are filled as under `torch.no_grad`."""
        view = self.writable_view(target)
        if view is not None:
            np.copyto(view, array)
            return target
        if has_repeated_memory(target.shape, target.stride()):
            return self.from_numpy(array, target)
        with torch.no_grad():
            target.copy_(self.from_numpy(array))
        return target

    def is_fillable(self, target: torch.Tensor) -> bool:
        """See `LeafAdapter`. On any device, unless their elements share memory."""
        return not has_repeated_memory(target.shape, target.stride())

    def check_object(self, obj: object, state: object) -> Differences | None:
        """Compare the keys and shapes of a `torch.nn.Module`, the groups of a `torch.optim.Optimizer`, with a saved state."""
        if isinstance(obj, torch.optim.Optimizer):
            return _check_optimizer(obj, state)
        if not isinstance(obj, torch.nn.Module):
            return None
        if not isinstance(state, dict):
            return Differences(mismatched=("state: a module is loaded from a dict of tensors",))
        own = obj.state_dict()
        common = [key for key in own if key in state]
        lines = (_shape_line(key, own[key], state[key]) for key in common)
        return Differences(
            missing=tuple(key for key in own if key not in state),
            unexpected=tuple(str(key) for key in state if key not in own),
            mismatched=tuple(line for line in lines if line is not None),
        )

    def _as_numpy(self, tensor: torch.Tensor) -> Array:
        if self._is_carried(tensor.dtype):
            carried: Array = tensor.view(_CARRIERS[tensor.itemsize]).numpy()
            return carried.view(self._dtypes[tensor.dtype])
        array: Array = tensor.numpy()
        return array

    def _is_carried(self, dtype: torch.dtype) -> bool:
        return dtype == torch.bfloat16 or str(dtype).startswith("torch.float8")


def _problem(value: torch.Tensor) -> str | None:
    """Why the data of a tensor is not an ordinary dense array; None when it is."""
    if value.is_nested:
        return "it is nested: save it as a list, with .unbind()"
    if value.layout is not torch.strided:
        return "it is sparse: save its .indices() and .values(), or .to_dense()"
    if value.is_quantized:
        return "it is quantized: save .int_repr() and its scale and zero point, or .dequantize()"
    if value.device.type == "meta":
        return "it is on the meta device and has no data: materialize it first, with .to_empty()"
    if torch.nn.parameter.is_lazy(value):
        return "it is a lazy parameter without data: run the module once first"
    # A subclass that takes over dispatch may hold its data anywhere: DTensor only holds a slice of it.
    plain_dispatch = getattr(torch.Tensor, "__torch_dispatch__", None)
    if getattr(type(value), "__torch_dispatch__", None) is not plain_dispatch:
        return f"{type(value).__name__} is not a plain tensor: save a plain one (of a DTensor, .full_tensor())"
    if value.numel() > 0 and value.untyped_storage().nbytes() == 0:
        return "its memory was released (by FSDP, for instance): gather it first"
    return None


def _check_optimizer(optimizer: torch.optim.Optimizer, state: object) -> Differences | None:
    """What `torch.optim.Optimizer.load_state_dict` refuses; None where an override or a hook may see it differently."""
    own_method = type(optimizer).load_state_dict is torch.optim.Optimizer.load_state_dict
    if not own_method or getattr(optimizer, "_optimizer_load_state_dict_pre_hooks", None):
        return None
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(groups, list | tuple) or not all(
        isinstance(group, dict) and isinstance(group.get("params"), list | tuple) for group in groups
    ):
        return Differences(mismatched=("state: an optimizer is loaded from a dict with a list of param_groups",))
    saved, own = [len(group["params"]) for group in groups], [len(group["params"]) for group in optimizer.param_groups]
    if saved == own:
        return None
    return Differences(mismatched=(f"param_groups: {saved} parameters in the checkpoint, {own} in the target",))


def _dtype_advice(dtype: torch.dtype) -> str:
    if dtype == torch.complex32:
        return "convert it to torch.complex64"
    return "save .view(torch.uint8), and view it back after restoring"


def _shape_line(key: str, own: object, saved: object) -> str | None:
    if not isinstance(own, torch.Tensor) or torch.nn.parameter.is_lazy(own):
        return None
    if not isinstance(saved, TensorSpec):
        return f"{key}: a value of type {type(saved).__name__} in the checkpoint, a tensor in the target"
    if saved.shape != tuple(own.shape):
        return f"{key}: shape {list(saved.shape)} in the checkpoint, {list(own.shape)} in the target"
    return None


adapter: LeafAdapter = TorchAdapter()
"""Found through the entry-point group ``asyncsaver.leaves``."""
