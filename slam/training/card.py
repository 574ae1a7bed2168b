"""The model card: a page beside a weights file that says where it comes from and how good it is."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import slam
from slam.networks.storage import NetworkConfig
from slam.training.trainer import TrainConfig, Trainer

DATA = (
    "Rendered scenes made by `slam.rendering` while training went on: offices, living rooms, corridors, desks, bare and"
    " cluttered rooms, tag walls, with procedural textures; exact depth and poses. No photograph and no recording."
)
WITH_RECORDINGS = (
    "**Recordings were used: not to be shipped.** {names}; the stage `selfsup` uses neither depth nor true poses that"
    " they may have. Beside them rendered scenes made by `slam.rendering`, with exact depth and poses."
)


def with_recordings(names: Sequence[str]) -> str:
    """What the weights were made of, where recordings belong to it."""
    return WITH_RECORDINGS.format(names=", ".join(f"`{name}`" for name in names))


def commit() -> str:
    """Commit of the source tree, or "unknown" for an installed package."""
    try:
        run = subprocess.run(
            ["git", "-C", str(Path(slam.__file__).parent), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def processor(device: torch.device) -> str:
    """What the training ran on, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    amx = " with AMX" if torch.cpu._is_amx_tile_supported() else ""
    return f"{platform.machine()} CPU{amx}, {torch.get_num_threads()} thread(s)"


def model_card(trainer: Trainer, scores: Mapping[str, float]) -> str:
    """Markdown text for the averaged weights of a trainer."""
    network: NetworkConfig = trainer.network
    config: TrainConfig = trainer.config
    counts = trainer.counts
    parameters = {
        "motion (with the encoder)": sum(p.numel() for p in trainer.networks.motion.parameters()),
        "stereo": sum(p.numel() for p in trainer.networks.stereo.parameters()),
        "prior": sum(p.numel() for p in trainer.networks.prior.parameters()),
    }
    rows = [f"| {name} | {value:.4g} |" for name, value in scores.items()]
    return "\n".join(
        [
            f"# Weights `{network.profile}`",
            "",
            f"Flow-SE3, plane-sweep stereo and single-image prior for images of about {network.width}x{network.height},"
            " half precision on disk; exponential average of the weights."
            f" v2d-slam {slam.__version__}, commit {commit()}.",
            "",
            f"- Parameters: {', '.join(f'{name} {n:,}' for name, n in parameters.items())}",
            f"- Data: {DATA if not trainer.recordings else with_recordings(trainer.recordings)}",
            f"- Samples: {counts.motion_pairs:,} pairs for motion, {counts.stereo_keyframes:,} keyframes for stereo,"
            f" {counts.prior_pictures:,} pictures for the prior, from {trainer.pool.added:,} clips;"
            f" {counts.video_pictures:,} pictures of recordings",
            f"- Time: {counts.seconds / 3600:.2f} device hours on {processor(trainer.device)}; last stage"
            f" `{config.stage}`, {counts.step:,} steps",
            f"- A step: crops of {config.augment.crop_width}x{config.augment.crop_height}, {config.clips} clips of"
            f" {config.views} views, {config.edges} pairs",
            "",
            "Scores on held-out rendered clips, whole images. Motion: true depth, start from rest, three iterations,"
            " medians by size of the true mean flow; flow and epe (end-point error) in pixels at 1/8, translation as a"
            " share of the true one. Stereo: three neighbours, true poses, hypotheses over a factor of 70. Prior: from"
            " one picture, mean relative error of depth. Held out: pairs of frames at the end of the recordings.",
            "",
            "| score | value |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )
