"""Does the depth of a video agree with itself? Errors between pairs of its frames.

Depth comes as inverse z-depth (N, h, w) float32, map units, 0 unknown; poses T_wc as (N, 4, 4) float64; intrinsics K
of that size as (3, 3). All errors are relative, so the unit of length does not matter. Unknown pixels do not count:
to compare two maps, give both the pixels that both know. Consistency is no accuracy: see `video_depth`.

References: Luo et al., Consistent video depth estimation, SIGGRAPH 2020 (photometric error, reprojection); Chen et
al., Video Depth Anything, CVPR 2025 (temporal alignment error).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from slam.errors import EvaluationError
from slam.geometry import se3
from slam.geometry.camera import sample
from slam.geometry.flow import reproject

GAPS = (1, 2, 5, 10, 25)  # frames apart: flicker shows at the small ones, drift at the large
MAX_PAIRS = 200  # of frames at one gap, each compared both ways
BATCH = 8  # pairs at a time
SAME_POINT = 0.03  # of depth: true depths of two frames that differ by less, as poses are not exact, are of one point
MAX_ERROR = 0.5  # of depth: more counts no more
UNKNOWN_SHARE = 1e-4  # weight in a bilinear sample that unknown pixels may have, for the rounding of float32


def known_sample(inv_depth: Tensor, uv: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Inverse depth between pixels, bilinear: exact on planes, as inverse depth is linear in the image there.

    Args:
        inv_depth: (B, h, w), 0 unknown.
        uv: (B, m, n, 2) pixels.
        mask: (B, h, w) bool; None takes all pixels.

    Returns:
        value: (B, m, n) inverse depth.
        known: (B, m, n) bool: inside the image, and every pixel that contributes is known and in the mask.
    """
    counts = inv_depth > 0 if mask is None else (inv_depth > 0) & mask
    value, weight = sample(torch.stack([inv_depth * counts, counts.to(inv_depth)], 1), uv).unbind(1)
    return value / weight.clamp_min(1 - UNKNOWN_SHARE), weight > 1 - UNKNOWN_SHARE


def temporal_alignment_error(
    inv_depth: Tensor,
    T_wc: Tensor,
    K: Tensor,
    gap: int,
    mask: Tensor | None = None,
    true_inv_depth: Tensor | None = None,
) -> float:
    """Mean difference of depth, percent of depth, between frames i and i + gap, both ways.

    The points of one frame are moved into the other by depth and poses, and their depth is compared with that frame's
    own where they fall, `|z_warped - z_j| / z_j`. A point that frame j does not see, as something hides it, counts like
    any other: a map that decided which points are hidden could call its worst ones so. Hence no error counts more than
    MAX_ERROR, and exact depth of a scene with edges scores a little above 0. Points outside image j or behind its
    camera, and samples with an unknown pixel, do not count.

    Deviates from Video Depth Anything: more gaps than 1, no alignment to truth, the cap, and bilinear samples of
    inverse depth.

    Args:
        inv_depth, T_wc, K: of the video.
        gap: frames between i and j.
        mask: (N, h, w) bool, pixels that may count (of both frames); None takes all.
        true_inv_depth: (N, h, w) 1 / map unit, 0 unknown: with it only points count that both frames truly see.

    Raises:
        EvaluationError: if no pixel can be compared.
        ValueError: if `gap` is not in 1..N - 1.
    """
    total, count = 0.0, 0
    for i, j in frame_pairs(len(inv_depth), gap):
        uv, q, is_in_front = _warped(inv_depth, T_wc, K, i, j)
        seen, known = known_sample(inv_depth[j], uv, None if mask is None else mask[j])
        counts = known & is_in_front & (inv_depth[i] > 0)
        counts = counts if mask is None else counts & mask[i]
        if true_inv_depth is not None:
            counts = counts & _truly_seen(true_inv_depth, T_wc, K, i, j)
        z_warped = q[..., 2] / inv_depth[i].clamp_min(1e-12)
        error = (z_warped * seen - 1).abs()[counts]  # |z_warped - z_j| / z_j
        total += float(error.clamp(max=MAX_ERROR).double().sum())
        count += int(counts.sum())
    if count == 0:
        raise EvaluationError(f"no pixel of frames {gap} apart can be compared: they share no known depth")
    return 100 * total / count


def _truly_seen(true_inv_depth: Tensor, T_wc: Tensor, K: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """(B, h, w) bool: the true point of a pixel of frames i is what frames j truly show there."""
    uv, q, is_in_front = _warped(true_inv_depth, T_wc, K, i, j)
    there = sample(true_inv_depth[j][:, None], uv, mode="nearest")[:, 0]
    ratio = q[..., 2] / true_inv_depth[i].clamp_min(1e-12) * there
    return is_in_front & (true_inv_depth[i] > 0) & (there > 0) & ((ratio - 1).abs() < SAME_POINT)


def temporal_alignment_errors(
    inv_depth: Tensor,
    T_wc: Tensor,
    K: Tensor,
    mask: Tensor | None = None,
    gaps: Sequence[int] = GAPS,
    true_inv_depth: Tensor | None = None,
) -> dict[int, float]:
    """The temporal alignment error by gap, without gaps longer than the video or whose frames share no known depth."""
    errors = {}
    for gap in gaps:
        if gap < len(inv_depth):
            try:
                errors[gap] = temporal_alignment_error(inv_depth, T_wc, K, gap, mask, true_inv_depth)
            except EvaluationError:
                continue
    return errors


def photometric_error(
    images: Tensor, inv_depth: Tensor, T_wc: Tensor, K: Tensor, gap: int, mask: Tensor | None = None
) -> float:
    """Mean absolute difference of colour between frames i and i + gap, both ways, after image j has been warped to i
    by depth and poses; as a share of the same mean, over the same pixels, without any warp.

    1: the depth explains nothing. Points hidden in j count, those outside its image do not.

    Args:
        images: (N, 3, h, w) float RGB in [0, 1].
        inv_depth, T_wc, K: of the video.
        gap: frames between i and j.
        mask: (N, h, w) bool, pixels that may count (of both frames); None takes all.

    Raises:
        EvaluationError: if no pixel can be compared, or the images do not change at all.
        ValueError: if `gap` is not in 1..N - 1.
    """
    warped_total, still_total = 0.0, 0.0
    for i, j in frame_pairs(len(inv_depth), gap):
        uv, _, is_in_front = _warped(inv_depth, T_wc, K, i, j)
        allowed = torch.ones_like(inv_depth[j]) if mask is None else mask[j].to(inv_depth)
        seen = sample(torch.cat([images[j], allowed[:, None]], 1), uv)
        counts = (seen[:, 3] > 1 - UNKNOWN_SHARE) & is_in_front & (inv_depth[i] > 0)
        counts = counts if mask is None else counts & mask[i]
        warped_total += float((seen[:, :3] - images[i]).abs().mean(1)[counts].double().sum())
        still_total += float((images[j] - images[i]).abs().mean(1)[counts].double().sum())
    if still_total == 0:
        raise EvaluationError(f"no pixel of frames {gap} apart can be compared, or the images do not change")
    return warped_total / still_total


def reprojection_px(
    inv_depth_i: Tensor, uv_ij: Tensor, weight: Tensor, T_ji: Tensor, K: Tensor, stride: int = 1
) -> tuple[Tensor, Tensor]:
    """Distance between where depth and pose say that the cells of i lie in j, and where they were measured.

    The median of an edge: a few wrong measurements do not move it. A point behind camera j counts as infinitely far.

    Args:
        inv_depth_i: (E, h, w) inverse depth in view i, 0 unknown.
        uv_ij: (E, h, w, 2) measured positions in view j, cells.
        weight: (E, h, w); cells of weight 0 do not count, the others count the same.
        T_ji: (E, 4, 4) view j from view i.
        K: (3, 3) or (E, 3, 3) intrinsics at the size of the cells.
        stride: pixels of a cell's side; 1 gives cells.

    Returns:
        error: (E,) pixels; 0 where no cell counts.
        cells: (E,) how many count.
    """
    uv, _, is_in_front = reproject(inv_depth_i, T_ji, K.expand(len(T_ji), 3, 3))
    distance = torch.where(is_in_front, stride * (uv - uv_ij).norm(dim=-1), torch.inf)
    counts = (weight > 0) & (inv_depth_i > 0)
    median = torch.where(counts, distance, torch.nan).flatten(1).nanmedian(1).values
    cells = counts.sum((1, 2))
    return torch.where(cells > 0, median, torch.zeros_like(median)), cells


def log_ratio(
    inv_depth_i: Tensor, inv_depth_j: Tensor, uv_ij: Tensor, weight: Tensor, T_ji: Tensor, K: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean `|log(z_ij / z_j(f))|` of an edge: the depth in camera j of the points of i, against j's own depth at the
    measured positions f.

    Cells whose sample of j has an unknown pixel or lies outside do not count. The depth of a point behind camera j is
    taken as the least that `reproject` gives.

    Args:
        inv_depth_i, inv_depth_j: (E, h, w) inverse depth of both views, 0 unknown.
        uv_ij, weight, T_ji, K: as for `reprojection_px`.

    Returns:
        error: (E,); 0 where no cell counts.
        cells: (E,) how many count.
    """
    _, q, _ = reproject(inv_depth_i, T_ji, K.expand(len(T_ji), 3, 3))
    seen, known = known_sample(inv_depth_j, uv_ij)
    counts = known & (weight > 0) & (inv_depth_i > 0)
    ratio = q[..., 2] / inv_depth_i.clamp_min(1e-12) * seen  # z_ij / z_j(f)
    error = torch.where(counts, ratio, torch.ones_like(ratio)).log().abs().sum((1, 2))
    cells = counts.sum((1, 2))
    return error / cells.clamp_min(1), cells


def frame_pairs(count: int, gap: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of frame numbers i and j, (B,) each: at most MAX_PAIRS pairs spread evenly over the video, both ways.

    Raises:
        ValueError: if `gap` is not in 1..count - 1.
    """
    if not 1 <= gap < count:
        raise ValueError(f"the gap must be in 1..{count - 1} for {count} frames, got {gap}")
    pairs = count - gap
    first = torch.linspace(0, pairs - 1, min(MAX_PAIRS, pairs), dtype=torch.float64).round().long()
    i, j = torch.cat([first, first + gap]), torch.cat([first + gap, first])
    yield from zip(i.split(BATCH), j.split(BATCH))


def _warped(inv_depth: Tensor, T_wc: Tensor, K: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`reproject` of frames i (B,) into frames j (B,)."""
    return reproject(inv_depth[i], se3.inverse(T_wc[j]) @ T_wc[i], K.expand(len(i), 3, 3))
