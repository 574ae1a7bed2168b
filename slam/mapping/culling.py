"""Which keyframe the map can spare: the oldest whose surface others see as well.

Reference: Mur-Artal, Montiel, Tardos, ORB-SLAM, T-RO 2015, sec. VI-E.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from slam.frames import Keyframe
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import in_image, project, rays

MAX_CANDIDATES = 50  # oldest keyframes that are looked at in one go
MIN_OBSERVERS = 3  # other keyframes that must see a point
REDUNDANT = 0.9  # part of the points seen so at which a keyframe is spared without loss
MAX_DEPTH_DIFFERENCE = 0.1  # relative: beyond it the other one sees something else
MAX_COARSENING = 1.5  # depth ratio beyond which the other one sees it too coarsely
STEP = 8  # cells between the points that are looked for in the others


def most_redundant(keyframes: tuple[Keyframe, ...], protected: set[int]) -> Keyframe | None:
    """The oldest redundant keyframe, or else the most redundant of the oldest; None if all are protected."""
    candidates = [n for n, k in enumerate(keyframes) if k.id not in protected][:MAX_CANDIDATES]
    if not candidates:
        return None
    ratios = covisible_ratios(keyframes, candidates, REDUNDANT)
    return keyframes[candidates[int(torch.tensor(ratios).argmax())]]


def view_distances(keyframes: Sequence[Keyframe], T_wc: Tensor) -> Tensor:
    """How far keyframes of one map are from views, in angle (rad) and in shift by their mean inverse depth.

    Args:
        T_wc: (M, 4, 4) float64 of the views.

    Returns:
        (M, N), for each view and keyframe.
    """
    T_kc = se3.inverse(torch.stack([k.T_wc for k in keyframes])) @ T_wc[:, None]
    inv_depth = torch.stack([k.coarse.value for k in keyframes]).mean((1, 2)).cpu().double()
    return torch.hypot(T_kc[..., :3, 3].norm(dim=-1) * inv_depth, se3.angle_rad(T_kc))


def covisible_ratios(keyframes: tuple[Keyframe, ...], candidates: list[int], enough: float = 2.0) -> list[float]:
    """For each candidate, the part of its points that at least MIN_OBSERVERS other keyframes of its map see at the same
    depth and at a similar resolution; the list ends with the first ratio that is `enough`.

    Args:
        keyframes: of one camera.
        candidates: positions in `keyframes`.
    """
    inv_depth = torch.stack([k.coarse.value for k in keyframes]).cpu().double()
    T_cw = se3.inverse(torch.stack([k.T_wc for k in keyframes]))
    N, h, w = inv_depth.shape
    view = keyframes[0].view
    K = scaled_intrinsics(view.K, w / view.image.size[1])
    grid = (slice(STEP // 2, None, STEP), slice(STEP // 2, None, STEP))
    r = rays(K[None], h, w)[0][grid].flatten(0, 1)
    every = torch.arange(N)[:, None]
    map_id = torch.tensor([k.map_id for k in keyframes])
    same_map = map_id[:, None] == map_id
    ratios = []
    for n in candidates:
        d = inv_depth[n][grid].flatten()
        T = T_cw @ keyframes[n].T_wc
        points = (r / d[:, None]) @ T[:, :3, :3].mT + T[:, None, :3, 3]  # (N, points, 3)
        z = points[..., 2]
        in_front = z > 1e-6
        uv = project(torch.where(in_front[..., None], points, torch.ones_like(points)), K.expand(N, 3, 3))
        u, v = uv.round().long().unbind(-1)
        observed = inv_depth[every, v.clamp(0, h - 1), u.clamp(0, w - 1)]
        seen = in_front & in_image(uv, h, w) & ((observed * z - 1).abs() < MAX_DEPTH_DIFFERENCE)
        seen &= (z * d < MAX_COARSENING) & same_map[n][:, None]
        seen[n] = False
        ratios.append(float((seen.sum(0) >= MIN_OBSERVERS).double().mean()))
        if ratios[-1] >= enough:
            break
    return ratios
