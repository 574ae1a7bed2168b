"""A GPU that is not there: tensors that say they live on another device and refuse to meet those of the CPU."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

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
    if torch.is_inference_mode_enabled():  # there, what is made of other operations comes in one piece
        with PretendedDevice():
            out = function.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
    tensors: list[Tensor] = []
    tree_map(lambda x: tensors.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
    strangers = [t for t in tensors if not isinstance(t, OnDevice) and t.ndim > 0]
    name = str(function)
    moves = any(part in name for part in ("_to_copy", "aten.copy_", "lift_fresh"))
    is_given = on_device = any(isinstance(t, OnDevice) for t in tensors)
    indexes = name.startswith(("aten.index.", "aten.index_put")) and isinstance(args[0], OnDevice)  # torch allows it
    if on_device and strangers and not moves and not indexes:
        raise RuntimeError(f"{name} of tensors of both devices: {[tuple(t.shape) for t in strangers]} of the CPU")
    wanted = kwargs.get("device")
    if wanted is not None:
        on_device = torch.device(wanted) == DEVICE
        kwargs = kwargs | {"device": torch.device("cpu")}
    if name.startswith("aten.copy_"):
        on_device = isinstance(args[0], OnDevice)
    if kwargs.get("pin_memory"):
        kwargs = kwargs | {"pin_memory": False}
    real_args, real_kwargs = tree_map(lambda x: x.held if isinstance(x, OnDevice) else x, (args, kwargs))
    out = function(*real_args, **real_kwargs)
    PretendedDevice.waits += is_given and (not on_device or "_local_scalar_dense" in name or "nonzero" in name)
    known = {id(t.held): t for t in tensors if isinstance(t, OnDevice)}  # in-place operations return their argument
    return tree_map(lambda x: wrap(x, known) if on_device else x, out)


def wrap(x: Any, known: dict[int, OnDevice]) -> Any:
    """A result as a tensor of the device."""
    if not isinstance(x, Tensor) or isinstance(x, OnDevice):
        return x
    return known[id(x)] if id(x) in known else OnDevice(x)
