"""How the loops are compiled: without the GIL, on one core, kept on the disk for the next start; and when they run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import torch
from torch import Tensor

REASSOCIATED = frozenset({"nsz", "arcp", "contract", "reassoc"})  # sums in any order: vector instructions
FINITE = REASSOCIATED | {"nnan", "ninf"}  # and no NaN or infinity comes in


def compiled(fastmath: frozenset[str] = frozenset(), part: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a loop over numpy arrays.

    Args:
        fastmath: LLVM's liberties with floating point numbers; none: as written.
        part: it is called by other loops, and compiled into each of them. One that stays a function of its own exists
            twice, optimised by itself and with its caller, and which of them runs depends on whether this process
            compiled it or read it from the disk: the same input would not give the same bytes.
    """
    return numba.njit(nogil=True, cache=True, fastmath=set(fastmath), error_model="numpy", forceinline=part)


_loops_wanted = True  # by the whole process


@contextmanager
def tensors_only() -> Iterator[None]:
    """Inside, on all threads, tensors do on the CPU too what loops do there otherwise: what a GPU runs, without one."""
    global _loops_wanted
    before, _loops_wanted = _loops_wanted, False
    try:
        yield
    finally:
        _loops_wanted = before


def has_loops(kind: Tensor) -> bool:
    """True where loops are to be had: for a tensor on the CPU, outside of `tensors_only`."""
    return _loops_wanted and kind.device.type == "cpu"


def is_compiled(loop: Any) -> bool:
    """True if a loop left its code on the disk when it ran here before."""
    return any(Path(loop.stats.cache_path).glob(f"*.{loop.py_func.__name__}-*.nbi"))


def runs_as_loop(kind: Tensor, *given: Tensor) -> bool:
    """True where a hot operation is done by its loop: `kind` is float32 on the CPU, and no gradient is asked for."""
    has_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    return has_loops(kind) and kind.dtype == torch.float32 and not has_gradient
