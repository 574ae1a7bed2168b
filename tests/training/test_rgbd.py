import cv2
import numpy as np
import pytest
import torch

from slam.errors import SourceError
from slam.training.rgbd import Mixture, RgbdClips, RgbdFolder


@pytest.fixture
def recording(tmp_path):
    """Ten frames of 64x48: frame k is of gray level 10 k, depth 1 + k / 10 m where k is even, 0.1 m apart along x."""
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    lines: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
    for k in range(10):
        stamp = f"{100 + k / 10:.6f}"
        cv2.imwrite(str(tmp_path / "rgb" / f"{stamp}.png"), np.full((48, 64, 3), 10 * k, np.uint8))
        lines["rgb"].append(f"{stamp} rgb/{stamp}.png")
        if k % 2 == 0:
            cv2.imwrite(str(tmp_path / "depth" / f"{stamp}.png"), np.full((48, 64), 5000 + 500 * k, np.uint16))
            lines["depth"].append(f"{stamp} depth/{stamp}.png")
        if k != 9:
            lines["groundtruth"].append(f"{stamp} {k / 10} 0 0 0 0 0 1")
    for name, rows in lines.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "calibration.yaml").write_text("width: 64\nheight: 48\ncalibration: [50.0, 50.0, 31.5, 23.5]\n")
    return tmp_path


def test_clips_hold_frames_with_depth_and_their_poses(recording):
    folder = RgbdFolder.read(recording, 64 * 48)
    assert folder.has_depth.tolist() == [True, False] * 4 + [True]  # the tenth frame has no pose
    maker = RgbdClips([folder], views=3, max_gap=2)
    g = torch.Generator().manual_seed(0)
    for _ in range(10):
        (clip,) = maker(g)
        k = (clip.images[:, 0, 0, 0].float() / 10).double()
        assert (k % 2 == 0).all() and (k.diff() > 0).all()
        torch.testing.assert_close(clip.T_wc[:, 0, 3], k / 10)
        torch.testing.assert_close(1 / clip.inv_depth[:, 0, 0].double(), 1 + k / 10, rtol=1e-3, atol=0)


def test_a_mixture_uses_both_by_their_share():
    mixture = Mixture(lambda g: ["a"], lambda g: ["b"], 0.25)
    g = torch.Generator().manual_seed(0)
    drawn = [mixture(g)[0] for _ in range(200)]
    assert 30 < drawn.count("a") < 75


def test_a_folder_without_depth_is_refused(recording):
    (recording / "depth.txt").write_text("# none\n")
    with pytest.raises(SourceError):
        RgbdFolder.read(recording, 64 * 48)
