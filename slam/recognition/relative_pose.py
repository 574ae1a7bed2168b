"""Relative pose and scale of a keyframe and a distant image, as loop closure and relocalisation need them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from slam.frames import Keyframe, Keypoints
from slam.geometry.camera import scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.recognition.keypoints import KeypointConfig, match_keypoints, solve_pnp

MIN_CONFIDENCE = 0.3  # of a depth that is used
MIN_CELLS = 100  # with depth in both keyframes, for a ratio of scales


def pose_from_keypoints(old: Keyframe, keypoints: Keypoints, K: np.ndarray, config: KeypointConfig) -> Tensor | None:
    """Pose (4, 4) of an image from a keyframe, `T_no`, by its keypoints on the keyframe's depth."""
    assert old.keypoints is not None, "the backend has not looked at this keyframe yet"
    pairs = match_keypoints(old.keypoints, keypoints, config)
    uv = old.keypoints.uv[pairs[:, 0]]
    h, w = old.dense.size
    u, v = np.clip(np.rint(uv).astype(np.int64), 0, [w - 1, h - 1]).T
    depth = InvDepth(old.dense.value[v, u], old.dense.sigma[v, u]).on_host()
    inv_depth, known = depth.value.numpy(), (depth.confidence > MIN_CONFIDENCE).numpy()
    found = solve_pnp(uv[known], inv_depth[known], keypoints.uv[pairs[known, 1]], K, config)
    return None if found is None else torch.from_numpy(found[0])


def scale_ratio(old: Keyframe, new: Keyframe, T_no: Tensor, stride: int) -> float | None:
    """Unit of length of the new keyframe, in units of the old one: the median ratio of their inverse depths.

    Args:
        T_no: (4, 4) new from old, in units of the old one.
        stride: side of a cell, pixels.

    Returns:
        None where fewer than MIN_CELLS cells have a confident depth in both.
    """
    seen = old.coarse.warped(T_no, scaled_intrinsics(new.view.K, 1 / stride))
    both = (seen.confidence > MIN_CONFIDENCE) & (new.coarse.confidence > MIN_CONFIDENCE)
    return float((new.coarse.value / seen.value)[both].median()) if int(both.sum()) >= MIN_CELLS else None


def median_inv_depth(keyframe: Keyframe) -> float:
    """Median inverse depth of a keyframe's cells, 1 / map unit."""
    return float(keyframe.coarse.value.median())


def median_inv_depths(keyframes: Sequence[Keyframe]) -> Tensor:
    """`median_inv_depth` of each, (N,) float64."""
    return torch.stack([k.coarse.value for k in keyframes]).flatten(1).median(1).values.cpu().double()
