"""How the loops are compiled: without the GIL, on one core, kept on the disk for the next start."""

from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor

REASSOCIATED = frozenset({"nsz", "arcp", "contract", "reassoc"})  # sums in any order: vector instructions
FINITE = REASSOCIATED | {"nnan", "ninf"}  # and no NaN or infinity comes in


def compiled(fastmath: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a loop over numpy arrays.

    Args:
        fastmath: LLVM's liberties with floating point numbers; none: as written.
    """
    return numba.njit(nogil=True, cache=True, fastmath=set(fastmath), error_model="numpy")


def runs_as_loop(kind: Tensor, *given: Tensor) -> bool:
    """True where a hot operation is done by its loop: `kind` is float32 on the CPU, and no gradient is asked for."""
    on_cpu = kind.device.type == "cpu" and kind.dtype == torch.float32
    return on_cpu and not (torch.is_grad_enabled() and any(x.requires_grad for x in given))
