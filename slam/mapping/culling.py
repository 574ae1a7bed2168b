"""Which keyframe the map can spare: the oldest whose surface others see as well.

Reference: Mur-Artal, Montiel, Tardos, ORB-SLAM, T-RO 2015, sec. VI-E.
"""

import torch

from slam.frames import Keyframe
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import in_image

ASKED = 50  # oldest keyframes that are looked at in one go
WITNESSES = 3  # other keyframes that must see a point
REDUNDANT = 0.9  # part of the points seen so at which a keyframe is spared without loss
MAX_DEPTH_DIFFERENCE = 0.1  # relative: beyond it the other one sees something else
MAX_COARSENING = 1.5  # depth ratio beyond which the other one sees it too coarsely
STEP = 8  # cells between the points that are asked


def most_redundant(keyframes: tuple[Keyframe, ...], protected: set[int]) -> Keyframe | None:
    """The oldest redundant keyframe, or else the most redundant of the oldest; None if all are protected."""
    asked = [n for n, k in enumerate(keyframes) if k.id not in protected][:ASKED]
    if not asked:
        return None
    shares = covisible_ratios(keyframes, asked, REDUNDANT)
    return keyframes[asked[int(torch.tensor(shares).argmax())]]


def covisible_ratios(keyframes: tuple[Keyframe, ...], asked: list[int], enough: float = 2.0) -> list[float]:
    """Of each asked one, the part of its points that WITNESSES others see at the same depth and as finely; up to the
    first that has `enough`."""
    inv_depth = torch.stack([k.coarse.value for k in keyframes]).double()
    T_cw = se3.inverse(torch.stack([k.T_wc for k in keyframes]))
    N, h, w = inv_depth.shape
    view = keyframes[0].view
    K = scaled_intrinsics(view.K, w / view.image.size[1])
    v, u = torch.meshgrid(torch.arange(STEP // 2, h, STEP), torch.arange(STEP // 2, w, STEP), indexing="ij")
    rays = torch.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], torch.ones_like(u)], -1).flatten(0, 1)
    witness = torch.arange(N)[:, None]
    shares = []
    for n in asked:
        d = inv_depth[n, v, u].flatten()
        T = T_cw @ keyframes[n].T_wc
        points = (rays / d[:, None]) @ T[:, :3, :3].mT + T[:, None, :3, 3]  # (N, points, 3)
        z = points[..., 2]
        uv = points[..., :2] / z.clamp_min(1e-6)[..., None] * K[[0, 1], [0, 1]] + K[:2, 2]
        at = uv.round().long()
        theirs = inv_depth[witness, at[..., 1].clamp(0, h - 1), at[..., 0].clamp(0, w - 1)]
        seen = (z > 1e-6) & in_image(uv, h, w) & ((theirs * z - 1).abs() < MAX_DEPTH_DIFFERENCE)
        seen &= z * d < MAX_COARSENING
        seen[n] = False
        shares.append(float((seen.sum(0) >= WITNESSES).double().mean()))
        if shares[-1] >= enough:
            break
    return shares
