"""v2d-train: train the networks on rendered scenes, RGB-D recordings and video; by torchrun on several devices."""

import argparse
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apps.common import program, stop_on_signals
from apps.videos import add_videos, check_videos, videos_of
from slam.errors import OutputError, UsageError

if TYPE_CHECKING:
    from slam.training.clips import ClipMaker
    from slam.training.trainer import Trainer

SAVING_S = 60.0  # seconds of --stop-after kept for a validation in progress and the files


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    from slam.networks.storage import PROFILES
    from slam.training.trainer import STAGES

    p = argparse.ArgumentParser(prog="v2d-train", description=__doc__)
    p.add_argument("--stage", choices=STAGES, default="motion")
    p.add_argument("--profile", choices=sorted(PROFILES), default="fast")
    p.add_argument("--minutes", type=float, default=60.0, help="length of the stage's schedule")
    p.add_argument("--steps", type=int, metavar="N", help="length in steps instead: the same on a busy machine")
    p.add_argument(
        "--stop-after", type=float, metavar="MINUTES", help="end this call a minute earlier; --resume goes on"
    )
    p.add_argument("--out", type=Path, required=True, help="folder of checkpoint, weights and logs")
    p.add_argument("--clips", type=Path, help="folder of the rendered clips (default: OUT/clips)")
    resume = "go on (default: from OUT); with a finished schedule or another stage, a new one begins from its weights"
    p.add_argument("--resume", nargs="?", const=True, default=None, metavar="FILE", help=resume)
    p.add_argument(
        "--data", type=Path, nargs="*", default=[], help="RGB-D folders in TUM layout, besides rendered scenes"
    )
    p.add_argument("--data-share", type=float, default=0.5, help="share of the clips made of --data")
    p.add_argument("--config", type=Path, help="YAML file of training settings")
    p.add_argument("--device", default="cpu", help="cpu, cuda (torchrun: one GPU each), cuda:1 ..., auto")
    p.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves its choice")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, such as clips=4")
    add_videos(p)
    return p


def run(arguments: argparse.Namespace) -> int:
    """Train one stage, until signals stop it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    with stop_on_signals() as stopped:
        train(arguments, stopped.is_set)
    return 0


def train(arguments: argparse.Namespace, stopped: Callable[[], bool]) -> None:
    """Train one stage."""
    import torch

    from slam.device import chosen_device
    from slam.networks.storage import PROFILES
    from slam.settings import load_config
    from slam.training.card import model_card
    from slam.training.clips import ClipPool, fill
    from slam.training.distributed import check_same, join
    from slam.training.rendered import RenderedClips, RenderedPairs, validation_clips
    from slam.training.trainer import TrainConfig, Trainer
    from slam.training.validation import validate_motion, validate_prior, validate_stereo

    config = load_config(TrainConfig, arguments.config, [f"stage={arguments.stage}", *arguments.set])
    network = PROFILES[arguments.profile]
    check_videos(arguments, config.stage)
    for option in ("minutes", "steps", "stop_after"):
        value = getattr(arguments, option)
        if value is not None and not value > 0:
            raise UsageError(f"--{option.replace('_', '-')} must be positive, got {value}")
    limit_s = 60 * (arguments.stop_after or math.inf)
    end = time.monotonic() + limit_s - min(SAVING_S, 0.3 * limit_s)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to --out {arguments.out}: {error.strerror}") from error
    rank, device = join(chosen_device(arguments.device))
    check_same(f"{config} {network}", device)
    rendered = RenderedClips(network.width, network.height, device)
    render: ClipMaker = rendered
    if config.stage in ("prior", "selfsup"):
        render = RenderedPairs(network.width * network.height, device)
    if arguments.data:
        from slam.training.rgbd import Mixture, RgbdClips, RgbdFolder  # reads image files; rendered scenes need nothing

        folders = [RgbdFolder.read(folder, network.width * network.height) for folder in arguments.data]
        render = Mixture(RgbdClips(folders), render, arguments.data_share)

    def stop() -> bool:
        return stopped() or time.monotonic() > end

    selfsup = None
    if config.stage == "selfsup":
        from slam.training.selfsup_stage import SelfSupervisedStage

        videos = videos_of(arguments, network.width * network.height, stop)
        if stop():
            return
        selfsup = SelfSupervisedStage(videos, config.selfsup, config.augment, network.encoder, device)
    clips = arguments.clips or arguments.out / "clips"
    pool = ClipPool(config.pool, clips if rank == 0 else clips.with_name(f"{clips.name}-{rank}"))
    trainer = Trainer(network, config, pool, render, device, rank, selfsup)
    trainer.add_recordings([str(folder) for folder in arguments.data])
    checkpoint = arguments.out / "checkpoint.pt" if arguments.resume is True else arguments.resume
    if checkpoint is not None:
        trainer.load(Path(checkpoint), math.inf if arguments.steps else arguments.minutes)
    if selfsup is None or config.selfsup.replay_every:
        fill(trainer.pool, config.pool_start, trainer.make_clip, stop)

    def validate(trainer: "Trainer") -> dict[str, float]:
        held_out = validation_clips(arguments.out / "validation", rendered)
        current = trainer.swap_average()
        networks = trainer.networks
        scores: dict[str, float] = {}
        if config.stage in ("motion", "joint"):
            scores |= validate_motion(networks.motion, held_out)
        if config.stage in ("stereo", "joint"):
            scores |= validate_stereo(networks.motion, networks.stereo, held_out)
        if config.stage in ("prior", "selfsup"):
            scores |= validate_prior(networks.motion, networks.prior, held_out)
        if selfsup is not None:
            scores |= selfsup.validate(networks)
        trainer.restore(current)
        (arguments.out / "weights.md").write_text(model_card(trainer, scores))
        return scores

    trainer.fit(arguments.out, arguments.minutes, arguments.steps, validate=validate, stop=stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return program("v2d-train", lambda: run(build_parser().parse_args(argv)), argv is None)


if __name__ == "__main__":
    sys.exit(main())
