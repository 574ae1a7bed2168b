"""Accuracy at the beginning of real recordings; those are no part of the project: where they are absent, this skips.

Bounds are about three times the error measured when they were set: they catch a broken part, not a bad day.
"""

import os
from pathlib import Path

import pytest

from slam.experiment import run_and_score
from slam.sources import SourceSpec, open_source


@pytest.mark.parametrize(
    ("name", "frames", "bound_m"),
    [("tag_corner", 100, 0.005), ("redwood_living", 100, 0.018), ("icl_office_kt0", 60, 0.0025)],
)
def test_trajectory_of_a_recording(name: str, frames: int, bound_m: float) -> None:
    folder = Path(os.environ.get("V2D_TEST_DATA", "nowhere")) / name
    if not folder.is_dir():
        pytest.skip(f"V2D_TEST_DATA names no folder that holds {name}")
    result = run_and_score(folder, source=open_source(SourceSpec(str(folder), max_frames=frames)))
    ate = result.report.ate["sim3"]
    assert result.slam.counts.seen == frames
    assert ate.coverage > 0.99, f"{100 * ate.coverage:.1f} % of the frames have a pose"
    assert ate.rmse < bound_m, f"ATE {ate.rmse:.4f} m"
