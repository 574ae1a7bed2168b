"""Depth for other programs: of every frame once it was refined, and as the truth that a surface is scored against."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from apps.evaluate import main as evaluate_main
from apps.export import main
from apps.run import main as slam_main
from slam.frames import Image, Trajectory, View
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.io.ply import PointCloud, read_ply, write_ply
from slam.io.refined import REFINED, FramesWriter
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import read_tum, write_tum
from slam.sources import SourceSpec, open_source
from slam.sources.groundtruth import read_groundtruth

CLASSICAL = Path(__file__).resolve().parents[2] / "configs/classical.yaml"
UNSURE_ROWS = 20
DEPTH_SCALE = 5000.0


@pytest.fixture
def refined(room, small_run):
    """A run with depth of every frame that is not that of its keyframes, at other poses; the first rows are unsure."""
    path, camera = small_run(), room.camera.resized(room.camera.width // 2, room.camera.height // 2)
    step = se3.exp(torch.tensor([0.01, -0.02, 0.03, 0.02, 0.01, -0.03], dtype=torch.float64))
    poses, depths = [], []
    size = (camera.height, camera.width)
    with FramesWriter(RunDirectory(path / REFINED), camera.matrix(), size, 4000.0, (0.5, 5.0)) as writer:
        for n, time_ns in enumerate(room.trajectory.time_ns.tolist()):
            image = cv2.resize(room.images[n], size[::-1], interpolation=cv2.INTER_AREA)
            depth = cv2.resize(room.depths[n], size[::-1], interpolation=cv2.INTER_NEAREST) * (1 + 0.001 * n)
            confidence = torch.full(size, 0.9)
            confidence[:UNSURE_ROWS] = 0.3
            dense = InvDepth.from_confidence(torch.from_numpy(1 / depth).float(), confidence)
            poses.append(torch.from_numpy(room.trajectory.T_wc[n]) @ step)
            depths.append(depth)
            writer.add(View(n, time_ns, Image(image), camera.matrix()), poses[-1], dense, dense)
    return path, torch.stack(poses).numpy(), depths


def test_depth_of_every_frame_is_the_refined_one(room, refined, tmp_path):
    """Both the refined files, of 1/4000 of a unit, and the exported ones round."""
    path, poses, depths = refined
    assert main([str(path), "--to", "depth", "--out", str(tmp_path / "d"), "--quiet"]) == 0
    source = open_source(SourceSpec(str(tmp_path / "d"), with_depth=True))
    frames, truth = list(source), read_groundtruth(tmp_path / "d")
    assert [frame.time_ns for frame in frames] == truth.time_ns.tolist() == room.trajectory.time_ns.tolist()
    np.testing.assert_allclose(truth.T_wc, poses, atol=1e-6)
    half = room.camera.resized(room.camera.width // 2, room.camera.height // 2)
    np.testing.assert_allclose(source.camera.matrix().numpy(), half.matrix().numpy(), atol=1e-9)
    for n, frame in enumerate(frames):
        assert frame.depth is not None and not frame.depth[:UNSURE_ROWS].any()
        difference = np.abs(frame.depth - depths[n])[UNSURE_ROWS:]
        assert difference.max() <= 0.5 / 4000 + 0.5 / DEPTH_SCALE + 1e-5
        picture = cv2.resize(room.images[n], (half.width, half.height), interpolation=cv2.INTER_AREA)
        assert np.abs(frame.image.astype(float) - picture).mean() < 1


def test_exported_depth_is_tracked_as_a_sequence(refined, tmp_path):
    """With its depth, at the scale that the run had."""
    path, poses, _ = refined
    assert main([str(path), "--to", "depth", "--out", str(tmp_path / "d"), "--quiet"]) == 0
    options = ["--config", str(CLASSICAL), "--set", "pixels=12288", "--deterministic", "--headless", "--quiet"]
    where = ["--sequence", str(tmp_path / "d"), "--use-depth", "on", "--out", str(tmp_path / "tracked")]
    assert slam_main([*where, "--max-frames", "20", *options]) == 0
    tracked = read_tum(tmp_path / "tracked/trajectory.txt")
    n = np.searchsorted(read_groundtruth(tmp_path / "d").time_ns, tracked.time_ns)
    went, should = (np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=-1).sum() for T in (tracked.T_wc, poses[n]))
    assert len(tracked) == 20 and went == pytest.approx(should, rel=0.1)


def test_a_surface_is_scored_against_exported_depth(room, small_run, exported, tmp_path):
    """A map of half the scale lies on it once Sim(3) has doubled it; a median depth is 2 m."""
    path, cloud = small_run(), read_ply(exported("ply") / "cloud.ply")
    text = (path / "run.json").read_text()
    (path / "run.json").write_text(text.replace("metric (sensor depth)", "monocular"))
    half = room.trajectory.T_wc.copy()
    half[:, :3, 3] /= 2
    write_tum(path / "trajectory.txt", Trajectory(room.trajectory.time_ns, half), "")
    write_ply(path / "map.ply", PointCloud(cloud.points[::8] / 2, cloud.colors[::8]))
    truth = str(exported("depth"))
    assert evaluate_main([str(path), "--groundtruth", truth, "--mesh", truth, "--no-plots", "--quiet"]) == 0
    score = json.loads((path / "metrics.json").read_text())["evaluation"]["surface"]
    assert (score["alignment"], score["scale"]) == ("sim3", pytest.approx(2))
    assert score["accuracy_median"] < 0.02 and score["completion_median"] < 0.03  # of points as far apart as that


def test_depth_of_an_earlier_map_is_not_scored(room, small_run, exported):
    """Two keyframes have the times of others, of what they did not see: their depth would be wrong."""
    path, truth = small_run(), exported("depth")
    file = path / "keyframes/keyframes.json"
    records = json.loads(file.read_text())
    for n in range(2):
        records[n] |= {"frame_id": -1, "time_ns": records[n + 4]["time_ns"]}
    file.write_text(json.dumps(records))
    options = ["--groundtruth", str(truth), "--depth", str(truth / "depth"), "--no-plots", "--quiet"]
    assert evaluate_main([str(path), *options]) == 0
    score = json.loads((path / "metrics.json").read_text())["evaluation"]["depth"]
    assert score["keyframes"] == 6 and score["abs_rel"] < 0.001
