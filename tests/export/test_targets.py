"""Each target against the rendered truth, read back by others or by our own readers."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch

from apps.export import main
from slam.errors import SlamError
from slam.evaluation.surface import read_surface
from slam.export.rerun_log import rerun
from slam.export.trajectories import at_every_frame
from slam.frames import Trajectory
from slam.geometry import se3
from slam.io.ply import read_ply
from slam.io.trajectory import read_tum
from slam.sources import SourceSpec, open_source
from slam.sources.groundtruth import read_groundtruth


def true_points(room, stride=3):
    """(N, 3) of all frames, in the world."""
    camera, clouds = room.camera, []
    for depth, T_wc in zip(room.depths, room.trajectory.T_wc):
        v, u = np.mgrid[0 : depth.shape[0] : stride, 0 : depth.shape[1] : stride]
        rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1)
        points = (rays * depth[v, u][..., None]).reshape(-1, 3)
        clouds.append(points @ T_wc[:3, :3].T + T_wc[:3, 3])
    return np.concatenate(clouds)


def test_mesh_lies_on_the_rendered_surface(room, exported):
    """Median distance from truth to mesh and back within 1 % of the median depth, colours of what is there."""
    o3d = pytest.importorskip("open3d")
    file = exported("mesh") / "mesh.ply"
    mesh = o3d.io.read_triangle_mesh(str(file))
    assert len(mesh.triangles) > 2000 and mesh.has_vertex_colors() and mesh.has_vertex_normals()
    depth = float(np.median(room.depths))
    surface = read_surface(file, np.random.default_rng(0))
    truth = true_points(room)
    assert np.median(surface.distances(truth[::20])) < 0.01 * depth
    from scipy.spatial import cKDTree

    assert np.median(cKDTree(truth).query(surface.points[::50])[0]) < 0.01 * depth
    p_c = (np.asarray(mesh.vertices) - room.trajectory.T_wc[0, :3, 3]) @ room.trajectory.T_wc[0, :3, :3]
    camera = room.camera
    u, v = (
        np.rint(f * p_c[:, n] / p_c[:, 2] + c).astype(int)
        for n, f, c in ((0, camera.fx, camera.cx), (1, camera.fy, camera.cy))
    )
    seen = (p_c[:, 2] > 0) & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    near = np.abs(p_c[seen, 2] - room.depths[0][v[seen], u[seen]]) < 0.02 * depth
    colors = 255 * np.asarray(mesh.vertex_colors)[seen][near]
    assert np.median(np.abs(colors - room.images[0][v[seen][near], u[seen][near]])) < 15
    normals = np.asarray(mesh.vertex_normals)[seen][near] @ room.trajectory.T_wc[0, :3, :3]
    assert ((normals * p_c[seen][near]).sum(-1) < 0).mean() > 0.95  # triangles face the camera that saw them


def test_mesh_formats_hold_the_same(room, tmp_path, exported):
    """Read by Open3D; a GLB has y up, so that it stands upright, and all say units and axes."""
    o3d = pytest.importorskip("open3d")
    meshes = {"ply": exported("mesh") / "mesh.ply"}
    for kind in ("obj", "glb"):
        assert main([str(room.path), "--to", "mesh", "--format", kind, "--out", str(tmp_path / kind), "--quiet"]) == 0
        meshes[kind] = tmp_path / kind / f"mesh.{kind}"
    whole = {kind: o3d.io.read_triangle_mesh(str(file)) for kind, file in meshes.items()}
    for kind, mesh in whole.items():
        assert len(mesh.triangles) == len(whole["ply"].triangles)
        assert b"unit: metre; scale: metric" in meshes[kind].read_bytes()[:4000]
        assert b"x right, y down, z forward" in meshes[kind].read_bytes()[:4000]
    for corner in ("get_min_bound", "get_max_bound"):  # Open3D sorts the vertices of an OBJ anew
        np.testing.assert_allclose(getattr(whole["obj"], corner)(), getattr(whole["ply"], corner)(), atol=1e-4)
    assert whole["obj"].get_surface_area() == pytest.approx(whole["ply"].get_surface_area(), rel=1e-3)
    data = meshes["glb"].read_bytes()
    length = int.from_bytes(data[12:16], "little")
    content = json.loads(data[20 : 20 + length])
    x, y, z, w = content["nodes"][0]["rotation"]
    up = np.array([2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)])  # the node turns y ...
    np.testing.assert_allclose(up, [0, -1, 0], atol=1e-12)  # ... which is down in the map, to glTF's down
    assert len(data) == int.from_bytes(data[8:12], "little")


def test_cloud_has_one_point_in_each_voxel(room, tmp_path):
    assert main([str(room.path), "--to", "ply", "--voxel", "0.05", "--out", str(tmp_path / "c"), "--quiet"]) == 0
    cloud = read_ply(tmp_path / "c/cloud.ply")
    voxels = np.floor(cloud.points.astype(np.float64) / 0.05)
    assert len(cloud) > 1000 and len(np.unique(voxels, axis=0)) == len(cloud)
    assert cloud.normals is not None and cloud.colors is not None
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=-1), 1, atol=1e-5)
    centre = room.trajectory.T_wc[:, :3, 3].mean(0)
    assert ((cloud.points - centre) * cloud.normals).sum(-1).mean() < 0  # they face the cameras


def test_depth_is_read_as_a_sequence(room, exported):
    """By our own reader of TUM layout: stamps, poses, intrinsics and depth of each keyframe."""
    folder = exported("depth")
    source = open_source(SourceSpec(str(folder), with_depth=True))
    frames, truth = list(source), read_groundtruth(folder)
    assert [f.time_ns for f in frames] == [int(room.trajectory.time_ns[n]) for n in room.keyframes]
    half = room.camera.resized(room.camera.width // 2, room.camera.height // 2)
    np.testing.assert_allclose(source.camera.matrix().numpy(), half.matrix().numpy(), atol=1e-9)
    for frame, T_wc, n in zip(frames, truth.T_wc, room.keyframes):
        np.testing.assert_allclose(T_wc, room.trajectory.T_wc[n], atol=1e-6)
        true = 1 / cv2.resize(1 / room.depths[n], (half.width, half.height), interpolation=cv2.INTER_AREA)
        assert frame.depth is not None and np.median(np.abs(frame.depth - true)) < 1e-3
    assert "16-bit PNG" in (folder / "depth.txt").read_text()


def test_depth_past_16_bits_is_told_and_another_scale_is_stated(room, tmp_path, caplog):
    options = [str(room.path), "--to", "depth", "--depth-scale"]
    assert main([*options, "60000", "--out", str(tmp_path / "a")]) == 0
    assert "is past 1.1 map units" in caplog.text and "--depth-scale" in caplog.text
    assert main([*options, "1000", "--out", str(tmp_path / "b")]) == 0
    frame = next(iter(open_source(SourceSpec(str(tmp_path / "b"), with_depth=True))))
    assert frame.depth is not None
    assert np.median(frame.depth[frame.depth > 0]) == pytest.approx(float(np.median(room.depths[0])), rel=0.05)


def test_trajectories_are_those_of_the_run(room, exported):
    T_wc = room.trajectory.T_wc
    tum = read_tum(exported("tum") / "trajectory.txt")
    assert np.array_equal(tum.time_ns, room.trajectory.time_ns)
    np.testing.assert_allclose(tum.T_wc, T_wc, atol=1e-8)
    euroc = read_groundtruth(exported("euroc") / "data.csv")
    assert np.array_equal(euroc.time_ns, room.trajectory.time_ns)
    np.testing.assert_allclose(euroc.T_wc, T_wc, atol=1e-7)
    kitti = np.loadtxt(exported("kitti") / "poses.txt").reshape(-1, 3, 4)
    np.testing.assert_allclose(kitti, T_wc[:, :3], atol=1e-8)
    for file in ("tum/trajectory.txt", "euroc/data.csv", "kitti/frames.txt"):
        target, name = file.split("/")
        assert "unit: metre" in (exported(target) / name).read_text()


def test_kitti_has_a_line_for_a_frame_without_a_pose(room, small_run, tmp_path, caplog):
    """Frames 0, 10 and 11 and the last are lost; between the neighbours the pose is interpolated."""
    path = small_run()
    lines = (path / "trajectory.txt").read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    poses = lines[len(head) :]
    kept = [line for n, line in enumerate(poses) if n not in (0, 10, 11, len(poses) - 1)]
    (path / "trajectory.txt").write_text("\n".join([*head, *kept]) + "\n")
    assert main([str(path), "--to", "kitti", "--out", str(tmp_path / "k")]) == 0
    assert "4 of 40 frames have no pose" in caplog.text
    T = np.loadtxt(tmp_path / "k/poses.txt").reshape(-1, 3, 4)
    own = [line.split()[1] for line in (tmp_path / "k/frames.txt").read_text().splitlines() if line[0] != "#"]
    assert len(T) == 40 and [n for n, word in enumerate(own) if word == "0"] == [0, 10, 11, 39]
    np.testing.assert_allclose(T[0], room.trajectory.T_wc[1, :3], atol=1e-8)
    np.testing.assert_allclose(T[39], room.trajectory.T_wc[38, :3], atol=1e-8)
    step = np.linalg.norm(room.trajectory.T_wc[12, :3, 3] - room.trajectory.T_wc[9, :3, 3])
    assert np.linalg.norm(T[10, :, 3] - room.trajectory.T_wc[10, :3, 3]) < 0.2 * step


def test_interpolation_follows_the_screw():
    """A third of the way of a turn about z with a climb."""
    end = se3.exp(torch.tensor([0.0, 0, 3, 0, 0, 0.9], dtype=torch.float64)).numpy()
    trajectory = Trajectory(np.array([0, 300], np.int64), np.stack([np.eye(4), end]))
    T_wc, is_own = at_every_frame(trajectory, np.array([-5, 0, 100, 300, 400], np.int64))
    third = se3.exp(torch.tensor([0.0, 0, 1, 0, 0, 0.3], dtype=torch.float64)).numpy()
    np.testing.assert_allclose(T_wc, np.stack([np.eye(4), np.eye(4), third, end, end]), atol=1e-12)
    assert is_own.tolist() == [False, True, False, True, False]


def test_rerun_absent_is_one_line(monkeypatch, room, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(SlamError, match=r"pip install 'v2d-slam\[rerun\]'"):
        rerun()
    assert main([str(room.path), "--to", "rerun", "--out", str(tmp_path / "r")]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "r").exists()


@pytest.fixture
def rerun_library():
    """Skips where it is not installed: 170 MB, which the tests do not ask for."""
    return pytest.importorskip("rerun", reason="rerun-sdk is not installed (the extra rerun)")


def test_rerun_recording_is_read_back(rerun_library, room, tmp_path):
    """By rerun's own reader: cameras, images and depth of each keyframe at its time, path and cloud."""
    chunks = pytest.importorskip("rerun.chunk", reason="this rerun-sdk has no reader of chunks")
    for name in ("r", "again"):
        assert main([str(room.path), "--to", "rerun", "--out", str(tmp_path / name), "--quiet"]) == 0
    assert main([str(room.path), "--to", "ply", "--out", str(tmp_path / "ply"), "--quiet"]) == 0
    readers = [chunks.RrdReader(tmp_path / name / "run.rrd") for name in ("r", "again")]
    assert len({reader.recordings()[0].recording_id for reader in readers}) == 2  # the viewer shows both
    values: dict[str, list] = {}
    for batch in (chunk for chunk in readers[0].stream()):
        table = batch.to_record_batch()
        for name in table.schema.names:
            rows = table[name].cast("int64") if name == "time" else table[name]
            values.setdefault(f"{batch.entity_path} {name}", []).extend(rows.to_pylist())
    assert (
        values["/world ViewCoordinates:xyz"] == values["/world/camera Pinhole:camera_xyz"][0:1] == [[[3, 2, 5]]]
    )  # RDF
    T_wc, half = room.trajectory.T_wc, room.camera.resized(room.camera.width // 2, room.camera.height // 2)
    np.testing.assert_allclose(np.array(values["/world/path LineStrips3D:strips"]).squeeze(), T_wc[:, :3, 3], atol=1e-6)
    cloud = read_ply(tmp_path / "ply/cloud.ply")
    np.testing.assert_allclose(values["/world/cloud Points3D:positions"][0], cloud.points, atol=1e-6)
    assert len(values["/world/camera Transform3D:mat3x3"]) == len(room.keyframes)
    for n, frame in enumerate(room.keyframes):
        R_wc = np.reshape(values["/world/camera Transform3D:mat3x3"][n], (3, 3), order="F")
        np.testing.assert_allclose(R_wc, T_wc[frame, :3, :3], atol=1e-6)
        p_w = values["/world/camera Transform3D:translation"][n]
        np.testing.assert_allclose(np.squeeze(p_w), T_wc[frame, :3, 3], atol=1e-6)
        K = np.reshape(values["/world/camera Pinhole:image_from_camera"][n], (3, 3), order="F")
        np.testing.assert_allclose(K, half.matrix().numpy(), rtol=1e-6)
        image = cv2.imdecode(
            np.array(values["/world/camera/image EncodedImage:blob"][n][0], np.uint8), cv2.IMREAD_COLOR
        )
        true = cv2.resize(room.images[frame], (half.width, half.height), interpolation=cv2.INTER_AREA)
        assert np.abs(image[..., ::-1].astype(float) - true).mean() < 4  # JPEG
        depth = np.frombuffer(bytes(values["/world/camera/depth DepthImage:buffer"][n][0]), np.float32)
        true = 1 / cv2.resize(1 / room.depths[frame], (half.width, half.height), interpolation=cv2.INTER_AREA)
        assert np.median(np.abs(depth.reshape(true.shape) - true)) < 1e-3
    for entity in ("", "/image", "/depth"):
        times_ns = values[f"/world/camera{entity} time"]
        assert sorted(set(times_ns)) == room.trajectory.time_ns[list(room.keyframes)].tolist()
        assert sorted(set(values[f"/world/camera{entity} keyframe"])) == list(range(len(room.keyframes)))


def test_a_full_disk_is_told_of_a_rerun_recording(rerun_library, room, tmp_path, capfd, file_size_limit):
    with file_size_limit(100_000):
        code = main([str(room.path), "--to", "rerun", "--out", str(tmp_path / "r"), "--quiet"])
    error = capfd.readouterr().err
    assert code == 1 and error.startswith("v2d-export: rerun: cannot write") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
