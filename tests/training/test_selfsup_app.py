"""v2d-train --stage selfsup as a program."""

import csv
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from apps import train
from slam.frames import Trajectory
from slam.geometry import se3
from slam.geometry.camera import Camera
from slam.io.run import Run, write_keyframes, write_record, write_trajectories
from slam.io.run_directory import RunDirectory
from slam.io.run_record import RunRecord, SourceRecord
from slam.networks.storage import load_networks
from slam.training import rendered
from slam.training.video import Video

SMALL = ["clips=1", "views=2", "pool_start=1", "selfsup.targets=1", "augment.crop_height=48", "augment.crop_width=64"]


@pytest.fixture
def short_clips(monkeypatch) -> None:
    """Two views instead of six, and one clip for validation."""
    monkeypatch.setattr(rendered, "RenderedClips", partial(rendered.RenderedClips, views=2))
    monkeypatch.setattr("slam.training.rendered.VALIDATION_CLIPS", 1)


def call(monkeypatch, out: Path, *arguments: str) -> int:
    options = ["--out", str(out), "--threads", "1", *[f"--set={s}" for s in SMALL]]
    monkeypatch.setattr(sys, "argv", ["v2d-train", "--stage", "selfsup", *options, *arguments])
    return train.main()


def written(folder: Path, images: list[np.ndarray]) -> Path:
    """A recording in TUM layout, ten frames a second, of a camera with the intrinsics of the wall's."""
    (folder / "rgb").mkdir(parents=True)
    lines = []
    for n, image in enumerate(images):
        assert cv2.imwrite(str(folder / "rgb" / f"{n:02d}.png"), image[..., ::-1])
        lines.append(f"{n / 10:.9f} rgb/{n:02d}.png\n")
    (folder / "rgb.txt").write_text("".join(lines))
    (folder / "calibration.yaml").write_text("width: 160\nheight: 120\ncalibration: [140, 140, 79.5, 59.5]\n")
    return folder


@pytest.fixture(scope="module")
def run_path(slide, wall_and_box, run_record: RunRecord, tmp_path_factory) -> Path:
    """A finished run over the slide, with true poses and keyframes."""
    folder = tmp_path_factory.mktemp("runs")
    recording = written(folder / "slide", [image.permute(1, 2, 0).numpy() for image in slide.images])
    run, world = RunDirectory(folder / "run"), wall_and_box.World()
    keyframes = [world.keyframe(se3.inverse(slide.T_wc[n]), n // 5, n) for n in range(0, 30, 5)]
    trajectory = Trajectory(slide.time_ns.numpy(), slide.T_wc.numpy())
    write_trajectories(run, trajectory, trajectory, "")
    write_keyframes(run, keyframes)
    camera = Camera(160, 120, 140.0, 140.0, 79.5, 59.5)
    write_record(run, replace(run_record, source=SourceRecord("slide", "tum", str(recording), camera)))
    return run.path


@pytest.mark.usefixtures("short_clips")
def test_program_learns_from_a_finished_run_and_goes_on(run_path, tmp_path, monkeypatch):
    """Second call: the same video from OUT/videos, more steps; a part of the frames makes another video."""
    assert call(monkeypatch, tmp_path, "--run", str(run_path), "--steps", "4") == 0
    load_networks(tmp_path / "weights.safetensors")
    card = (tmp_path / "weights.md").read_text()
    assert "not to be shipped" in card and str(run_path) in card
    scores = last_scores(tmp_path)
    assert float(scores["held_out_photometric"]) > 0 and float(scores["prior_abs_rel"]) > 0
    seen = int(scores["video_pictures"])
    prepared = tmp_path / "videos" / "0.safetensors"
    stamp = prepared.stat().st_mtime_ns
    assert call(monkeypatch, tmp_path, "--run", str(run_path), "--steps", "8", "--resume") == 0
    assert prepared.stat().st_mtime_ns == stamp
    assert int(last_scores(tmp_path)["video_pictures"]) > seen > 0
    options = ["--run", str(run_path), "--part", "0", "0.6", "--steps", "1"]
    assert call(monkeypatch, tmp_path / "part", *options) == 0
    key = json.dumps([str(run_path)])[1:-1]
    video = stored(tmp_path / "part" / "videos" / "0.safetensors")
    assert len(video.images) == 18 and key in stored_key(tmp_path / "part" / "videos" / "0.safetensors")


def last_scores(folder: Path) -> dict[str, str]:
    with (folder / "validation.csv").open(newline="") as stream:
        return dict(cell.split("=") for cell in list(csv.reader(stream))[-1])


def stored_key(path: Path) -> str:
    from slam.io.tensor_file import read_header

    return read_header(path)[0]["key"]


def stored(path: Path) -> Video:
    video = Video.load(path, stored_key(path))
    assert video is not None
    return video


def test_a_video_that_cannot_be_tracked_is_refused_and_the_pose_network_takes_it(tmp_path, monkeypatch, capsys):
    """A camera that looks at one noise after another."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(12)]
    folder = written(tmp_path / "noise", noise)
    assert call(monkeypatch, tmp_path / "out", "--sequence", str(folder)) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert "only 0 of 12 frames could be tracked" in error[-1] and "--poses network" in error[-1]


@pytest.mark.usefixtures("short_clips")
def test_the_pose_network_needs_no_run(run_path, tmp_path, monkeypatch):
    """It is in the checkpoint, and not in the weights."""
    recording = str(run_path.parent / "slide")
    options = ["--sequence", recording, "--poses", "network", "--steps", "2"]
    assert call(monkeypatch, tmp_path, *options) == 0
    assert not stored(tmp_path / "videos" / "0.safetensors").has_poses
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["selfsup"]["pose_net"] and not any("pose_net" in name for name in checkpoint["weights"])
    load_networks(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give --video, --sequence or --run"),
        (["--stage", "prior", "--video", "a.mp4"], 2, "--video is for --stage selfsup"),
        (["--video", "/nowhere/film.mp4"], 1, "/nowhere/film.mp4"),
        (["--sequence", "/nowhere"], 1, "/nowhere"),
        (["--run", "/nowhere"], 1, "no run directory at /nowhere"),
        (["--run", "RUN", "--part", "0.5", "0.5"], 2, "--part takes two shares"),
        (["--run", "RUN", "--part", "0", "0.001"], 2, "of the 30 frames"),
        (["--run", "RUN", "--set", "selfsup.photometric=-1"], 2, "selfsup: photometric must be from 0"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], code: int, message: str, run_path, tmp_path, monkeypatch, capsys
):
    assert call(monkeypatch, tmp_path, *[str(run_path) if a == "RUN" else a for a in arguments]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_that_does_not_say_where_its_frames_are_is_refused(run_path, tmp_path, monkeypatch, capsys):
    """As an older program wrote it, or of a camera that nobody recorded."""
    record = Run(run_path).record()
    old, camera = RunDirectory(tmp_path / "old"), RunDirectory(tmp_path / "camera")
    write_record(camera, replace(record, source=replace(record.source, kind="camera", name="webcam")))
    values = json.loads((run_path / "run.json").read_text())
    del values["source"]
    old.write_json("run.json", values)
    for run, message in ((old, "source has no default"), (camera, "frames of webcam were not kept")):
        assert call(monkeypatch, tmp_path / "out", "--run", str(run.path)) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
