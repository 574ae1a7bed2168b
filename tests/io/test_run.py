"""The files of a run: what is read back is what was in the map."""

import json
from dataclasses import replace

import numpy as np
import torch

from slam.frames import Image, Keyframe, Trajectory, View
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.io.images import read_color, read_confidence, read_depth
from slam.io.ply import PointCloud, read_ply
from slam.io.run import write_cloud, write_keyframes, write_trajectories
from slam.io.run_directory import RunDirectory
from slam.io.trajectory import read_tum

F64 = torch.float64


def keyframe(keyframe_id: int = 3) -> Keyframe:
    """Depth from 1 to 8 units, a corner unknown, one pixel very far."""
    generator = torch.Generator().manual_seed(keyframe_id)
    inv_depth = torch.linspace(1, 1 / 8, 24 * 32).view(24, 32)
    inv_depth[:4, :4] = 0
    inv_depth[20, 20] = 1e-8
    image = np.full((24, 32, 3), (200, 40, 90), np.uint8)
    K = torch.tensor([[30.0, 0, 15.5], [0, 31.0, 11.5], [0, 0, 1]], dtype=F64)
    view = View(40 + keyframe_id, 10**9 + keyframe_id, Image(image), K)
    T_wc = se3.exp(torch.randn(6, dtype=F64, generator=generator))
    confidence = torch.rand(24, 32, generator=generator)
    return Keyframe(keyframe_id, view, T_wc, InvDepth.from_confidence(inv_depth, confidence), InvDepth.unknown((6, 8)))


def test_keyframes_are_read_back(tmp_path):
    run, keyframes = RunDirectory(tmp_path / "run"), [keyframe(3), keyframe(12)]
    write_keyframes(run, keyframes)
    assert run.missing == {}
    folder = run.path / "keyframes"
    entries = json.loads((folder / "keyframes.json").read_text())
    assert [e["id"] for e in entries] == [3, 12] and [e["frame_id"] for e in entries] == [43, 52]
    for entry, k in zip(entries, keyframes, strict=True):
        assert entry["time_ns"] == k.view.time_ns and (entry["width"], entry["height"]) == (32, 24)
        assert entry["T_wc"] == k.T_wc.tolist() and entry["K"] == k.view.K.tolist()
        color = read_color(folder / entry["color"]).astype(int)
        assert np.abs(color - k.view.image.rgb).max() <= 3  # JPEG; red and blue exchanged would be 110
        confidence = read_confidence(folder / entry["confidence"])
        np.testing.assert_allclose(confidence, k.dense.confidence.numpy(), atol=0.5 / 255 + 1e-6)
        depth, inv_depth = read_depth(folder / entry["depth"], entry["depth_scale"]), k.dense.value.numpy()
        seen = inv_depth > 1e-6
        assert not depth[~seen].any()  # unknown, and what 16 bits do not reach
        step = 1 / entry["depth_scale"]
        np.testing.assert_allclose(depth[seen], 1 / inv_depth[seen], atol=0.51 * step)
        assert step < 2e-3  # a few thousandths of a unit: 20,000 levels for four times the median


def test_depth_of_any_unit_uses_the_sixteen_bits_alike(tmp_path):
    """A map in thousandths of the unit must not be rounded to nothing, nor one in thousands cut off."""
    k = keyframe()
    run = RunDirectory(tmp_path / "run")
    write_keyframes(run, [replace(k, id=n, dense=k.dense.rescaled(1 / f)) for n, f in enumerate((1e-3, 1.0, 1e3))])
    entries = json.loads((run.path / "keyframes/keyframes.json").read_text())
    levels = [read_depth(run.path / "keyframes" / e["depth"], 1.0) for e in entries]
    for other in (levels[0], levels[2]):
        far = np.abs(other - levels[1]) > 1
        assert far.mean() < 0.002  # the very far pixel alone may be in or out


def test_a_keyframe_without_any_depth_is_written(tmp_path):
    k = keyframe()
    run = RunDirectory(tmp_path / "run")
    write_keyframes(run, [replace(k, dense=InvDepth.unknown(k.dense.size))])
    (entry,) = json.loads((run.path / "keyframes/keyframes.json").read_text())
    assert np.isfinite(entry["depth_scale"])
    assert not read_depth(run.path / "keyframes" / entry["depth"], entry["depth_scale"]).any()


def test_no_keyframes_is_an_empty_list(tmp_path):
    run = RunDirectory(tmp_path / "run")
    write_keyframes(run, [])
    assert json.loads((run.path / "keyframes/keyframes.json").read_text()) == []


def test_trajectories_go_to_their_files_with_the_header(tmp_path):
    run = RunDirectory(tmp_path / "run")
    xi = torch.randn(5, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    every = Trajectory(np.arange(5, dtype=np.int64) * 10**8, se3.exp(xi).numpy())
    keyframes = Trajectory(every.time_ns[::2], every.T_wc[::2])
    write_trajectories(run, every, keyframes, "scale: none\nv2d-slam")
    for name, expected in (("trajectory.txt", every), ("keyframes.txt", keyframes)):
        got = read_tum(run.path / name)
        np.testing.assert_array_equal(got.time_ns, expected.time_ns)
        np.testing.assert_allclose(got.T_wc, expected.T_wc, atol=1e-8)
        assert (run.path / name).read_text().startswith("# scale: none\n# v2d-slam\n")


def test_cloud_is_read_back(tmp_path):
    run = RunDirectory(tmp_path / "run")
    points = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    colors = np.arange(21, dtype=np.uint8).reshape(7, 3)
    write_cloud(run, PointCloud(points, colors), "scale: none")
    got = read_ply(run.path / "map.ply")
    np.testing.assert_array_equal(got.points, points)
    np.testing.assert_array_equal(got.colors, colors)
    assert b"comment scale: none" in (run.path / "map.ply").read_bytes()


def test_a_file_that_cannot_be_written_does_not_lose_the_others(tmp_path):
    run = RunDirectory(tmp_path / "run")
    (run.path / "keyframes" / "000003_depth.png").mkdir(parents=True)  # in the way
    write_keyframes(run, [keyframe(3)])
    assert list(run.missing) == ["keyframes/000003_depth.png"]
    assert (run.path / "keyframes/000003_color.jpg").is_file() and (run.path / "keyframes/keyframes.json").is_file()
