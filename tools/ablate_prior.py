"""What each part of the self-supervised stage is worth: a table over recordings with depth and truth.

    python tools/ablate_prior.py DATA/desk_gentle DATA/redwood_living --weights FILE --steps 240 --out runs/ablation

The system tracks the first part (`--part 0.6`) of each recording, without its depth. Each variant then adapts the same
weights to all of them together in the same number of steps, and is scored on the frames that come after: AbsRel with
one scale a picture, and with one scale a video. `--only` takes some of the variants.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from bench_prior import PIXELS, pictures_of, predicted, scores

from slam.networks.storage import load_networks
from slam.processes import own_program
from slam.sources import SourceSpec, open_source
from slam.training.clips import Clip
from slam.training.rgbd import RgbdFolder

ROOT = Path(__file__).parents[1]
NO_MASKS = ["selfsup.auto_mask=false", "selfsup.inconsistency_mask=false"]
NO_MAP = ["selfsup.distillation=0"]
NO_PAIRS = ["selfsup.photometric=0", "selfsup.geometry=0", "selfsup.smoothness=0"]
VARIANTS: dict[str, list[str]] = {
    "rendered only": ["selfsup.replay_every=1"],
    "+ L_P": [*NO_MAP, *NO_MASKS, "selfsup.geometry=0"],
    "+ M_a": [*NO_MAP, "selfsup.inconsistency_mask=false", "selfsup.geometry=0"],
    "+ M_s": [*NO_MAP, "selfsup.geometry=0"],
    "+ L_G": NO_MAP,
    "+ distillation": [],
    "distillation alone": NO_PAIRS,
}


def run(program: str, *arguments: object) -> None:
    """One of the programs; ends this one if it fails."""
    command = own_program(f"apps.{program}", *arguments)
    if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"ablate_prior: {' '.join(command)} failed")


def tracked(folder: Path, part: float, out: Path) -> Path:
    """The run directory of the first part of a recording; made where it is missing."""
    path = out / f"run_{folder.name}"
    if not (path / "run.json").is_file():
        count = open_source(SourceSpec(str(folder), with_depth=False)).count or 0
        given = ["--sequence", folder.absolute(), "--use-depth", "off", "--max-frames", round(part * count)]
        run("run", *given, "--deterministic", "--quiet", "--out", path)
    return path


def adapted(name: str, runs: Sequence[Path], options: argparse.Namespace) -> Path:
    """The weights of a variant."""
    out = options.out / name.replace(" ", "_").replace("+_", "with_")
    given = ["--config", options.config, "--steps", options.steps, "--clips", options.out / "clips", "--threads", 1]
    settings = [f"--set={s}" for s in (*options.set, *VARIANTS[name])]
    begin = ["--resume", options.weights, "--out", out]
    run("train", "--stage", "selfsup", "--run", *runs, *begin, *given, *settings)
    return out / "weights.safetensors"


@torch.inference_mode()
def row(weights: Path | str, clips: dict[str, Clip]) -> dict[str, dict[str, float]]:
    """AbsRel of weights on each recording."""
    networks = load_networks(weights)
    return {name: scores(predicted(networks, clip), clip.inv_depth) for name, clip in clips.items()}


def main() -> None:
    """Print a markdown table, row by row."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folders", type=Path, nargs="+", help="RGB-D recordings in TUM layout with ground truth")
    p.add_argument("--weights", default="fast", help="profile or file to begin with")
    p.add_argument("--part", type=float, default=0.6, help="share of each that is learned from")
    p.add_argument("--steps", type=int, default=240, help="of training, each variant")
    p.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    p.add_argument("--config", type=Path, default=ROOT / "configs" / "train_selfsup.yaml")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for all of them")
    p.add_argument("--out", type=Path, required=True, help="folder of runs and weights")
    options = p.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.out = options.out.absolute()
    runs = [tracked(folder, options.part, options.out) for folder in options.folders]
    clips = {f.name: pictures_of(RgbdFolder.read(f, PIXELS), (options.part, 1.0)) for f in options.folders}
    print(
        f"| AbsRel: one scale a picture / a video | {' | '.join(clips)} |\n| --- |{' --- |' * len(clips)}", flush=True
    )
    results = {}
    for name in ("before", *options.only):
        weights = options.weights if name == "before" else adapted(name, runs, options)
        results[name] = row(weights, clips)
        cells = [f"{found['picture']:.3f} / {found['video']:.3f}" for found in results[name].values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    (options.out / "ablation.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
