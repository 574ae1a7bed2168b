"""What each part of the backend is worth: a table over sequences, each part added to those before.

    python tools/render_sequence.py hall loop runs/hall --frames 1500
    python tools/ablation.py runs/hall DATA/desk_gentle

One run on one thread for each cell of the table: ATE after Sim(3) alignment and error of the last pose after aligning
the first tenth (final drift), both in centimetres, scale drift along the path, and seconds.
"""

import argparse
from pathlib import Path

from slam.errors import EvaluationError
from slam.experiment import scores
from slam.processes import in_new_process

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
    try:
        result = in_new_process(scores, folder, settings)
    except EvaluationError as error:
        return f"failed: {error}"
    lost = f", {100 * result.coverage:.0f} %" if result.coverage < 0.995 else ""
    words = f"{100 * result.ate:.1f}"
    if result.end_drift is not None:
        words += f" / {100 * result.end_drift:.1f} / {result.scale_drift:.3f}"
    return f"{words} ({result.seconds:.0f} s{lost})"


def main() -> None:
    """Print a markdown table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="for all of them")
    options = parser.parse_args()
    print(f"| ATE cm / final drift cm / scale drift (time) | {' | '.join(PARTS)} |\n| --- |{' --- |' * len(PARTS)}")
    for folder in options.folders:
        print(f"| {folder.name} ", end="", flush=True)
        for settings in PARTS.values():
            print(f"| {cell(folder, [*options.set, *settings])} ", end="", flush=True)
        print("|", flush=True)


if __name__ == "__main__":
    main()
