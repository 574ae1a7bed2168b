"""What each part of the backend is worth: a table over sequences, each part added to those before.

    python tools/render_sequence.py hall loop runs/hall --frames 1500
    python tools/ablation.py runs/hall DATA/desk_gentle

One deterministic run for each cell of the table: ATE after Sim(3) alignment and error of the last pose after aligning
the first tenth (final drift), both in centimetres, growth of the unit along the path, and seconds.
"""

import argparse
import time
from pathlib import Path

import torch

from slam.build import build
from slam.config import SlamConfig, load_config
from slam.errors import SlamError
from slam.evaluation.report import trajectory_report
from slam.sources import SourceSpec, open_source
from slam.sources.groundtruth import known_truth

BARE = ["backend.adjust=off", "depth.stereo=none", "loops.enabled=false", "final_refine=false"]
PARTS: dict[str, list[str]] = {
    "tracking only": BARE,
    "+ stereo refresh": ["backend.adjust=off", "loops.enabled=false", "final_refine=false"],
    "+ poses": ["backend.adjust=poses", "loops.enabled=false", "final_refine=false"],
    "+ joint refinement": ["loops.enabled=false", "final_refine=false"],
    "+ loops": ["final_refine=false"],
    "+ final refinement": [],
}


def cell(folder: Path, settings: list[str]) -> str:
    """One run in a few words."""
    truth = known_truth(folder)
    if truth is None:
        raise SystemExit(f"{folder} has no ground truth")
    source = open_source(SourceSpec(path=str(folder)))
    slam = build(load_config(SlamConfig, None, settings), source.camera, threads=False)
    start_s = time.perf_counter()
    try:
        slam.run(source)
        report = trajectory_report(slam.store.trajectory(), truth, frames_seen=slam.counts.seen)
    except SlamError as error:
        return f"failed: {error}"
    finally:
        slam.store.close()
    ate = report.ate["sim3"]
    lost = f", {100 * ate.coverage:.0f} %" if ate.coverage < 0.995 else ""
    seconds = time.perf_counter() - start_s
    if report.drift is None:
        return f"{100 * ate.rmse:.1f} ({seconds:.0f} s{lost})"
    drift = report.drift
    return f"{100 * ate.rmse:.1f} / {100 * drift.end_m:.1f} / {drift.scale_growth:.3f} ({seconds:.0f} s{lost})"


def main() -> None:
    """Print a markdown table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="for all of them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| ATE cm / final drift cm / growth (time) | {' | '.join(PARTS)} |\n| --- |{' --- |' * len(PARTS)}")
    for folder in options.folders:
        print(f"| {folder.name} ", end="", flush=True)
        for settings in PARTS.values():
            print(f"| {cell(folder, [*options.set, *settings])} ", end="", flush=True)
        print("|", flush=True)


if __name__ == "__main__":
    main()
