"""A scored run: what the benches print comes from here."""

from pathlib import Path

import pytest

from slam.errors import SourceError
from slam.experiment import run_and_score, scores
from slam.frames import Progress
from slam.processes import in_new_process

SETTINGS = ["pixels=19200", "final_refine=false"]


def test_a_run_is_scored_and_repeats_in_a_process_of_its_own(short_recording: Path) -> None:
    heard: list[Progress] = []
    result = run_and_score(short_recording, SETTINGS, publish=heard.append)
    ate = result.report.ate["sim3"]
    assert result.slam.counts.seen == len(heard) == 40 and not result.slam.config.final_refine
    assert ate.coverage == 1 and ate.rmse < 0.02
    assert result.depth is not None and result.depth.abs_rel < 0.05
    again = in_new_process(scores, short_recording, SETTINGS)
    assert (again.ate, again.coverage, again.abs_rel) == (ate.rmse, 1, result.depth.abs_rel)
    assert again.fps == pytest.approx(40 / again.seconds) and again.cpu_ms > 0


def test_a_recording_without_truth_is_refused_also_from_the_other_process(recording: Path, tmp_path: Path) -> None:
    for name in ("rgb", "rgb.txt", "calibration.yaml"):
        (tmp_path / name).symlink_to(recording / name)
    with pytest.raises(SourceError, match="no ground truth"):
        in_new_process(scores, tmp_path, SETTINGS)


def test_the_classical_configuration_maps_without_networks(recording: Path) -> None:
    """`configs/classical.yaml` as a user gives it, from the first frame to the score of depth and trajectory."""
    config_file = Path(__file__).parents[1] / "configs" / "classical.yaml"
    result = run_and_score(recording, [f"pixels={160 * 120}"], config_file)
    assert result.slam.record.weights is None and result.slam.record.stereo == "plane_sweep"
    assert result.report.ate["sim3"].coverage == 1
    assert result.report.ate["sim3"].rmse < 0.01 * result.report.path_length_m
    assert result.depth is not None
    assert result.depth.abs_rel < 0.06 and result.depth.confident_share > 0.4
