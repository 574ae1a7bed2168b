"""Depth carried into another view, and inpainted where there is none."""

import numpy as np
import torch

from slam.frames import Image, View
from slam.geometry import se3
from slam.mapping.warp import inpainted, upsampled, warp_inv_depth

F64 = torch.float64


def test_a_wall_seen_from_nearer_has_the_exact_inverse_depth(wall_and_box):
    K, H, W = wall_and_box.K.clone(), 48, 64
    K[:2, 2] = torch.tensor([(W - 1) / 2, (H - 1) / 2])
    wall = torch.full((H, W), 0.5)
    forward = wall_and_box.moved(z=-0.4)  # camera 0.4 nearer to the wall at depth 2
    moved, weight = warp_inv_depth(wall, torch.full((H, W), 0.7), forward, K)
    landed = moved > 0
    assert landed.float().mean() > 0.95
    torch.testing.assert_close(moved[landed], torch.full_like(moved[landed], 1 / 1.6))
    assert (weight[landed] == 0.7).all() and not weight[~landed].any()


def test_warp_agrees_with_the_truth_of_the_other_view(world, wall_and_box):
    """Each point covers the 2x2 pixels around it, so off the edges the error is the slope of one pixel."""
    a, b = wall_and_box.moved(), wall_and_box.moved(0.12, -0.06, 0.05, 0.02, -0.03, 0.04)
    truth_a, truth_b = world.inv_depth(a), world.inv_depth(b)
    moved, _ = warp_inv_depth(truth_a, torch.ones_like(truth_a), b @ se3.inverse(a), wall_and_box.K)
    error = (moved - truth_b).abs()[moved > 0]
    assert (moved > 0).float().mean() > 0.8
    assert float(error.quantile(0.9)) < 0.003 and float(error.median()) < 0.001
    assert float((truth_a - truth_b).abs().median()) > 0.01  # leaving it where it was would fail


def test_the_nearest_wins_whatever_comes_first(wall_and_box):
    K = wall_and_box.K
    for near_first in (True, False):
        inv_depth = torch.zeros(40, 60)
        near, far = (10, 17) if near_first else (20, 12)
        inv_depth[5, near], inv_depth[5, far] = 1.0, 0.3
        flow = 140 * torch.tensor([1.0, 0.3])  # pixels that a step of one unit moves them
        step = (far - near) / float(flow[0] - flow[1])  # after it both are in one column
        moved, weight = warp_inv_depth(inv_depth, inv_depth / 2, wall_and_box.moved(x=step), K)
        column = round(near + step * float(flow[0]))
        assert float(moved[5, column]) == 1.0 and float(weight[5, column]) == 0.5
        assert float(moved.max()) == 1.0 and not (moved[:5] > 0).any()


def test_unknown_depth_and_points_behind_land_nowhere(wall_and_box):
    inv_depth = torch.zeros(40, 60)
    inv_depth[:20] = 2.0  # depth 0.5, passed by the camera
    moved, weight = warp_inv_depth(inv_depth, torch.ones(40, 60), wall_and_box.moved(z=-1.0), wall_and_box.K)
    assert not moved.any() and not weight.any()


def test_filled_keeps_constants_and_continues_smoothly():
    value, weight = torch.zeros(30, 40), torch.zeros(30, 40)
    value[:, :20], weight[:, :20] = 0.8, 1.0
    torch.testing.assert_close(inpainted(value, weight), torch.full((30, 40), 0.8), rtol=1e-4, atol=0)


def test_filled_takes_the_values_nearby_and_ignores_those_without_weight():
    value, weight = torch.full((30, 60), 9.0), torch.zeros(30, 60)
    value[:, :10], weight[:, :10] = 0.5, 1.0
    value[:, -10:], weight[:, -10:] = 1.5, 1.0
    out = inpainted(value, weight)
    assert abs(float(out[15, 2]) - 0.5) < 0.01 and abs(float(out[15, -3]) - 1.5) < 0.01
    assert abs(float(out[15, 30]) - 1.0) < 0.1
    assert float(out[15, 14]) < 0.7 and float(out[15, 45]) > 1.3
    assert float(out.min()) > 0.49 and float(out.max()) < 1.51


def test_filled_of_nothing_is_unknown():
    assert not inpainted(torch.zeros(8, 8), torch.zeros(8, 8)).any()
    value = torch.zeros(20, 20)
    value[:, :10] = 0.5
    assert abs(float(inpainted(value, torch.ones(20, 20))[10, 19]) - 0.5) < 0.01  # 0 is unknown, whatever its weight


def test_enlarged_puts_the_cells_at_their_centres():
    """A ramp over the cells is the same ramp over the pixels: cell c is centred at pixel 4 c + 1.5."""
    view = View(0, 0, Image(np.zeros((24, 32, 3), np.uint8)), torch.eye(3, dtype=F64))
    cells = (4 * torch.arange(8.0) + 1.5).expand(6, 8)
    out = upsampled(cells, view)
    torch.testing.assert_close(out[:, 2:-2], torch.arange(2.0, 30.0).expand(24, 28))
