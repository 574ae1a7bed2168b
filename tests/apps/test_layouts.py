"""A layout from end to end: run, scored by the truth beside it, and scored again by the truth alone."""

import json

import pytest

from apps import evaluate
from apps.run import main


def ate(run) -> float:
    return json.loads((run / "metrics.json").read_text())["evaluation"]["ate_m"]["sim3"]["rmse"]


@pytest.mark.parametrize(("kind", "truth"), [("replica", "traj.txt"), ("tartanair", "pose_left.txt")])
def test_a_layout_is_run_and_scored_as_the_same_frames_in_tum_layout_are(
    layouts, recording, rendered, tmp_path, kind, truth
):
    """The images are the same bytes, so the trajectories are the same; a second start and stride shift the frames that
    poses without stamps are paired with."""
    path = layouts.LAYOUTS[kind].write(tmp_path, rendered.frames[:40], rendered.truth.T_wc[:40])
    options = ["--set", "pixels=19200", "--deterministic", "--quiet", "--start", "2", "--max-frames", "36"]
    for name, folder in (("own", path), ("tum", recording)):
        assert main(["--sequence", str(folder), "--out", str(tmp_path / name), *options]) == 0
    expected = ate(tmp_path / "tum")
    assert expected < 0.02
    assert ate(tmp_path / "own") == pytest.approx(expected, rel=1e-3)
    assert evaluate.main([str(tmp_path / "own"), "--groundtruth", str(path / truth), "--no-plots", "--quiet"]) == 0
    assert ate(tmp_path / "own") == pytest.approx(expected, rel=1e-3)
