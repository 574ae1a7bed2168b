"""How the loops are compiled: without the GIL, on one core, kept on the disk for the next start; and when they run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numba
import torch
from numba.core.caching import FunctionCache
from torch import Tensor

from slam.errors import warn_once

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
    options: dict[str, Any] = {"nogil": True, "fastmath": set(fastmath), "error_model": "numpy", "forceinline": part}

    def decorated(function: Callable[..., Any]) -> Any:
        loop = numba.njit(**options)(function)
        with suppress(RuntimeError):  # there is no folder for it: of the home, of the package, of NUMBA_CACHE_DIR
            loop._cache = _Kept(function)  # in place of `cache=True`, which ends the program where it fails
            return loop
        _not_kept("no folder for them can be written")
        return loop

    return decorated


class _Kept(FunctionCache):  # type: ignore[misc]
    """Code on the disk, while that can be read and written."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        if self.cache_path.startswith("~"):  # a user without a home: that would be a folder of the working directory
            raise RuntimeError("no home")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The code; None where there is none, or none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever a damaged pickle does
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code, where there is room and permission."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # also of a damaged list of what is there
            _not_kept(error)


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


def _not_kept(why: Exception | str) -> None:
    words = getattr(why, "strerror", None) or str(why)
    warn_once(
        f"compiled loops are not kept for the next start, which then takes longer: {words}; NUMBA_CACHE_DIR names "
        "another folder for them"
    )


def is_compiled(loop: Any) -> bool:
    """True if a loop left its code on the disk when it ran here before."""
    folder = loop.stats.cache_path
    return folder is not None and any(Path(folder).glob(f"*.{loop.py_func.__name__}-*.nbi"))


def runs_as_loop(kind: Tensor, *given: Tensor) -> bool:
    """True where a hot operation is done by its loop: `kind` is float32 on the CPU, and no gradient is asked for."""
    has_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    return has_loops(kind) and kind.dtype == torch.float32 and not has_gradient
