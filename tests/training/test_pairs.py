"""Which frames are compared: by parallax, and only where the images confirm the poses."""

from dataclasses import replace

import pytest
import torch

from slam.geometry import se3
from slam.matching.dis import DisFlow
from slam.training.pairs import (
    MAX_MISFIT_PX,
    MAX_PARALLAX_PX,
    MIN_PARALLAX_PX,
    NONE,
    map_points,
    mean_flow_px,
    misfit_px,
    neighbours,
    split,
)
from slam.training.video import Video


def parallax_px(video: Video, i: int, j: int) -> float:
    """Median flow without the rotation's part, straight from the projection: f |t| / d of points that turn back."""
    T_ji = (se3.inverse(video.T_wc[j]) @ video.T_wc[i]).float()
    turned = map_points(video, i) @ T_ji[:3, :3].mT
    moved = turned + T_ji[:3, 3]
    flow = moved[:, :2] / moved[:, 2:] - turned[:, :2] / turned[:, 2:]
    return float(video.K[0, 0]) * float(flow.norm(dim=1).median())


def test_neighbours_have_parallax_and_lie_to_both_sides_of_a_frame(slide):
    frames, held_out = split(slide)
    assert (frames, held_out) == (range(27), range(27, 30))  # the last tenth of 2.9 s is not trained on
    index = neighbours(slide, frames).index
    assert len(index) == len(frames)  # the camera always moves
    assert index.max() < 27 and (index >= NONE).all()
    for i, before, after in index.tolist():
        assert before < i and (after > i or after == NONE) and (before, after) != (NONE, NONE)
        for j in {before, after} - {NONE}:
            assert MIN_PARALLAX_PX <= parallax_px(slide, i, j) <= MAX_PARALLAX_PX
    both = (index[:, 1:] != NONE).all(1)
    assert both.float().mean() > 0.6
    assert neighbours(slide, held_out).index.min() >= NONE


def test_a_camera_that_only_turns_has_no_pairs(filmed, wall_and_box):
    """Its flow is as large as that of the slide, and says nothing of depth."""
    turning = filmed([wall_and_box.moved(ry=0.02 * n) for n in range(8)])
    assert mean_flow_px(turning, 0, 2, DisFlow()) > 4
    assert len(neighbours(turning, range(8))) == 0


def test_a_turn_beside_the_slide_changes_no_choice(filmed, wall_and_box):
    """The rotation's part is taken off exactly: only parallax counts."""
    still = [wall_and_box.moved(x=0.03 * n) for n in range(8)]
    turned = [wall_and_box.moved(ry=0.01 * (-1) ** n) @ T for n, T in enumerate(still)]
    a, b = (neighbours(filmed(poses), range(8)).index for poses in (still, turned))
    assert torch.equal(a, b) and len(a) == 8


@pytest.mark.parametrize("mistake", ["shuffled", "mirrored"])
def test_poses_that_the_images_contradict_give_no_pairs(mistake: str, slide):
    T_wc = slide.T_wc.clone()
    if mistake == "shuffled":
        T_wc = T_wc[torch.randperm(len(T_wc), generator=torch.Generator().manual_seed(0))]
    else:
        T_wc[:, :3, 3] *= -1
    wrong, frames = replace(slide, T_wc=T_wc), split(slide)[0]
    assert len(neighbours(wrong, frames)) <= 0.1 * len(neighbours(slide, frames))


def test_only_certain_depth_judges_the_poses(slide):
    """Where the map is wrong and says so by a 0, nothing is concluded; where it claims to know, it counts."""
    flow = DisFlow()
    doubled = torch.where(torch.arange(40) < 24, 2 * slide.inv_depth, slide.inv_depth)
    unsure = torch.where(torch.arange(40) < 24, torch.zeros(()), slide.inv_depth)
    wrong, honest = replace(slide, inv_depth=doubled), replace(slide, inv_depth=unsure)
    assert misfit_px(honest, 10, 13, map_points(honest, 10), flow) < 0.3
    assert misfit_px(wrong, 10, 13, map_points(wrong, 10), flow) > MAX_MISFIT_PX


def test_without_poses_pairs_are_a_fixed_number_of_frames_apart_by_the_measured_flow(slide):
    plain = replace(slide, T_wc=slide.T_wc[:0])
    index = neighbours(plain, range(27)).index
    gaps = {abs(int(j) - int(row[0])) for row in index for j in row[1:] if j != NONE}
    assert len(gaps) == 1 and len(index) > 15
    flow = DisFlow()
    for i, before, after in index[::6].tolist():
        for j in {before, after} - {NONE}:
            assert 3 <= mean_flow_px(plain, i, j, flow) <= 25
    still = replace(plain, images=slide.images[:1].expand(27, -1, -1, -1))
    assert len(neighbours(still, range(27))) == 0
