"""What a process is given and cannot work with, said in one line before a library fails of it."""

import os
import re

from slam.errors import UsageError

COUNTS = {  # as OpenMP reads them, for nested loops several; as numba does
    r"\s*[1-9]\d{0,3}\s*(,\s*[1-9]\d{0,3}\s*)*": ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    r"\s*[1-9]\d{0,3}\s*": ("NUMBA_NUM_THREADS",),
    r"\s*[01]\s*": ("NUMBA_DISABLE_JIT",),
}
NEEDED_MB = 2048  # of addresses: libraries, threads and a small map take 1600
WITHOUT_MEMORY = re.compile(
    r"allocate memory|not enough memory|out of memory|insufficient memory|bad_alloc|failed to map segment"
    r"|can't start new thread",
    re.IGNORECASE,
)


def check_environment() -> None:
    """Refuse an environment in which no run comes to its end.

    Raises:
        UsageError: naming what is wrong with it, and what to do.
    """
    for pattern, names in COUNTS.items():
        for name in names:
            value = os.environ.get(name, "")
            if not value.strip():
                os.environ.pop(name, None)  # libraries complain of an empty word
            elif re.fullmatch(pattern, value) is None:
                meant = "0 or 1" if name == "NUMBA_DISABLE_JIT" else "a number of threads, from 1 on"
                raise UsageError(f"the environment says {name}={value}: it must be {meant}; unset it, or set it right")
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("the working directory was removed: change to another") from error
    limit_mb = address_limit_mb()
    if limit_mb is not None and limit_mb < NEEDED_MB:
        raise UsageError(
            f"this process may use {limit_mb} MB of addresses, and needs {NEEDED_MB} at least; ulimit -v unlimited "
            "lifts that"
        )


def address_limit_mb() -> int | None:
    """What `ulimit -v` says; None without a limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit >> 20


def lacks_memory(error: BaseException) -> bool:
    """True of what a library raises where it gets no memory, or no thread."""
    return isinstance(error, MemoryError) or WITHOUT_MEMORY.search(str(error)) is not None
