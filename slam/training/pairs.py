"""Which two frames of a video to compare: enough parallax, enough in common, and poses that the images confirm.

Frames are chosen by parallax, not by a number of frames: the flow that a rotation makes says nothing about depth, and
the poses give it exactly. Without poses, by the measured flow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slam.frames import Image
from slam.geometry import se3
from slam.geometry.camera import pixel_grid, sample, scaled_intrinsics
from slam.geometry.flow import in_image, project, rays, reproject
from slam.matching.dis import DisFlow
from slam.networks.prior import STRIDE
from slam.training.video import Video

MIN_PARALLAX_PX, MAX_PARALLAX_PX = 2.0, 15.0  # median flow without the rotation's part
WANTED_PARALLAX_PX = 6.0
MIN_OVERLAP = 0.6  # share of the points of one frame that the other sees too
MAX_MISFIT_PX = 1.5  # median distance of the flow by map and poses from the measured one
REACH = 60  # frames before and after one among which its neighbours are sought
MAX_TARGETS = 400  # frames of a video that get neighbours, evenly spread
POINT_STEP = 3  # cells from one point to the next
MIN_POINTS = 30  # to judge a pair by
MIN_FLOW_PX, MAX_FLOW_PX, WANTED_FLOW_PX = 3.0, 25.0, 8.0  # mean flow of pairs without poses
GAPS = (1, 2, 3, 5, 8, 13, 21)  # frames between them
GAP_SAMPLES = 12  # pairs that a gap is judged by
HELD_OUT = 0.1  # share of the time, at its end, that is not trained on
NONE = -1  # in place of a neighbour


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Frames to compare with their neighbours."""

    index: Tensor  # (P, 3) int64: frame, an earlier and a later one, NONE where there is none (not both)

    def __len__(self) -> int:
        return len(self.index)

    def edges(self, chosen: Tensor) -> Tensor:
        """(E, 2) frame and neighbour of the chosen (B,) rows."""
        rows = self.index[chosen]
        both = torch.cat([rows[:, [0, 1]], rows[:, [0, 2]]])
        return both[both[:, 1] != NONE]


def split(video: Video) -> tuple[range, range]:
    """The frames to train on, and the held-out ones at the end of the time."""
    first, last = int(video.time_ns[0]), int(video.time_ns[-1])
    border = int((video.time_ns <= last - HELD_OUT * (last - first)).sum())
    return range(border), range(border, len(video.images))


def neighbours(video: Video, frames: range) -> Neighbours:
    """Frames of a block with a neighbour before, after, or both, none of them outside."""
    if len(frames) < 2:
        return Neighbours(torch.zeros(0, 3, dtype=torch.int64))
    flow = DisFlow()
    choose = _by_parallax if video.has_poses else _by_flow
    rows = choose(video, frames, flow)
    return Neighbours(torch.tensor(rows, dtype=torch.int64).view(-1, 3))


def _by_parallax(video: Video, frames: range, flow: DisFlow) -> list[list[int]]:
    rows = []
    for i in frames[:: -(-len(frames) // MAX_TARGETS)]:
        points = map_points(video, i)
        if len(points) < MIN_POINTS:
            continue
        row = [i]
        for others in (range(max(frames[0], i - REACH), i), range(i + 1, min(frames[-1], i + REACH) + 1)):
            j = best_neighbour(video, i, others, points)
            row.append(j if j != NONE and misfit_px(video, i, j, points, flow) <= MAX_MISFIT_PX else NONE)
        if row[1:] != [NONE, NONE]:
            rows.append(row)
    return rows


def map_points(video: Video, i: int) -> Tensor:
    """(P, 3) certain points of frame i in its camera, map units."""
    height, width = video.inv_depth.shape[-2:]
    ray = rays(scaled_intrinsics(video.K, 1 / STRIDE)[None].float(), height, width)[0]
    ray, d = (x[POINT_STEP // 2 :: POINT_STEP, POINT_STEP // 2 :: POINT_STEP] for x in (ray, video.inv_depth[i]))
    return ray[d > 0] / d[d > 0][:, None]


def best_neighbour(video: Video, i: int, others: Sequence[int], points: Tensor) -> int:
    """The frame among others whose parallax to frame i is nearest to the wanted one; NONE if none has enough of it, or
    none shares enough with it. `points` (P, 3) are what frame i sees."""
    if not len(others):
        return NONE
    T_ji = (se3.inverse(video.T_wc[list(others)]) @ video.T_wc[i]).float()
    turned = points @ T_ji[:, :3, :3].mT  # (C, P, 3)
    moved = turned + T_ji[:, None, :3, 3]
    parallax = (_pixels(moved, video.K) - _pixels(turned, video.K)).norm(dim=-1).median(1).values
    overlap = _is_seen(moved, video).float().mean(1)
    good = (parallax >= MIN_PARALLAX_PX) & (parallax <= MAX_PARALLAX_PX) & (overlap > MIN_OVERLAP)
    if not good.any():
        return NONE
    distance = (parallax / WANTED_PARALLAX_PX).log().abs()
    return others[int(torch.where(good, distance, torch.full_like(distance, torch.inf)).argmin())]


def misfit_px(video: Video, i: int, j: int, points: Tensor, flow: DisFlow) -> float:
    """Median distance of the flow from frame i to j by its points (P, 3) from the measured one; inf where that knows
    fewer than MIN_POINTS of them."""
    T_ji = (se3.inverse(video.T_wc[j]) @ video.T_wc[i]).float()
    uv_i, uv_j = _pixels(points, video.K), _pixels(points @ T_ji[:3, :3].mT + T_ji[:3, 3], video.K)
    far = torch.zeros(1, *video.inv_depth.shape[-2:])  # at infinity: the rotation's flow, where the search begins
    start, _, _ = reproject(far, T_ji[None], scaled_intrinsics(video.K, 1 / STRIDE)[None])
    uv, weight = measured(video, i, j, start[0], flow)
    at = ((uv_i + 0.5) / STRIDE - 0.5)[None, None]
    found = (sample(uv.permute(2, 0, 1)[None], at)[0, :, 0].mT + 0.5) * STRIDE - 0.5
    known = sample((weight.amin(-1) > 0).float()[None, None], at)[0, 0, 0] > 0.99
    return float((found - uv_j).norm(dim=-1)[known].median()) if int(known.sum()) >= MIN_POINTS else float("inf")


def measured(video: Video, i: int, j: int, start: Tensor, flow: DisFlow) -> tuple[Tensor, Tensor]:
    """Where the cells of frame i lie in frame j by DIS, and its weight, from a guess: all (h, w, 2)."""
    a, b = flow.encode([Image(video.images[n].permute(1, 2, 0).contiguous().numpy()) for n in (i, j)])
    _, residual, weight = flow.update(flow.start([a], [b]), start[None])
    return start + residual[0], weight[0, ..., :2]


def _by_flow(video: Video, frames: range, flow: DisFlow) -> list[list[int]]:
    """Pairs a fixed number of frames apart, the gap whose flow is nearest to the wanted one."""
    gaps = [gap for gap in GAPS if gap < len(frames)]
    typical = []
    for gap in gaps:
        tried = frames[: len(frames) - gap]
        flows = [mean_flow_px(video, i, i + gap, flow) for i in tried[:: -(-len(tried) // GAP_SAMPLES)]]
        typical.append(torch.tensor(flows).median().clamp_min(1e-3))
    gap = gaps[int((torch.stack(typical) / WANTED_FLOW_PX).log().abs().argmin())]
    rows = []
    for i in frames[:: -(-len(frames) // MAX_TARGETS)]:
        row = [i]
        for j in (i - gap, i + gap):
            good = j in frames and MIN_FLOW_PX <= mean_flow_px(video, i, j, flow) <= MAX_FLOW_PX
            row.append(j if good else NONE)
        if row[1:] != [NONE, NONE]:
            rows.append(row)
    return rows


def mean_flow_px(video: Video, i: int, j: int, flow: DisFlow) -> float:
    """Mean length of the measured flow from frame i to j where there is one, pixels; 0 where there is hardly any."""
    height, width = video.images.shape[-2:]
    rest = pixel_grid(height // STRIDE, width // STRIDE, like=torch.zeros(()))
    uv, weight = measured(video, i, j, rest, flow)
    known = weight.amin(-1) > 0
    return STRIDE * float((uv - rest).norm(dim=-1)[known].mean()) if int(known.sum()) >= MIN_POINTS else 0.0


def _pixels(points: Tensor, K: Tensor) -> Tensor:
    """(..., 2) pixels of points (..., 3); those beside or behind the camera come out far away."""
    near = torch.cat([points[..., :2], points[..., 2:].clamp_min(1e-6)], -1)
    return project(near[None], K[None].float())[0]


def _is_seen(points: Tensor, video: Video) -> Tensor:
    """(...) bool: points (..., 3) of a camera that lie in its image."""
    return (points[..., 2] > 0) & in_image(_pixels(points, video.K), *video.images.shape[-2:])
