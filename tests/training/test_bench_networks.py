import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from slam.training.clips import ClipPool

BENCH = Path(__file__).parents[2] / "tools" / "bench_networks.py"


def test_bench_compares_all_methods_by_motion_depth_views_and_poses(tmp_path, plane_clip, monkeypatch, capsys):
    """Textured planes: DIS must find these motions; a wrong depth makes poses worse and does not change the flow."""
    pool = ClipPool(9, tmp_path / "clips")
    g = torch.Generator().manual_seed(2)
    for _ in range(5):
        pool.add(plane_clip(g, 4, 96, 128, 0.03))
    arguments = ["--clips", str(tmp_path / "clips"), "--quick", "--json", str(tmp_path / "numbers.json")]
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    runpy.run_path(str(BENCH), run_name="__main__")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    printed = capsys.readouterr().out
    group = next(title for title in numbers if title.startswith("rendered, motion, true depth, "))
    assert numbers[group].keys() == {"fast", "DIS", "fast, aligned", "DIS, aligned"} and group in printed
    exact, wrong = numbers[group]["DIS"], numbers[group.replace("true depth", "depth wrong by 5 %")]["DIS"]
    assert exact["failed"] == 0 and exact["rotation_deg"][0] < 0.2 * exact["true_deg"][0]
    assert exact["translation_mm"][0] < wrong["translation_mm"][0]
    for views in (1, 3):
        for poses in ("true", "wrong"):
            row = numbers[f"rendered, stereo, {views} views, {poses} poses"]["plane sweep"]
            assert row["keyframes"] == 4 and row["abs_rel"][0] < 0.2
            assert 0.2 < row["within_2_sigma"][0] <= 1


def test_spread_and_failures_by_hand():
    bench = runpy.run_path(str(BENCH))
    assert bench["spread"](torch.arange(11.0)) == pytest.approx([5.0, 9.0])
    columns = {name: torch.tensor([6.0] * 4) for name in ("motion_px", "epe_8", "rotation_deg", "ms")}
    errors = columns | {"share": torch.tensor([0.1, 0.19, 0.21, float("nan")]), "gap": torch.tensor([1.0, 1, 1, 5])}
    rows = bench["summary"](errors)
    assert rows.keys() == {"4-12 px", "1 frames"}
    assert rows["4-12 px"]["failed"] == 0.5 and rows["1 frames"]["pairs"] == 3
