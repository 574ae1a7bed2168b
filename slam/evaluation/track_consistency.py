"""Do the points of a video stay where they are? Errors of tracks that are lifted to the world by depth and poses.

Depth comes as inverse z-depth (N, h, w) float32, map units, 0 unknown; poses T_wc as (N, 4, 4) float64; intrinsics K
of that size as (3, 3). Errors are divided by the median depth of the tracks' points, or a shrunken scene would win.

Reference: Luo et al., Consistent video depth estimation, SIGGRAPH 2020 (instability, drift).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slam.errors import EvaluationError
from slam.evaluation.consistency import known_sample
from slam.geometry import se3
from slam.geometry.camera import pixel_grid
from slam.geometry.flow import project
from slam.matching.tracks import Tracks

SPACING_PX = 8  # between the points of a start frame
SAME_DEPTH = 0.01  # of depth: a point whose true depth is met this closely is seen, not hidden
MIN_FRAMES = 5  # in which a track is seen, for its drift


@dataclass(frozen=True, eq=False)
class _Sightings:
    """The M times that a track is visible and its depth known, sorted by track, then by frame."""

    track: Tensor  # (M,)
    frame: Tensor  # (M,)
    p_w: Tensor  # (M, 3) float64
    depth: Tensor  # (M,) float64


def track_instability(tracks: Tracks, inv_depth: Tensor, T_wc: Tensor, K: Tensor) -> float:
    """Mean distance between the world points of a track in consecutive frames, of the median depth.

    Args:
        tracks: of static points, pixels of the depth maps.
        inv_depth, T_wc, K: of the video.

    Raises:
        EvaluationError: if no track has known depth in two consecutive frames.
        ValueError: if tracks and depth differ in their number of frames.
    """
    seen = _sightings(tracks, inv_depth, T_wc, K)
    consecutive = (seen.track[1:] == seen.track[:-1]) & (seen.frame[1:] == seen.frame[:-1] + 1)
    if not consecutive.any():
        raise EvaluationError("no track has known depth in two consecutive frames")
    steps = (seen.p_w[1:] - seen.p_w[:-1]).norm(dim=-1)[consecutive]
    return float(steps.mean() / seen.depth.median())


def track_drift(tracks: Tracks, inv_depth: Tensor, T_wc: Tensor, K: Tensor) -> float:
    """Standard deviation of a track's world points along the axis where they spread most, mean over the tracks with
    known depth in MIN_FRAMES frames or more, of the median depth.

    Deviates from the reference, whose drift is the largest eigenvalue of the covariance: this is its square root, a
    length. The covariance is the mean over the frames, not divided by one less.

    Args:
        tracks: of static points, pixels of the depth maps.
        inv_depth, T_wc, K: of the video.

    Raises:
        EvaluationError: if no track is long enough.
        ValueError: if tracks and depth differ in their number of frames.
    """
    seen = _sightings(tracks, inv_depth, T_wc, K)
    T = len(tracks.visible)
    frames = torch.bincount(seen.track, minlength=T)
    is_long = frames >= MIN_FRAMES
    if not is_long.any():
        raise EvaluationError(f"no track has known depth in {MIN_FRAMES} frames")
    share = 1 / frames.clamp_min(1).to(seen.p_w)
    mean = seen.p_w.new_zeros(T, 3).index_add(0, seen.track, seen.p_w) * share[:, None]
    offset = seen.p_w - mean[seen.track]
    outer = offset[:, :, None] * offset[:, None, :]
    covariance = seen.p_w.new_zeros(T, 3, 3).index_add(0, seen.track, outer) * share[:, None, None]
    largest = torch.linalg.eigvalsh(covariance[is_long])[:, -1].clamp_min(0)
    return float(largest.sqrt().mean() / seen.depth.median())


def exact_tracks(
    true_inv_depth: Tensor, T_wc: Tensor, K: Tensor, starts: Sequence[int], spacing_px: int = SPACING_PX
) -> Tracks:
    """Tracks of a rendered video of a static scene, by true depth and poses.

    A point is visible where it falls inside the image and the true depth there is its own within SAME_DEPTH, hence
    not hidden, and not on an edge where the samples of true depth are a blend.

    Args:
        true_inv_depth: (N, h, w) inverse z-depth, 0 unknown.
        T_wc: (N, 4, 4) true poses.
        K: (3, 3) intrinsics of this size.
        starts: frames whose pixels become tracks, one on a grid of `spacing_px`.

    Returns:
        Tracks through all frames, before and after their start.
    """
    _, h, w = true_inv_depth.shape
    half = spacing_px // 2
    grid = pixel_grid(h, w, like=T_wc)[half::spacing_px, half::spacing_px].reshape(-1, 2)
    T_cw, K = se3.inverse(T_wc), K.to(T_wc)
    parts = []
    for start in starts:
        d = true_inv_depth[start, half::spacing_px, half::spacing_px].reshape(-1).to(T_wc)
        uv, d = grid[d > 0], d[d > 0]
        frame = torch.full((len(d),), start, dtype=torch.long)
        p_w = _world_points(uv, 1 / d, T_wc, frame, K)
        p_c = p_w @ T_cw[:, :3, :3].mT + T_cw[:, None, :3, 3]  # (N, P, 3)
        is_in_front = p_c[..., 2] > 0
        z = torch.where(is_in_front, p_c[..., 2], torch.ones_like(p_c[..., 2]))
        uv = project(torch.cat([p_c[..., :2], z[..., None]], -1), K.expand(len(T_wc), 3, 3))  # (N, P, 2)
        true, known = (x[:, 0].to(T_wc.device) for x in known_sample(true_inv_depth, uv[:, None].to(true_inv_depth)))
        visible = (is_in_front & known & ((z * true - 1).abs() < SAME_DEPTH)).T
        parts.append(Tracks(torch.where(visible[..., None], uv.transpose(0, 1), 0.0).float(), visible))
    return Tracks(torch.cat([part.uv for part in parts]), torch.cat([part.visible for part in parts]))


def _sightings(tracks: Tracks, inv_depth: Tensor, T_wc: Tensor, K: Tensor) -> _Sightings:
    """Where the tracks are in the world, by the depth and the pose of each frame in which they are visible."""
    if tracks.visible.shape[1] != len(inv_depth):
        raise ValueError(f"tracks of {tracks.visible.shape[1]} frames do not fit a video of {len(inv_depth)}")
    depth = torch.zeros(tracks.visible.shape, dtype=T_wc.dtype)  # (T, N), 0 unknown
    for n in range(len(inv_depth)):
        rows = tracks.visible[:, n].nonzero()[:, 0]
        value, known = known_sample(inv_depth[n, None], tracks.uv[None, None, rows, n].to(inv_depth))
        z = torch.where(known, 1 / value.clamp_min(1e-12), torch.zeros_like(value))
        depth[rows, n] = z[0, 0].to(depth)
    track, frame = (depth > 0).nonzero().unbind(-1)
    depth = depth[track, frame]
    return _Sightings(track, frame, _world_points(tracks.uv[track, frame], depth, T_wc, frame, K.to(T_wc)), depth)


def _world_points(uv: Tensor, depth: Tensor, T_wc: Tensor, frame: Tensor, K: Tensor) -> Tensor:
    """World points (M, 3) of pixels (M, 2) at z-depth (M,) of frames (M,)."""
    xy = (uv.to(T_wc) - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    p_c = depth[:, None] * torch.cat([xy, torch.ones_like(xy[:, :1])], -1)
    return (T_wc[frame, :3, :3] @ p_c[..., None])[..., 0] + T_wc[frame, :3, 3]
