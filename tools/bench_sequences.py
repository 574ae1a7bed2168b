"""Accuracy, coverage, depth and speed of whole runs on recordings with ground truth, as a table.

    python tools/bench_sequences.py DATA/desk_gentle DATA/tag_corner --runs 3 --set correspondence.tracking=dis

Each run is a process of its own (`v2d-slam`, threaded), and one more is `--deterministic`. Columns: median (worst) of
the threaded runs, then the deterministic one. ATE is Sim(3)-aligned; AbsRel is of confident pixels, median-scaled.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from apps.evaluate import main as evaluate
from slam.io.run import Run


def one_run(folder: Path, out: Path, extra: list[str]) -> dict[str, Any]:
    """Run, evaluate, and collect the numbers."""
    command = [sys.executable, "-m", "apps.run", "--quiet", "--sequence", str(folder), "--out", str(out), *extra]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{folder}: v2d-slam ended with {os.waitstatus_to_exitcode(status)}")
    depth = ["--depth", str(folder / "depth"), "--max-difference", "0.06"] if (folder / "depth").is_dir() else []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate([str(out), "--groundtruth", str(folder), "--no-plots", *depth])
    metrics, record = json.loads((out / "metrics.json").read_text()), Run(out).record()
    return {**metrics["evaluation"], "fps": record.fps, "keyframes": record.keyframes, "mb": usage.ru_maxrss / 1024}


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=3, help="threaded runs of each")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V")
    options = parser.parse_args()
    settings = [word for setting in options.set for word in ("--set", setting)]
    print(f"settings: {' '.join(options.set) or 'default'}")
    print("| recording | ATE m, threaded | deterministic | coverage | AbsRel | confident | frames/s | memory MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for folder in options.folders:
        with tempfile.TemporaryDirectory() as work:
            runs = [one_run(folder, Path(work) / f"{n}", settings) for n in range(options.runs)]
            inline = one_run(folder, Path(work) / "inline", [*settings, "--deterministic"])
        ate = [r["ate_m"]["sim3"]["rmse"] for r in runs]
        depth = [r["depth"] for r in runs if "depth" in r]
        words = [f"{median(d[key] for d in depth):.3f}" if depth else "" for key in ("abs_rel", "confident_share")]
        print(
            f"| {folder.name} | {median(ate):.4f} ({max(ate):.4f}) | {inline['ate_m']['sim3']['rmse']:.4f} "
            f"| {100 * min(r['ate_m']['sim3']['coverage'] for r in [*runs, inline]):.1f} % | {words[0]} | {words[1]} "
            f"| {median(r['fps'] for r in runs):.1f} | {max(r['mb'] for r in runs):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
