"""Distances between surfaces: hand-computed, and unaffected by what they must not depend on."""

import json

import numpy as np
import pytest

from apps.evaluate import main
from slam.evaluation.surface import Surface, closest_similarity, compare_surfaces, read_surface, sampled
from slam.frames import Trajectory
from slam.io.mesh_file import Mesh, write_mesh
from slam.io.ply import PointCloud, write_ply
from slam.io.trajectory import write_tum


def square(side=1.0, z=0.0, like=0):
    """Vertices and triangles of a square in the plane of a height."""
    vertices = side * np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) + [0, 0, z]
    return vertices, np.array([[0, 1, 2], [0, 2, 3]])


def test_planes_three_centimetres_apart():
    """Every distance is 3 cm: nothing within 2 cm, everything within 5."""
    generator = np.random.default_rng(0)
    score = compare_surfaces(sampled(*square(z=0.03), generator), sampled(*square(), generator), (0.02, 0.05))
    assert score.accuracy_mean == pytest.approx(0.03, abs=1e-5)
    assert score.completion_median == pytest.approx(0.03, abs=1e-5)
    assert [w.f_score for w in score.within] == [0, 1]


def test_half_of_the_truth_is_missing():
    """A square of half the side on the truth: exact where it is, and a quarter of the truth is on it."""
    generator = np.random.default_rng(0)
    score = compare_surfaces(sampled(*square(0.5), generator), sampled(*square(), generator), (0.001,))
    (within,) = score.within
    assert (within.precision, within.recall) == (1, pytest.approx(0.25, abs=0.01))
    assert within.f_score == pytest.approx(0.4, abs=0.015)


def test_samples_are_even_by_area():
    """Of a small and a large triangle; means of their corners are the means of their samples."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [10, 0, 0], [13, 0, 0], [10, 3, 0]])
    points = sampled(vertices, np.array([[0, 1, 2], [3, 4, 5]]), np.random.default_rng(0)).points
    large = points[:, 0] > 5
    assert large.mean() == pytest.approx(0.9, abs=0.01)
    np.testing.assert_allclose(points[large].mean(0), [11, 1, 0], atol=0.02)


def test_icp_undoes_a_small_similarity():
    """A bumpy sheet, a percent larger and a centimetre off."""
    x, y = np.random.default_rng(0).random((2, 20000))
    sheet = np.stack([x, y, 0.2 * np.sin(7 * x) * np.cos(5 * y)], -1)
    T = closest_similarity(Surface(1.01 * sheet + [0, 0, 0.01]), Surface(sheet), 0.05, with_scale=True)
    assert np.cbrt(np.linalg.det(T[:3, :3])) == pytest.approx(1 / 1.01, abs=2e-3)


@pytest.fixture
def sheet(tmp_path):
    """A run of half the scale of its truth, with a bumpy sheet as map; the truth as mesh."""
    T_wc = np.tile(np.eye(4), (10, 1, 1))
    T_wc[:, 0, 3], T_wc[:, 1, 3] = np.arange(10), 0.1 * np.arange(10) ** 2
    times = 10**9 + 10**8 * np.arange(10, dtype=np.int64)
    (tmp_path / "run").mkdir()
    write_tum(tmp_path / "truth.txt", Trajectory(times, T_wc))
    half = T_wc.copy()
    half[:, :3, 3] /= 2
    write_tum(tmp_path / "run/trajectory.txt", Trajectory(times, half))
    n = 60
    y, x = np.mgrid[:n, :n].reshape(2, -1) / n
    vertices = np.stack([x, y, 2 + 0.1 * np.sin(6 * x) * np.cos(4 * y)], -1).astype(np.float32)
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).reshape(-1)
    triangles = np.concatenate(
        [np.stack(c, -1) for c in ((corner, corner + 1, corner + n), (corner + 1, corner + n + 1, corner + n))]
    )
    colors = np.zeros(vertices.shape, np.uint8)
    write_mesh(tmp_path / "truth.ply", Mesh(vertices, triangles.astype(np.int32), colors, np.zeros_like(vertices)))
    write_ply(tmp_path / "run/map.ply", PointCloud(vertices / 2))
    return tmp_path


def keyframes(folder):
    """One, with depth of 1 unit."""
    from slam.io.images import write_color, write_confidence, write_depth

    write_color(folder / "keyframes/0_color.jpg", np.zeros((8, 8, 3), np.uint8))
    write_depth(folder / "keyframes/0_depth.png", np.ones((8, 8)), 1000.0)
    write_confidence(folder / "keyframes/0_confidence.png", np.ones((8, 8), np.float32))
    eye = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    T = [[*row, 0.0] for row in eye] + [[0.0, 0, 0, 1.0]]
    names = {name: f"0_{name}.png" for name in ("depth", "confidence")} | {"color": "0_color.jpg"}
    record = {
        "id": 0,
        "frame_id": 0,
        "time_ns": 10**9,
        "depth_scale": 1000.0,
        "K": eye,
        "width": 8,
        "height": 8,
        "T_wc": T,
    }
    (folder / "keyframes/keyframes.json").write_text(json.dumps([record | names]))


def test_a_run_is_scored_after_alignment_by_its_trajectory(sheet, capsys):
    """The map at half the scale lies on the true mesh once Sim(3) has doubled it; of a median depth of 2 m."""
    keyframes(sheet / "run")
    options = [str(sheet / "run"), "--groundtruth", str(sheet / "truth.txt"), "--mesh", str(sheet / "truth.ply")]
    assert main([*options, "--no-plots"]) == 0
    numbers = json.loads((sheet / "run/metrics.json").read_text())["evaluation"]["surface"]
    assert numbers["scale"] == pytest.approx(2) and numbers["alignment"] == "sim3"
    assert numbers["median_depth"] == pytest.approx(2)
    assert numbers["accuracy_median"] < 1e-3 and numbers["completion_median"] < 0.012  # points are 1.7 cm apart
    assert [w["threshold"] for w in numbers["within"]] == pytest.approx([0.01, 0.02, 0.05, 0.02, 0.04, 0.1])
    assert numbers["within"][2]["f_score"] == 1
    assert "sim3 by the trajectory, scale 2.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--mesh", "none.ply"], 1, "no mesh or cloud at none.ply"),
        (["--mesh", "truth.txt"], 1, "cannot be compared: give a mesh or cloud as .ply"),
        (["--surface", "truth.ply"], 2, "--surface is what --mesh TRUTH scores"),
        (["--mesh", "truth.ply", "--surface", "none.ply"], 1, "no mesh or cloud at none.ply"),
        (["--mesh", "run"], 2, "has no depth to use"),
        (["--mesh", "damaged.ply"], 1, "damaged.ply is cut off"),
        (["--mesh", "damaged.obj"], 1, "damaged.obj is no mesh with triangles"),
    ],
)
def test_a_mistake_is_one_line(sheet, monkeypatch, capfd, options, code, message):
    keyframes(sheet / "run")
    cloud = (sheet / "run/map.ply").read_bytes()
    (sheet / "damaged.ply").write_bytes(cloud[: len(cloud) // 2])
    (sheet / "damaged.obj").write_text("v 1 2\nf 1 2 3\n")
    monkeypatch.chdir(sheet)
    assert main(["run", "--groundtruth", "truth.txt", "--no-plots", "--quiet", *options]) == code
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1, error


def test_a_cloud_is_read_without_triangles(sheet):
    surface = read_surface(sheet / "run/map.ply", np.random.default_rng(0))
    assert surface.triangles is None and len(surface.points) == 3600
