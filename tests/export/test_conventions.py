"""COLMAP and nerfstudio: the rendered truth, projected by what the files say and their own conventions alone, comes to
lie where the pictures show it. A wrong sign, a transposed rotation or half a pixel of shift is found."""

import json

import cv2
import numpy as np
import pytest

from slam.io.images import read_color, read_depth
from slam.io.ply import read_ply
from slam.io.trajectory import read_tum

EXACT_PX = 0.02  # one frame is projected into another with true depth: what is left is interpolation
MUTATION_PX = 0.2  # the least of the mistakes, half a pixel, is more than this


def colmap_views(folder):
    """Name, K and T_cw by COLMAP's text alone, pixel (0.5, 0.5) the centre of the first."""
    lines = [line for line in (folder / "sparse/0/cameras.txt").read_text().splitlines() if not line.startswith("#")]
    _, model, width, height, *numbers = lines[0].split()
    fx, fy, cx, cy = map(float, numbers)
    assert (model, len(lines)) == ("PINHOLE", 1)
    views = []
    text = (folder / "sparse/0/images.txt").read_text().splitlines()
    for line in [line for line in text if not line.startswith("#")][::2]:
        words = line.split()
        w, x, y, z = map(float, words[1:5])
        R = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        T_cw = np.eye(4)
        T_cw[:3, :3], T_cw[:3, 3] = R, [float(t) for t in words[5:8]]
        views.append((words[9], T_cw))
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), (int(width), int(height)), views


def nerfstudio_views(folder):
    """The same by transforms.json, whose camera looks along -z with y up."""
    content = json.loads((folder / "transforms.json").read_text())
    K = np.array([[content["fl_x"], 0, content["cx"]], [0, content["fl_y"], content["cy"]], [0, 0, 1]])
    views = []
    for frame in content["frames"]:
        T_wg = np.array(frame["transform_matrix"])
        T_gw = np.linalg.inv(T_wg)
        T_cw = np.diag([1.0, -1, -1, 1]) @ T_gw  # x right, y down, z = depth
        views.append((frame["file_path"].removeprefix("images/"), T_cw))
    return K, (content["w"], content["h"]), views


def shifts(room, K, views, first=0, second=1):
    """Median of the pixels by which the true surface, seen in one keyframe and projected into another by the files
    (pixel centres at half numbers), misses where the true camera sees it there."""
    K0 = room.camera.matrix().numpy()
    a, b = room.keyframes[first], room.keyframes[second]
    H, W = room.depths[a].shape
    v, u = np.mgrid[:H, :W]
    rays = np.stack([(u + 0.5 - K[0, 2]) / K[0, 0], (v + 0.5 - K[1, 2]) / K[1, 1], np.ones((H, W))], -1)
    p_a = rays * room.depths[a][..., None]
    T_ba = views[second][1] @ np.linalg.inv(views[first][1])
    p_b = p_a @ T_ba[:3, :3].T + T_ba[:3, 3]
    uv = p_b[..., :2] / p_b[..., 2:] * K[[0, 1], [0, 1]] + K[:2, 2] - 0.5
    # the truth: the same points by the true poses and the true camera
    T_true = np.linalg.inv(room.trajectory.T_wc[b]) @ room.trajectory.T_wc[a]
    rays = np.stack([(u - K0[0, 2]) / K0[0, 0], (v - K0[1, 2]) / K0[1, 1], np.ones((H, W))], -1)
    q_b = (rays * room.depths[a][..., None]) @ T_true[:3, :3].T + T_true[:3, 3]
    uv_true = q_b[..., :2] / q_b[..., 2:] * K0[[0, 1], [0, 1]] + K0[:2, 2]
    inside = (q_b[..., 2] > 0.1) & (uv_true > 0).all(-1) & (uv_true < [W - 1, H - 1]).all(-1)
    assert inside.mean() > 0.2
    return np.median(np.linalg.norm(uv - uv_true, axis=-1)[inside])


READERS = {"colmap": colmap_views, "nerfstudio": nerfstudio_views}


@pytest.mark.parametrize("target", READERS)
def test_truth_projected_by_the_files_lies_where_it_is_seen(room, exported, target):
    K, size, views = READERS[target](exported(target))
    assert size == (room.camera.width, room.camera.height)
    assert len(views) == len(room.keyframes)
    assert shifts(room, K, views) < EXACT_PX


@pytest.mark.parametrize("target", READERS)
def test_mistakes_would_be_seen(room, exported, target):
    """What the test above is for: each mistake, made on purpose, is far past its bound."""
    K, _, views = READERS[target](exported(target))
    transposed = [(name, np.block([[T[:3, :3].T, T[:3, 3:]], [T[3:]]])) for name, T in views]
    flipped = [(name, np.diag([1.0, -1, -1, 1]) @ T) for name, T in views]
    inverted = [(name, np.linalg.inv(T)) for name, T in views]
    for wrong in (transposed, inverted):
        assert shifts(room, K, wrong) > MUTATION_PX
    K_shifted = K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # it cancels between views unless they are turned
    turned = max(shifts(room, K_shifted, views, 0, n) for n in range(1, len(views)))
    assert turned > EXACT_PX
    p_first = np.linalg.inv(flipped[0][1]) @ [0, 0, 1, 1]  # in front of the camera is behind it
    assert (views[0][1] @ p_first)[2] < 0


@pytest.mark.parametrize("target", READERS)
def test_camera_and_poses_are_those_of_the_run(room, exported, target):
    """To the digits of the files; the centre of the first pixel is (0.5, 0.5) there."""
    K, _, views = READERS[target](exported(target))
    K0 = room.camera.matrix().numpy()
    K0[:2, 2] += 0.5
    assert np.abs(K - K0).max() < 1e-9
    T = np.array([T_cw for _, T_cw in views])
    truth = np.linalg.inv(room.trajectory.T_wc[list(room.keyframes)])
    np.testing.assert_allclose(T, truth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", READERS)
def test_pictures_are_full_size_and_of_their_poses(room, exported, target):
    """The names are the stamps of trajectory.txt, and each picture is that of its frame (JPEG: two gray levels)."""
    _, _, views = READERS[target](exported(target))
    times = read_tum(room.path / "trajectory.txt").time_ns
    for n, (name, _) in zip(room.keyframes, views):
        assert name == f"{times[n] // 10**9}.{times[n] % 10**9:09d}.jpg"
        picture = read_color(exported(target) / "images" / name)
        assert picture.shape == room.images[n].shape
        assert np.abs(picture.astype(int) - room.images[n]).mean() < 3


def test_colmap_measures_its_points_in_the_pictures(room, exported):
    """Lucas-Kanade has true poses and depth here: what is left is its own noise, and no point is a place in the air."""
    folder = exported("colmap") / "sparse/0"
    K, _, views = colmap_views(exported("colmap"))
    observations = {}
    for n, line in enumerate(line for line in (folder / "images.txt").read_text().splitlines() if line[:1] != "#"):
        if n % 2:
            words = line.split()
            observations[n // 2] = [(float(u), float(v), int(p)) for u, v, p in zip(*[iter(words)] * 3)]
    points = {}
    for line in (folder / "points3D.txt").read_text().splitlines():
        if not line.startswith("#"):
            words = line.split()
            points[int(words[0])] = (np.array(words[1:4], float), float(words[7]), words[8:])
    assert len(points) > 300
    errors = []
    for n, seen in observations.items():
        for k, (u, v, point) in enumerate(seen):
            assert [str(n + 1), str(k)] in [points[point][2][i : i + 2] for i in range(0, len(points[point][2]), 2)]
            p_c = views[n][1][:3, :3] @ points[point][0] + views[n][1][:3, 3]
            uv = K[[0, 1], [0, 1]] * p_c[:2] / p_c[2] + K[:2, 2]
            errors.append(np.linalg.norm(uv - [u, v]))
    assert 0.01 < np.median(errors) < 0.5
    off = []
    for n, seen in observations.items():  # against the rendered depth
        depth = room.depths[room.keyframes[n]]
        for u, v, point in seen:
            z = (views[n][1] @ [*points[point][0], 1])[2]
            off.append(abs(z / depth[round(v - 0.5), round(u - 0.5)] - 1))
    assert np.median(off) < 0.01


def test_colmap_reads_text_and_binary_alike(room, exported, tmp_path):
    """pycolmap, which is COLMAP, reads both, finds the same, and our errors are its errors."""
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    folder = exported("colmap") / "sparse/0"
    models = []
    for kind in ("txt", "bin"):
        (tmp_path / kind).mkdir()
        for file in folder.glob(f"*.{kind}"):
            (tmp_path / kind / file.name).write_bytes(file.read_bytes())
        models.append(pycolmap.Reconstruction(str(tmp_path / kind)))
    text, binary = models
    assert text.num_images() == binary.num_images() == len(room.keyframes)
    assert text.num_points3D() == binary.num_points3D() > 300
    for image_id, image in text.images.items():
        other = binary.images[image_id]
        assert image.name == other.name
        assert np.array_equal(image.cam_from_world().matrix(), other.cam_from_world().matrix())
        points, others = image.points2D, other.points2D
        assert len(points) == len(others)
        assert all(np.array_equal(p.xy, q.xy) and p.point3D_id == q.point3D_id for p, q in zip(points, others))
        n = room.keyframes[image_id - 1]
        T_cw = np.linalg.inv(room.trajectory.T_wc[n])[:3]
        np.testing.assert_allclose(image.cam_from_world().matrix(), T_cw, rtol=0, atol=1e-6)
    for point_id, point in text.points3D.items():
        other = binary.points3D[point_id]
        assert np.array_equal(point.xyz, other.xyz) and np.array_equal(point.color, other.color)
        assert point.error == other.error
    ours = np.median([point.error for point in text.points3D.values()])
    text.update_point_3d_errors()
    assert np.median([point.error for point in text.points3D.values()]) == pytest.approx(ours, rel=0.02)


def test_nerfstudio_has_depth_and_a_cloud_in_its_world(room, exported):
    """Depth is z in millimetres at the size of the pictures; the cloud lies on it in the frame of the poses."""
    folder = exported("nerfstudio")
    content = json.loads((folder / "transforms.json").read_text())
    K, size, views = nerfstudio_views(folder)
    applied = np.array(content["applied_transform"])
    np.testing.assert_array_equal(applied, np.eye(4)[:3])
    for frame, n in zip(content["frames"], room.keyframes):
        depth = read_depth(folder / frame["depth_file_path"], 1 / content["depth_unit_scale_factor"])
        assert depth.shape == (size[1], size[0])
        known = depth > 0
        assert known.mean() > 0.7
        assert np.median(np.abs(depth[known] / room.depths[n][known] - 1)) < 0.01
    points = read_ply(folder / content["ply_file_path"]).points.astype(float)
    p_c = points @ views[0][1][:3, :3].T + views[0][1][:3, 3]
    uv = p_c[:, :2] / p_c[:, 2:] * K[[0, 1], [0, 1]] + K[:2, 2] - 0.5
    inside = (p_c[:, 2] > 0) & (uv > 1).all(-1) & (uv < np.array(size) - 2).all(-1)
    truth = room.depths[0][tuple(np.rint(uv[inside]).astype(int).T[::-1])]
    near = np.abs(p_c[inside, 2] / truth - 1) < 0.02
    assert inside.sum() > 200 and near.mean() > 0.5  # the others are hidden in this view
    assert cv2.haveImageReader(str(folder / content["frames"][0]["file_path"]))
