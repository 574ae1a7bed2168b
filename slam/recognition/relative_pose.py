"""Places seen before: pose and scale between a keyframe and an image that may be far from it."""

import numpy as np
import torch
from torch import Tensor

from slam.frames import Keyframe, Keypoints
from slam.geometry.camera import scaled_intrinsics
from slam.recognition.keypoints import KeypointConfig, match_keypoints, solve_pnp

SURE = 0.3  # confidence of a depth that counts
MIN_CELLS = 100  # with depth from both sides, for a ratio of scales


def pose_from_keypoints(old: Keyframe, keypoints: Keypoints, K: np.ndarray, config: KeypointConfig) -> Tensor | None:
    """Pose (4, 4) of an image from a keyframe, `T_no`, by its keypoints on the keyframe's depth."""
    assert old.keypoints is not None, "the backend has not looked at this keyframe yet"
    pairs = match_keypoints(old.keypoints, keypoints, config)
    uv = old.keypoints.uv[pairs[:, 0]]
    h, w = old.dense.size
    u, v = np.clip(np.rint(uv).astype(np.int64), 0, [w - 1, h - 1]).T
    inv_depth = old.dense.value.numpy()[v, u]
    known = (inv_depth > 0) & (old.dense.confidence.numpy()[v, u] > SURE)
    found = solve_pnp(uv[known], inv_depth[known], keypoints.uv[pairs[known, 1]], K, config)
    return None if found is None else torch.from_numpy(found[0])


def scale_ratio(old: Keyframe, new: Keyframe, T_no: Tensor, stride: int) -> float | None:
    """How many units of the old keyframe one unit of the new one is, by the depth that both have of one surface."""
    seen = old.coarse.warped(T_no, scaled_intrinsics(new.view.K, 1 / stride))
    both = (seen.confidence > SURE) & (new.coarse.confidence > SURE)
    return float((new.coarse.value / seen.value)[both].median()) if int(both.sum()) >= MIN_CELLS else None


def median_inv_depth(keyframe: Keyframe) -> float:
    """Of the cells; 1 / map unit."""
    return float(keyframe.coarse.value.median())
