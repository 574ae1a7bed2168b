"""How the loops are compiled: without the GIL, on one core, kept on the disk for the next start."""

from collections.abc import Callable
from typing import Any

import numba

REASSOCIATED = frozenset({"nsz", "arcp", "contract", "reassoc"})  # sums in any order: vector instructions
FINITE = REASSOCIATED | {"nnan", "ninf"}  # and no NaN or infinity comes in


def compiled(fastmath: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a loop over numpy arrays.

    Args:
        fastmath: LLVM's liberties with floating point numbers; none: as written.
    """
    return numba.njit(nogil=True, cache=True, fastmath=set(fastmath), error_model="numpy")
