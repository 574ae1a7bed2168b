"""Faults of processes, files and input, each met by the real programs in a folder of its own.

    python tools/faults.py
    python tools/faults.py --only second-ctrl-c

Each fault is a function of `process_faults.py` that makes it and checks exit code, message, what is kept on the disk,
time and memory. A line for each; exit code 1 if what should hold does not. Linux only.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import input_faults  # noqa: F401  its neighbours: they register their faults
import process_faults  # noqa: F401
from fault_scene import FAULTS, Shared, meet

from apps.common import guarded
from slam.errors import UsageError


def run(only: list[str]) -> int:
    """Meet the faults, and print what came of them."""
    unknown = sorted(set(only) - set(FAULTS))
    if unknown:
        raise UsageError(f"no fault {', '.join(unknown)}; --list names them")
    names = only or list(FAULTS)
    failed = []
    with tempfile.TemporaryDirectory(prefix="v2d-faults-") as folder:
        shared = Shared(Path(folder))
        for name in names:
            problem, seconds, peak_mb = meet(name, shared)
            failed += [name] if problem else []
            words = f"FAILED: {problem}" if problem else "ok"
            print(f"{name:32s} {seconds:6.1f} s {peak_mb:6.0f} MB  {words}", flush=True)
    print(f"{len(names) - len(failed)} of {len(names)} faults are met" + f"; not {', '.join(failed)}" * bool(failed))
    return 1 if failed else 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these alone")
    parser.add_argument("--list", action="store_true", help="name the faults, and what each is")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:32s} {(function.__doc__ or '').strip()}" for name, function in FAULTS.items()))
        return 0
    return guarded("faults", lambda: run(options.only))


if __name__ == "__main__":
    sys.exit(main())
