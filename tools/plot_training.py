"""Learning curves of a run of v2d-train: `python tools/plot_training.py RUN --out curve.png`.

Draws the held-out scores of RUN/validation.csv against the samples seen, both axes logarithmic: a power law is
a straight line. Prints for each score the slope of its last two thirds: how many times more samples halve the error.
"""

import argparse
import csv
import itertools
import math
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = {
    "rotation error, degrees": ("rotation_deg_", "pairs"),
    "translation error, share of the motion": ("translation_", "pairs"),
    "end-point error of the flow, pixels at 1/8": ("epe_", "pairs"),
    "depth, mean relative error": ("abs_rel_", "keyframes"),
    "depth of one picture, mean relative error": ("prior_abs_rel", "pictures"),
    "held-out pairs of recordings": ("held_out_", "pictures"),
}
LABELS = {"pairs": "pairs for motion", "keyframes": "keyframes for stereo", "pictures": "pictures for the prior"}
MIN_POINTS = 4  # of a slope


def read(path: Path) -> list[dict[str, str]]:
    """Rows of `name=value` cells; ends the program if there are none."""
    try:
        with path.open(newline="") as stream:
            rows = [dict(cell.split("=", 1) for cell in row) for row in csv.reader(stream) if row]
    except (OSError, ValueError) as error:
        sys.exit(f"plot_training: cannot read {path} ({error}); give the folder of a run that has validated")
    if not rows:
        sys.exit(f"plot_training: {path} is empty; the first validation comes after five minutes")
    for row in rows:  # of rendered scenes and of recordings together
        row["pictures"] = str(int(row.get("pictures", 0)) + int(row.get("video_pictures", 0)))
    return rows


def curves(rows: list[dict[str, str]], prefix: str, samples: str) -> dict[str, np.ndarray]:
    """(n, 2) samples seen and score, for each score of a prefix."""
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(prefix))
    found = {n: np.array([[float(row[samples]), float(row[n])] for row in rows if n in row]) for n in names}
    return {name: points[(points > 0).all(1)] for name, points in found.items()}


def halving(points: np.ndarray) -> float:
    """Factor of samples that halves the score, by least squares on the logarithms of the last two thirds; inf: never.

    NaN with fewer than MIN_POINTS, or if the samples do not grow.
    """
    late = np.log(points[len(points) // 3 :])
    if len(late) < MIN_POINTS or np.ptp(late[:, 0]) == 0:
        return math.nan
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0]
    return 2 ** (-1 / slope) if slope < -1e-3 else math.inf


def main() -> None:
    """Draw and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", type=Path, help="folder of v2d-train")
    p.add_argument("--out", type=Path, default=Path("curve.png"))
    a = p.parse_args()
    rows = read(a.run / "validation.csv")
    figure, axes = plt.subplots(2, 3, figsize=(16, 8), constrained_layout=True)
    for axis, (title, (prefix, samples)) in zip(axes.flat, PANELS.items()):
        for name, points in curves(rows, prefix, samples).items():
            factor = halving(points)
            label = name.removeprefix(prefix) or "one scale a picture"
            axis.loglog(points[:, 0], points[:, 1], ".-", label=label)
            said = "too few points" if math.isnan(factor) else f"halves with {factor:.3g} times the {samples}"
            said = "does not fall" if math.isinf(factor) else said
            print(f"{name:<24} {points[-1, 1]:.4g} after {points[-1, 0]:,.0f} {samples}; {said}")
        axis.set_title(title)
        axis.set_xlabel(LABELS[samples])
        axis.grid(True, which="both", alpha=0.3)
        if axis.lines:
            axis.legend(title="mean flow, pixels at 1/8" if samples == "pairs" else None)
    for before, row in itertools.pairwise(rows):
        if row["stage"] != before["stage"]:  # a new schedule
            for axis, (_, samples) in zip(axes.flat, PANELS.values()):
                if float(before[samples]):
                    axis.axvline(float(before[samples]), color="gray", linestyle=":")
    a.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(a.out, dpi=80)


if __name__ == "__main__":
    main()
