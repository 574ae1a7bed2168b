"""What is read of a finished run, how it is played, and the lines drawn from it."""

import json

import numpy as np
import pytest

from slam.errors import SourceError
from slam.viewer.run import FinishedRun, Playback
from slam.viewer.shapes import MAX_PATH, behind, frustum, graph, median_depth, overview, path, placed, poses


def test_a_run_is_read_back(run_path):
    run = FinishedRun(run_path)
    assert [(k.id, k.parent_id) for k in run.keyframes] == [(0, -1), (1, 0), (2, 1), (3, 2)]
    assert float(run.keyframes[2].T_wc[0, 3]) == pytest.approx(0.2) and len(run.trajectory) == 8
    assert median_depth(run.keyframes) == pytest.approx(2.0, abs=1e-3)


def test_playing_shows_one_keyframe_after_the_other_and_ends(run_path, monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("slam.viewer.run.time.monotonic", lambda: now_s[0])
    playback = Playback(FinishedRun(run_path))
    end = playback.shown()
    assert (end.count, len(end.path)) == (4, 8) and playback.shown() is end
    playback.play()
    assert (playback.shown().count, len(playback.shown().path)) == (1, 1)
    for count in (2, 3):
        now_s[0] += 0.3
        assert (playback.shown().count, playback.is_playing) == (count, True)
    assert len(playback.shown().path) == 5  # frames up to the third keyframe
    playback.play()  # pause
    now_s[0] += 10
    assert playback.shown().count == 3 and "paused" in playback.shown().words
    playback.play()
    now_s[0] += 0.3
    assert (playback.shown().count, playback.is_playing) == (4, False)  # playing ends by itself


def test_stepping_pauses_and_stops_at_the_end(run_path):
    playback = Playback(FinishedRun(run_path))
    playback.play()
    playback.step()
    assert (playback.shown().count, playback.is_playing) == (2, False)
    for _ in range(5):
        playback.step()
    assert playback.shown().count == 4


def test_a_frustum_is_the_image_at_its_depth(run_path):
    lines = frustum(FinishedRun(run_path).keyframes[0], 0.5)
    np.testing.assert_allclose(lines.points[0], 0)
    np.testing.assert_allclose(lines.points[1], [0.5 * -32 / 50, 0.5 * -24 / 50, 0.5])  # outer edge of pixel (0, 0)
    assert lines.points[5, 1] < lines.points[1, 1]  # the peak is above the image


def test_frusta_stand_where_their_keyframes_do(run_path):
    keyframes = FinishedRun(run_path).keyframes
    T_wcs = poses(keyframes).copy()
    T_wcs[1, :3, :3] = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])  # looks along x
    one = frustum(keyframes[0], 0.5)
    lines = placed(one, T_wcs)
    n = len(one.points)
    assert lines.points.shape == (4 * n, 3) and lines.edges.max() == 4 * n - 1
    np.testing.assert_allclose(lines.points[n : 2 * n], one.points @ T_wcs[1, :3, :3].T + [0.1, 0, 0])
    np.testing.assert_array_equal(lines.edges[-len(one.edges) :], one.edges + 3 * n)


def test_the_graph_joins_a_keyframe_to_its_parent(run_path):
    keyframes = FinishedRun(run_path).keyframes
    assert graph(keyframes).edges.tolist() == [[1, 0], [2, 1], [3, 2]]
    assert graph(keyframes[2:]).edges.tolist() == [[1, 0]]  # of the first, the parent is not shown
    assert len(graph(keyframes[:1]).edges) == 0 and len(path(np.zeros((1, 3))).edges) == 0


def test_a_very_long_path_is_thinned():
    positions = np.linspace([0.0, 0, 0], [1.0, 0, 0], 40 * MAX_PATH + 1)
    lines = path(positions)
    assert len(lines.edges) == MAX_PATH and lines.points[-1, 0] == 1.0


def test_behind_is_above_and_upright():
    view = behind(np.eye(4), 2.0)
    assert view.eye.tolist() == [0, -1, -2] and view.center.tolist() == [0, 0, 2] and view.up.tolist() == [0, -1, 0]


def test_the_overview_has_the_wall_in_front(run_path):
    view = overview(Playback(FinishedRun(run_path)).shown())
    assert view.eye[2] < 0 < view.center[2]


def test_what_is_no_run_is_named(run_path, tmp_path):
    with pytest.raises(SourceError, match=r"no run directory at .*nowhere"):
        FinishedRun(tmp_path / "nowhere")
    listing = run_path / "keyframes/keyframes.json"
    entries = json.loads(listing.read_text())
    listing.write_text(json.dumps([{k: v for k, v in entries[0].items() if k != "T_wc"}]))
    with pytest.raises(SourceError, match=r"keyframes.json is damaged, entry 0: T_wc has no default"):
        FinishedRun(run_path)
    listing.write_text("[]")
    with pytest.raises(SourceError, match="has no keyframes"):
        FinishedRun(run_path)


def test_a_run_without_recorded_parents_has_no_graph(run_path):
    listing = run_path / "keyframes/keyframes.json"
    entries = json.loads(listing.read_text())
    listing.write_text(json.dumps([{k: v for k, v in e.items() if k != "parent_id"} for e in entries]))
    assert len(graph(FinishedRun(run_path).keyframes).edges) == 0
