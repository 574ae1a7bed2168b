import runpy
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "plot_training.py"


def run(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["plot_training", *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")


def test_a_power_law_is_read_off(tmp_path, monkeypatch, capsys):
    """Rotation falls by the root of the pairs: four times the pairs halve it. Depth gets worse: never."""
    lines = []
    for k in range(12):
        row = f"stage=joint,step={k},pairs={1000 * 2**k},keyframes={100 * (k + 1)},seconds=1"
        lines.append(f"{row},pairs_0-1px=9,rotation_deg_0-1px={2 ** (-k / 2)},abs_rel_mean={0.1 * (k + 1)}")
    (tmp_path / "validation.csv").write_text("\n".join(lines) + "\n")
    run(monkeypatch, str(tmp_path), "--out", str(tmp_path / "curve.png"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("rotation_deg_0-1px") and printed[0].endswith("halves with 4 times the pairs")
    assert printed[1].startswith("abs_rel_mean") and "does not fall" in printed[1] and len(printed) == 2
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_scores_of_the_prior_are_drawn_against_all_pictures(tmp_path, monkeypatch, capsys):
    """Half of them rendered, half of recordings, as in the self-supervised stage; older rows know of neither."""
    lines = ["stage=joint,step=9,pairs=5,keyframes=7,seconds=1,abs_rel_mean=0.3"]
    for k in range(8):
        row = f"stage=selfsup,step={k},pairs=5,keyframes=7,pictures={50 * 4**k},video_pictures={50 * 4**k},seconds=1"
        lines.append(f"{row},prior_abs_rel={2.0**-k},held_out_photometric=0.1,held_out_inconsistency=0.05")
    (tmp_path / "validation.csv").write_text("\n".join(lines) + "\n")
    run(monkeypatch, str(tmp_path), "--out", str(tmp_path / "curve.png"))
    printed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "after 1,638,400 pictures; halves with 4 times the pictures" in printed["prior_abs_rel"]
    assert "does not fall" in printed["held_out_photometric"] and "held_out_inconsistency" in printed
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_a_folder_that_has_not_validated_is_refused(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="cannot read"):
        run(monkeypatch, str(tmp_path))
