"""How the convolutions of a network run: half precision where it pays, channels last in memory."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slam.errors import UsageError
from slam.networks.int8 import Int8Conv2d, has_fast_int8, uses_int8, with_int8

Precision = Literal["auto", "int8", "float32"]


def has_fast_half(device: torch.device) -> bool:
    """True where bfloat16 convolutions are faster than float32: GPUs since 2020, CPUs with AMX tiles."""
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def half_precision(module: nn.Module, device: torch.device) -> AbstractContextManager:
    """Autocast to bfloat16 where it pays, else a context that changes nothing. Geometry stays outside of it."""
    if has_fast_half(device) and not uses_int8(module) and not vars(module).get("stays_float32", False):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def channels_last(module: nn.Module) -> None:
    """Lay out the weights for channels-last images, on a CPU two to three times faster."""
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def prepare(module: nn.Module, precision: Precision, device: torch.device = torch.device("cpu")) -> None:
    """Make a network run on a device and in a precision from now on, without gradients; eight bits are for the CPU.

    Raises:
        UsageError: if int8 is asked for where the processor or this torch lacks it, or on a GPU.
    """
    if precision == "int8" and device.type != "cpu":
        raise UsageError(f"precision=int8 is for the CPU, the device is {device}; leave it at auto")
    if precision == "int8" and not has_fast_int8():
        raise UsageError("precision=int8 needs an x86 processor with VNNI and torch with oneDNN; leave it at auto")
    if precision != "float32" and device.type == "cpu" and has_fast_int8():
        with_int8(module)
    for part in module.modules():
        vars(part)["stays_float32"] = precision == "float32"
    module.to(device)


def conv_relu(conv: nn.Module, x: Tensor) -> Tensor:
    """relu(conv(x)), without a pass of its own where the layer can."""
    return conv(x, relu=True) if isinstance(conv, Int8Conv2d) else F.relu(conv(x), inplace=True)
