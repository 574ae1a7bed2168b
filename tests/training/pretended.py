"""A GPU that is not there: tensors that say they live on another device and refuse to meet those of the CPU."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("meta")  # a type that needs no hardware


class OnDevice(Tensor):
    """A tensor of the pretended device; its numbers are in `held`, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: Tensor) -> "OnDevice":
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=DEVICE,
        )
        self.held = real
        return self

    @classmethod
    def __torch_dispatch__(cls, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class PretendedDevice(TorchDispatchMode):
    """Inside, tensors made for DEVICE have numbers."""

    waits = 0  # so often the host waited for numbers of the device, of all of its time

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation: on the CPU, its result where a GPU would have it.

    Raises:
        RuntimeError: if tensors of both devices meet; a CPU tensor without axes may go anywhere, as on a GPU.
    """
    if torch.is_inference_mode_enabled() and is_composite(function):  # there it comes in one piece
        with PretendedDevice():
            return function.decompose(*args, **kwargs)
    tensors: list[Tensor] = []
    mapped(tensors.append, (args, kwargs))
    given = [t for t in tensors if isinstance(t, OnDevice)]
    name, on_device = name_of(function), bool(given)
    moves = any(part in name for part in ("_to_copy", "aten.copy_", "lift_fresh"))
    indexes = name.startswith(("aten.index.", "aten.index_put")) and isinstance(args[0], OnDevice)  # torch allows it
    if on_device and len(given) < len(tensors) and not moves and not indexes:
        strangers = [tuple(t.shape) for t in tensors if not isinstance(t, OnDevice) and t.ndim > 0]
        if strangers:
            raise RuntimeError(f"{name} of tensors of both devices: {strangers} of the CPU")
    wanted = kwargs.get("device")
    if wanted is not None:
        on_device = torch.device(wanted) == DEVICE
        kwargs = kwargs | {"device": torch.device("cpu")}
    if name.startswith("aten.copy_"):
        on_device = isinstance(args[0], OnDevice)
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    real_args, real_kwargs = mapped(lambda t: t.held if isinstance(t, OnDevice) else t, (args, kwargs))
    out = function(*real_args, **real_kwargs)
    PretendedDevice.waits += bool(given) and (not on_device or "_local_scalar_dense" in name or "nonzero" in name)
    if not on_device:
        return out
    known = {id(t.held): t for t in given}  # in-place operations return their argument
    return mapped(lambda t: wrap(t, known), out)


@cache
def is_composite(function: Any) -> bool:
    """True if an operation is made of others."""
    return function.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


@cache
def name_of(function: Any) -> str:
    """Of an operation, such as aten.add.Tensor."""
    return str(function)


def mapped(change: Callable[[Tensor], Any], values: Any) -> Any:
    """The same with its tensors changed; as `tree_map`, which takes most of the time of a run."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, tuple | list):
        return type(values)([mapped(change, x) for x in values])
    if isinstance(values, dict):
        return {name: mapped(change, x) for name, x in values.items()}
    return values


def wrap(x: Tensor, known: dict[int, OnDevice]) -> OnDevice:
    """A result as a tensor of the device."""
    return x if isinstance(x, OnDevice) else known[id(x)] if id(x) in known else OnDevice(x)
