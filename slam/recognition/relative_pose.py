"""Relative pose and scale of a keyframe and a distant image, as loop closure and relocalisation need them."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from slam.frames import Keyframe, Keypoints
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.recognition.keypoints import KeypointConfig, match_keypoints, solve_pnp

MIN_CONFIDENCE = 0.3  # of a depth that is used
MIN_CELLS = 100  # with depth in both keyframes, for a ratio of scales
TURN_DEG = 3.0  # between the rays of one point after a rotation that explains them: what parallax may add
TURN_TRIALS, MIN_TURNED = 100, 8  # pairs of keypoints that are tried, and keypoints that one rotation must explain


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


def turn_from_keypoints(a: Keypoints, b: Keypoints, K: np.ndarray, config: KeypointConfig) -> Tensor | None:
    """The rotation (4, 4) of camera b from camera a, `T_ba`, that most of their keypoints agree on, but for parallax;
    None if few do. K: (3, 3) of both."""
    pairs = match_keypoints(a, b, config)
    if len(pairs) < MIN_TURNED:
        return None
    rays_a, rays_b = _rays(a.uv[pairs[:, 0]], K), _rays(b.uv[pairs[:, 1]], K)
    rng = np.random.default_rng(0)  # the same input gives the same rotation
    trials = np.stack([rng.choice(len(pairs), 2, replace=False) for _ in range(TURN_TRIALS)])
    R_ba = _turns(rays_a[trials], rays_b[trials])
    limit = 2 * np.sin(np.radians(TURN_DEG) / 2)  # chord
    apart = np.linalg.norm(rays_b - np.einsum("tij,nj->tni", R_ba, rays_a), axis=-1)
    best = apart[np.minimum(apart, limit).sum(1).argmin()]
    agree = best < limit
    if agree.sum() < MIN_TURNED:
        return None
    T_ba = se3.identity()
    T_ba[:3, :3] = torch.from_numpy(_turns(rays_a[agree][None], rays_b[agree][None])[0])
    return T_ba


def _rays(uv: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(N, 3) unit vectors of pixels (N, 2)."""
    rays = np.concatenate([(uv - K[[0, 1], 2]) / K[[0, 1], [0, 1]], np.ones((len(uv), 1))], 1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _turns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotations that turn vectors a (T, N, 3) into b best (Kabsch 1976)."""
    U, _, Vt = np.linalg.svd(np.einsum("tni,tnj->tij", b, a))
    signs = np.ones((len(a), 3))
    signs[:, 2] = np.linalg.det(U @ Vt)
    return (U * signs[:, None]) @ Vt


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
