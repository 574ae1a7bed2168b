"""Measured depth of a view: at the cells, dense, and how far it can be trusted. Without any, everything is unknown."""

import torch
from torch import Tensor

from slam.frames import View
from slam.inv_depth import InvDepth

NEAR_SIGMA = 0.005  # relative deviation of a near depth: calibration and alignment to the image
FAR_SIGMA = 0.0019  # standard deviation at 1 m, growing with the square of the depth: Nguyen, Izadi & Lovell,
# Modeling Kinect sensor noise for improved 3D reconstruction and tracking, 3DIMPVT 2012 (axial noise)
EDGE_SPREAD = 0.15  # spread of inverse depth within a cell, relative, that no surface but an edge has
MIN_FILLED = 0.5  # part of a cell's pixels that must be known


def measured_coarse(view: View, stride: int, device: torch.device = torch.device("cpu")) -> InvDepth:
    """Inverse depth (hc, wc) of the cells as the sensor measured it, on a device; 0 unknown or across an edge.

    The flow of a cell comes from a patch larger than the cell and may be that of any surface in it, which biases the
    motion near depth edges; so the spread of depth in the 3x3 cells around it is added, as a uniform distribution.
    """
    h, w = view.image.size
    if view.sensor_depth is None:
        return InvDepth.unknown((h // stride, w // stride), device)
    z = torch.from_numpy(view.sensor_depth).to(device)
    pixels = z.view(h // stride, stride, w // stride, stride).transpose(1, 2).flatten(2)
    d = torch.where(pixels > 0, 1 / pixels, torch.inf).sort(-1).values  # the unknown ones last
    count = (pixels > 0).sum(-1, keepdim=True)
    low, high = ((count - 1).clamp_min(0) // 2), (count // 2).clamp_max(d.shape[-1] - 1)
    median = 0.5 * (d.gather(-1, low) + d.gather(-1, high))  # of a slanted plane, that of its centre
    last = d.gather(-1, (count - 1).clamp_min(0))
    known = (count >= MIN_FILLED * d.shape[-1]) & (last - d[..., :1] < EDGE_SPREAD * median)
    inv_depth, known = torch.where(known, median, 0.0)[..., 0], known[..., 0]
    spread = _largest(inv_depth) + _largest(torch.where(known, -inv_depth, -torch.inf))
    sigma = (relative_deviation(inv_depth) * inv_depth).square() + spread.square() / 12
    return InvDepth(inv_depth, torch.where(known, sigma.sqrt(), 0.0))


def _largest(cells: Tensor) -> Tensor:
    """Maximum of the 3x3 cells around each of (hc, wc)."""
    return torch.nn.functional.max_pool2d(cells[None, None], 3, 1, 1)[0, 0]


def measured_dense(view: View, device: torch.device = torch.device("cpu")) -> InvDepth:
    """Inverse depth (h, w) of the pixels as the sensor measured it, on a device; 0 unknown."""
    if view.sensor_depth is None:
        return InvDepth.unknown(view.image.size, device)
    z = torch.from_numpy(view.sensor_depth).to(device)
    inv_depth = torch.where(z > 0, 1 / z, 0.0)
    return InvDepth(inv_depth, relative_deviation(inv_depth) * inv_depth)


def relative_deviation(inv_depth: Tensor) -> Tensor:
    """Standard deviation of a measured depth over that depth; in inverse depth it is the same."""
    return (FAR_SIGMA / inv_depth.clamp_min(1e-3)).clamp_min(NEAR_SIGMA)
