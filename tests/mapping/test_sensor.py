"""Depth of a sensor at the cells: planes exact, edges and holes unknown, far depth less sure."""

import numpy as np
import pytest
import torch

from slam.frames import Image, View
from slam.inv_depth import InvDepth
from slam.mapping.sensor import measured_coarse, measured_dense, relative_deviation

F64 = torch.float64


def view(sensor_depth: np.ndarray | None) -> View:
    return View(0, 0, Image(np.zeros((24, 32, 3), np.uint8)), torch.eye(3, dtype=F64), sensor_depth)


def slanted() -> np.ndarray:
    """(24, 32) depth of a plane: its inverse is 0.5 + 0.004 u - 0.002 v at pixel (u, v)."""
    v, u = np.mgrid[:24, :32]
    return (1 / (0.5 + 0.004 * u - 0.002 * v)).astype(np.float32)


@pytest.mark.parametrize("stride", [4, 8])
def test_a_plane_has_its_value_at_the_centre_of_each_cell(stride):
    measured = measured_coarse(view(slanted()), stride)
    inv_depth, sigma = measured.value, measured.sigma
    v, u = torch.meshgrid(*(torch.arange(n // stride) * stride + (stride - 1) / 2 for n in (24, 32)), indexing="ij")
    torch.testing.assert_close(inv_depth, 0.5 + 0.004 * u - 0.002 * v, rtol=0, atol=1e-5)
    spread = stride * (2 * 0.004 + 2 * 0.002)  # of the 3x3 cells around one in the middle
    expected = ((0.005 * inv_depth) ** 2 + spread**2 / 12).sqrt()  # nearer than 2.6 m
    torch.testing.assert_close(sigma[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=0, atol=1e-5)


def test_a_cell_across_an_edge_is_unknown_and_its_neighbours_are_not():
    depth = np.full((24, 32), 2.0, np.float32)
    depth[:, 14:] = 1.0  # within the fourth column of cells
    measured = measured_coarse(view(depth), 4)
    inv_depth, sigma = measured.value, measured.sigma
    assert (inv_depth[:, :3] == 0.5).all() and (inv_depth[:, 4:] == 1.0).all()
    assert not inv_depth[:, 3].any() and not sigma[:, 3].any()
    torch.testing.assert_close(sigma[:, 5:], torch.full((6, 3), 0.005))


def test_flow_may_be_of_either_surface_beside_an_edge():
    """Between cells, so that no cell is across it: half a metre^-1 to either side is 0.5 / sqrt(12) of deviation."""
    depth = np.full((24, 32), 2.0, np.float32)
    depth[:, 16:] = 1.0
    measured = measured_coarse(view(depth), 4)
    inv_depth, sigma = measured.value, measured.sigma
    assert (inv_depth > 0).all()
    torch.testing.assert_close(sigma[:, 3:5], torch.full((6, 2), 0.5 / 12**0.5), rtol=0.01, atol=0)
    torch.testing.assert_close(sigma[:, :3], torch.full((6, 3), 0.0025))


def test_half_of_a_cell_is_enough_and_unknown_pixels_do_not_count():
    depth = slanted()
    depth[:4, :2] = 0  # half of the first cell, whose other half lies at columns 2 and 3
    depth[4:8, :3] = 0  # three quarters of the one below
    measured = measured_coarse(view(depth), 4)
    inv_depth = measured.value
    assert float(inv_depth[0, 0]) == pytest.approx(0.5 + 0.004 * 2.5 - 0.002 * 1.5, abs=1e-5)
    assert float(inv_depth[1, 0]) == 0 and (inv_depth.flatten() > 0).sum() == 47


def test_deviation_grows_with_the_square_of_a_far_depth():
    """0.0019 z^2 of depth is 0.0019 z of it; near by half a percent."""
    assert relative_deviation(1 / torch.tensor([1.0, 4.0, 8.0])).tolist() == pytest.approx([0.005, 0.0076, 0.0152])


def test_dense_depth_is_the_inverse_and_sure_where_known():
    depth = slanted()
    depth[3:9, 5:20] = 0
    measured = measured_dense(view(depth))
    inv_depth, confidence = measured.value, measured.confidence
    known = torch.from_numpy(depth > 0)
    torch.testing.assert_close(inv_depth[known], torch.from_numpy(1 / depth[depth > 0]))
    assert (confidence[known] > 0.99).all() and not inv_depth[~known].any() and not confidence[~known].any()


def test_without_a_sensor_everything_is_unknown_and_nothing_is_changed():
    base = InvDepth(torch.rand(6, 8), torch.rand(6, 8))
    after = base.composited(measured_coarse(view(None), 4))
    assert torch.equal(after.value, base.value) and torch.equal(after.sigma, base.sigma)
    assert measured_dense(view(None)).size == (24, 32) and not measured_dense(view(None)).known.any()
    assert not measured_coarse(view(np.zeros((24, 32), np.float32)), 4).known.any()
