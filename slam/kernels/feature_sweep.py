"""Group-wise correlation of the features of a keyframe and its neighbours at each depth hypothesis.

Loops, for float32 on the CPU without gradients: several times faster than tensors there. Places are found along whole
rows and features are read along their channels, which lie last: the compiler turns both into vector instructions.

Reference: Guo et al., Group-wise correlation stereo network, CVPR 2019.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry.camera import sample
from slam.geometry.flow import MIN_DEPTH_RATIO, in_image, project, rays
from slam.kernels.compile import REASSOCIATED, compiled, runs_as_loop

OUTSIDE = -10.0  # pixels: a place outside of any view
NEAR = np.float32(MIN_DEPTH_RATIO)


def correlation_volume(
    matching_k: Tensor, matching_j: Sequence[Tensor], T_jk: Tensor, K: Tensor, hypotheses: Tensor, groups: int
) -> Tensor:
    """Group-wise correlation of the keyframe with its neighbours, for every hypothesis, averaged over the views.

    Args:
        matching_k: (B, C, h, w) features of the keyframes.
        matching_j: M tensors (B, C, h, w) of the neighbours.
        T_jk: (B, M, 4, 4) neighbour from keyframe.
        K: (B, 3, 3) intrinsics at h x w.
        hypotheses: (B, D, h or 1, w or 1) inverse depths.
        groups: G, a divisor of C.

    Returns:
        (B, D, h, w, G + 1): the mean of the views that see the point, and their share among the views.
    """
    if runs_as_loop(matching_k, matching_k, *matching_j, T_jk, K, hypotheses):
        return _by_loops(matching_k, matching_j, T_jk, K, hypotheses, groups)
    B, C, h, w = matching_k.shape
    D, M = hypotheses.shape[1], len(matching_j)
    K = K.to(hypotheses)
    ray = rays(K, h, w)
    d = hypotheses.expand(B, D, h, w)
    keyframe = matching_k.float().view(B, groups, C // groups, 1, h, w)
    total = hypotheses.new_zeros(B, groups, D, h, w)
    count = hypotheses.new_zeros(B, 1, D, h, w)
    for m in range(M):
        T = T_jk[:, m].to(hypotheses)
        turned = ray @ T[:, None, :3, :3].mT  # (B, h, w, 3)
        q = turned[:, None] + d[..., None] * T[:, None, None, None, :3, 3]  # (B, D, h, w, 3)
        ahead = q[..., 2] > MIN_DEPTH_RATIO
        uv = project(torch.cat([q[..., :2], q[..., 2:].clamp_min(MIN_DEPTH_RATIO)], -1), K)
        seen = ahead & in_image(uv, h, w)
        uv = torch.where(seen[..., None], uv, torch.full_like(uv, OUTSIDE))  # reads exactly zero
        warped = sample(matching_j[m].float(), uv.flatten(1, 2)).view(B, groups, C // groups, D, h, w)
        for c in range(C // groups):
            total = torch.addcmul(total, warped[:, :, c], keyframe[:, :, c])
        count = count + seen[:, None]
    volume = torch.cat([total / (count.clamp_min(1) * (C // groups)), count / M], 1)
    return volume.permute(0, 2, 3, 4, 1)


def _by_loops(
    matching_k: Tensor, matching_j: Sequence[Tensor], T_jk: Tensor, K: Tensor, hypotheses: Tensor, groups: int
) -> Tensor:
    """As `correlation_volume`."""
    (B, _, h, w), D = matching_k.shape, hypotheses.shape[1]
    channels_last = matching_k.permute(0, 2, 3, 1), torch.stack([x.permute(0, 2, 3, 1) for x in matching_j], 1)
    keyframe, neighbours = (F.pad(x, (0, 0, 0, 1, 0, 1)) for x in channels_last)  # read beyond the last with weight 0
    volume = torch.empty(B, D, h, w, groups + 1)
    given = (keyframe, neighbours, T_jk, K, hypotheses.expand(B, D, h, w))
    _sweep(*(x.detach().float().contiguous().numpy() for x in given), volume.numpy())
    return volume


@compiled(REASSOCIATED)
def _sweep(
    keyframe: np.ndarray,
    neighbours: np.ndarray,
    T_jk: np.ndarray,
    K: np.ndarray,
    inv_depth: np.ndarray,
    volume: np.ndarray,
) -> None:
    """As `correlation_volume`.

    Args:
        keyframe, neighbours: (B, h + 1, w + 1, C) and (B, M, h + 1, w + 1, C) features.
        T_jk: (B, M, 4, 4).
        K: (B, 3, 3).
        inv_depth: (B, D, h, w) hypotheses.
        volume: (B, D, h, w, G + 1) output.
    """
    B, D, h, w = inv_depth.shape
    M, C = neighbours.shape[1], neighbours.shape[4]
    G = volume.shape[4] - 1
    size = C // G
    u, v, count = np.empty(w, np.float32), np.empty(w, np.float32), np.empty(w, np.float32)
    products = np.empty((w, C), np.float32)
    one = np.float32(1)
    for e in range(B):
        for d in range(D):
            for y in range(h):
                products[:] = 0
                count[:] = 0
                for m in range(M):
                    _places(T_jk[e, m], K[e], inv_depth[e, d, y], y, h, u, v, count)
                    _multiply(keyframe[e, y], neighbours[e, m], u, v, products)
                for x in range(w):
                    share = one / (max(count[x], one) * np.float32(size))
                    for g in range(G):
                        total = np.float32(0)
                        for c in range(g * size, (g + 1) * size):
                            total += products[x, c]
                        volume[e, d, y, x, g] = share * total
                    volume[e, d, y, x, G] = count[x] / np.float32(M)


@compiled(REASSOCIATED, part=True)
def _places(
    T_jk: np.ndarray,
    K: np.ndarray,
    inv_depth: np.ndarray,
    y: int,
    h: int,
    u: np.ndarray,
    v: np.ndarray,
    count: np.ndarray,
) -> None:
    """Where the neighbour sees the pixels of row y; v is -1 where it does not, and count grows by 1 where it does."""
    zero, one = np.float32(0), np.float32(1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    right, bottom = np.float32(len(u) - 1), np.float32(h - 1)
    ray_y = (np.float32(y) - cy) / fy
    for x in range(len(u)):
        ray_x, d = (np.float32(np.int32(x)) - cx) / fx, inv_depth[x]
        qx = T_jk[0, 0] * ray_x + T_jk[0, 1] * ray_y + T_jk[0, 2] + d * T_jk[0, 3]
        qy = T_jk[1, 0] * ray_x + T_jk[1, 1] * ray_y + T_jk[1, 2] + d * T_jk[1, 3]
        qz = T_jk[2, 0] * ray_x + T_jk[2, 1] * ray_y + T_jk[2, 2] + d * T_jk[2, 3]
        z = one / (qz if qz > NEAR else NEAR)
        uj, vj = fx * qx * z + cx, fy * qy * z + cy
        seen = (qz > NEAR) & (uj >= zero) & (uj <= right) & (vj >= zero) & (vj <= bottom)
        u[x] = uj
        v[x] = vj if seen else -one
        count[x] += one if seen else zero


@compiled(REASSOCIATED, part=True)
def _multiply(keyframe: np.ndarray, neighbour: np.ndarray, u: np.ndarray, v: np.ndarray, products: np.ndarray) -> None:
    """Add to products (w, C) those of a row of the keyframe and the neighbour (h + 1, w + 1, C) at (u, v), bilinear."""
    w, C = products.shape
    one, step = np.float32(1), np.uint32(1)
    for x in range(w):
        if v[x] < 0:
            continue
        m, n = np.uint32(v[x]), np.uint32(u[x])
        fu, fv = u[x] - np.float32(n), v[x] - np.float32(m)
        w00, w01, w10, w11 = (one - fu) * (one - fv), fu * (one - fv), (one - fu) * fv, fu * fv
        a, b, c, d = neighbour[m, n], neighbour[m, n + step], neighbour[m + step, n], neighbour[m + step, n + step]
        key, product = keyframe[x], products[x]
        for k in range(C):
            product[k] += key[k] * (w00 * a[k] + w01 * b[k] + w10 * c[k] + w11 * d[k])
