"""Convolutions in eight-bit integers, on processors that multiply those fast.

Weights are rounded once, per output channel; the input of each layer is scaled by its own range each time, so no
calibration is needed and no input is clipped. Sums are 32-bit integers, everything between the layers stays float32.
A layer's output is off by about half a percent.

Reference: Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference,
CVPR 2018.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from slam.kernels.compile import FINITE, compiled

MIN_INPUTS = 8  # channels and ...
MIN_PRODUCTS = 96  # ... products for each output from which rounding the input is worth its time
LEVELS = 127.0  # of a weight, to both sides of zero


@lru_cache(maxsize=1)
def has_fast_int8() -> bool:
    """True where eight-bit convolutions are faster than float32, and right: x86 with VNNI, and torch with oneDNN."""
    known = all(hasattr(torch.ops.onednn, name) for name in ("qconv_prepack", "qconv_pointwise"))
    has_vnni = any(getattr(torch.cpu, name, bool)() for name in ("_is_vnni_supported", "_is_avx512_vnni_supported"))
    return known and torch.backends.mkldnn.is_available() and has_vnni and _is_exact()


@torch.no_grad()
def _is_exact() -> bool:
    """False where the largest products overflow: without VNNI, pairs of them are summed in 16 bits and cut off."""
    conv = nn.Conv2d(16, 16, 3, bias=False)
    conv.weight.fill_(1.0)
    sums = Int8Conv2d(conv)(torch.ones(1, 16, 8, 8))
    return bool((sums - 16 * 9).abs().max() < 1)


class Int8Conv2d(nn.Module):
    """Stands for a `Conv2d`, float32 in and out; without gradients."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight = conv.weight.detach().float()
        scale = (weight.abs().amax((1, 2, 3)) / LEVELS).clamp_min(1e-12)
        self.weight = (weight / scale[:, None, None, None]).round().to(torch.int8)
        self.scale, self.zero = scale, torch.zeros(len(scale), dtype=torch.int32)
        self.bias = None if conv.bias is None else conv.bias.detach().float()
        self.geometry = [list(side) for side in (conv.stride, conv.padding, conv.dilation)]
        self.groups, self.in_channels = conv.groups, conv.in_channels
        self._packed: dict[torch.Size, Tensor] = {}  # weights as oneDNN wants them, by the shape of the input

    def forward(self, x: Tensor, relu: bool = False) -> Tensor:
        """(N, C, h, w) float32 -> (N, C', h', w') float32, channels last; `relu`: of the result."""
        levels, scale, zero = quantised(x)
        packed = self._packed.get(x.shape)
        if packed is None:
            packed = torch.ops.onednn.qconv_prepack(
                self.weight, self.scale, scale, zero, *self.geometry, self.groups, list(x.shape)
            )
            self._packed[x.shape] = packed
        return torch.ops.onednn.qconv_pointwise(
            *(levels, scale, zero, packed, self.scale, self.zero, self.bias, *self.geometry, self.groups),
            *(1.0, 0, torch.float32, "relu" if relu else "none", [], ""),
        )


def quantised(x: Tensor) -> tuple[Tensor, float, int]:
    """(N, C, h, w) float32 -> the same as uint8, channels last, with the step of a level and the level of zero.

    Zero is a level: 0 where nothing is negative, as after a relu, else the middle.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    levels = torch.empty(x.shape, dtype=torch.uint8, memory_format=torch.channels_last)
    values, rounded = (side.permute(0, 2, 3, 1).numpy().reshape(-1) for side in (x, levels))
    scale, zero = _quantise(values, values.view(np.int32), rounded)
    return levels, scale, zero


@compiled(FINITE)
def _quantise(x: np.ndarray, bits: np.ndarray, levels: np.ndarray) -> tuple[float, int]:
    """`bits` is the memory of x (n,) as int32: its order is that of positive floats, as uint32 that of negative ones
    above all positive ones; the compiler turns only extremes of integers into vector instructions (20 times faster)."""
    ends = np.zeros(2, np.uint32)
    highest, lowest = np.int32(0), np.uint32(0)
    for n in range(len(bits)):
        highest = max(highest, bits[n])
        lowest = max(lowest, np.uint32(bits[n]))
    ends[0], ends[1] = highest, lowest
    high, low = ends.view(np.float32)
    zero = 128 if low < 0 else 0
    step = max(high / np.float32(255 - zero), -low / np.float32(128), np.float32(1e-12))
    per_step, offset = np.float32(1) / step, np.float32(zero) + np.float32(0.5)
    for n in range(len(x)):
        levels[n] = np.uint8(np.int32(x[n] * per_step + offset))
    return float(step), zero


def uses_int8(module: nn.Module) -> bool:
    """True if `with_int8` was applied to it."""
    return bool(vars(module).get("is_int8", False))


def with_int8(module: nn.Module) -> nn.Module:
    """The module, its larger convolutions replaced for good; what is small, or ends in a coordinate, stays float32."""
    vars(module)["is_int8"] = True
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            if _is_worth_it(child):
                setattr(module, name, Int8Conv2d(child))
        else:
            with_int8(child)
    return module


def _is_worth_it(conv: nn.Conv2d) -> bool:
    products = conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]
    return conv.in_channels >= MIN_INPUTS and products >= MIN_PRODUCTS and conv.out_channels >= MIN_INPUTS
