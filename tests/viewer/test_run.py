"""What is read of a run, and the lines drawn from it."""

import json

import numpy as np
import pytest

from slam.errors import SourceError
from slam.viewer.run import read_run
from slam.viewer.shapes import behind, frustum, graph, overview, path


def test_a_run_is_read_back(run_path):
    run = read_run(run_path)
    assert [(k.id, k.parent_id) for k in run.keyframes] == [(0, -1), (1, 0), (2, 1), (3, 2)]
    assert run.keyframes[2].T_wc[0, 3] == pytest.approx(0.2) and len(run.trajectory) == 8
    assert run.median_depth() == pytest.approx(2.0, abs=1e-3)


def test_points_lie_on_the_wall_where_their_pixels_see_it(run_path):
    cloud = read_run(run_path).keyframes[0].cloud(0.0, 1)
    assert len(cloud) == 48 * 64 and cloud.colors is not None
    corner = cloud.points[0]  # pixel (0, 0): up is -y, left is -x
    np.testing.assert_allclose(corner, [2 * -31.5 / 50, 2 * -23.5 / 50, 2.0], atol=1e-3)
    assert cloud.colors[0, 0] > 150 > 60 > cloud.colors[0, 1]  # red


def test_confidence_and_count_of_keyframes_limit_the_points(run_path):
    run = read_run(run_path)
    everything, half = len(run.cloud(0.5, 4)), len(run.cloud(0.7, 4))
    assert half == everything / 2 and len(run.cloud(0.5, 1)) == everything / 4
    last = run.cloud(0.5, 4).points[-1] - run.cloud(0.5, 1).points[-1]
    np.testing.assert_allclose(last, [0.3, 0, 0], atol=1e-5)  # the fourth camera stands there, in the world


def test_a_frustum_is_the_picture_at_its_depth(run_path):
    lines = frustum(read_run(run_path).keyframes[0], 0.5)
    np.testing.assert_allclose(lines.points[0], 0)
    np.testing.assert_allclose(lines.points[1], [0.5 * -32 / 50, 0.5 * -24 / 50, 0.5])  # outer edge of pixel (0, 0)
    assert lines.points[5, 1] < lines.points[1, 1]  # the peak is above the picture


def test_the_graph_joins_a_keyframe_to_its_parent(run_path):
    keyframes = read_run(run_path).keyframes
    assert graph(keyframes).edges.tolist() == [[1, 0], [2, 1], [3, 2]]
    assert graph(keyframes[2:]).edges.tolist() == [[1, 0]]  # of the first, the parent is not shown
    assert len(graph(keyframes[:1]).edges) == 0 and len(path(np.zeros((1, 3))).edges) == 0


def test_behind_is_above_and_upright():
    view = behind(np.eye(4), 2.0)
    assert view.eye.tolist() == [0, -1, -2] and view.center.tolist() == [0, 0, 2] and view.up.tolist() == [0, -1, 0]


def test_the_overview_has_the_wall_in_front(run_path):
    view = overview(read_run(run_path))
    assert view.eye[2] < 0 < view.center[2]


def test_what_is_no_run_is_named(run_path, tmp_path):
    with pytest.raises(SourceError, match=r"no run directory at .*nowhere"):
        read_run(tmp_path / "nowhere")
    listing = run_path / "keyframes/keyframes.json"
    entries = json.loads(listing.read_text())
    listing.write_text(json.dumps([{k: v for k, v in entries[0].items() if k != "T_wc"}]))
    with pytest.raises(SourceError, match=r"keyframes.json is damaged \('T_wc'\)"):
        read_run(run_path)
    listing.write_text("[]")
    with pytest.raises(SourceError, match="has no keyframes"):
        read_run(run_path)


def test_a_run_without_recorded_parents_has_no_graph(run_path):
    listing = run_path / "keyframes/keyframes.json"
    entries = json.loads(listing.read_text())
    listing.write_text(json.dumps([{k: v for k, v in e.items() if k != "parent_id"} for e in entries]))
    assert len(graph(read_run(run_path).keyframes).edges) == 0
