"""Camera motion for training: clips of a few views round a viewpoint, with a wanted amount of image flow."""

import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.camera import pixel_grid
from slam.geometry.flow import in_image, reproject
from slam.rendering.primitives import Scenes, distance
from slam.rendering.renderer import render_depth
from slam.rendering.viewpoints import PREVIEW, default_intrinsics, good_viewpoints, preview_intrinsics, uniform

MIN_FLOW_PX, MAX_FLOW_PX = 2.0, 60.0  # median flow between neighbouring views at 256 columns
MIN_OVERLAP = 0.4  # of a view that its neighbour sees too
MIN_CLEARANCE = 0.25  # metres from a camera to any surface
SHRINK_STEPS = 8


def clip_poses(
    scenes: Scenes,
    views: int,
    generator: torch.Generator,
    motion_scale: float = 1.0,
    K: Tensor | None = None,
    height: int = 192,
    width: int = 256,
) -> Tensor:
    """Views of each scene round a viewpoint, consecutive ones a steady hand's motion apart.

    The median flow between neighbours is spread evenly in its logarithm from 2 px to 2 + 58 * motion_scale px (of 256
    columns), split between translation and rotation at random; it is cut where a camera would come nearer than
    0.25 m to a surface or neighbours would share less than 40 % of their image.

    Args:
        views: V >= 1.
        motion_scale: in [0, 1].
        K: (3, 3) intrinsics for `height` x `width`; by default 60 degrees across.

    Returns:
        (S, V, 4, 4) float64 T_wc on the CPU.

    Raises:
        ValueError: if `views` < 1 or `motion_scale` is outside [0, 1].
    """
    if views < 1 or not 0 <= motion_scale <= 1:
        raise ValueError(f"need views >= 1 and motion_scale in [0, 1], got {views} and {motion_scale}")
    S = len(scenes)
    K = default_intrinsics(height, width) if K is None else K.double().cpu()
    K_small = preview_intrinsics(K, height, width)
    T_wb, depth = good_viewpoints(scenes, generator, K, height, width)
    if views == 1:
        return T_wb[:, None]
    depth = depth.double().cpu()
    span = torch.tensor(MIN_FLOW_PX + (MAX_FLOW_PX - MIN_FLOW_PX) * motion_scale).double() / MIN_FLOW_PX
    wanted = MIN_FLOW_PX * span ** uniform(generator, S) * PREVIEW[1] / 256
    twists = _random_twists(depth, views, generator)
    scale = torch.ones(S, 6, dtype=torch.float64)
    for _ in range(3):
        scale = scale * _correction(depth, T_wb, _poses(T_wb, twists, scale), K_small, wanted)
    T_wc = _poses(T_wb, twists, scale)
    bad = torch.arange(S)  # clips not yet known to be good
    for _ in range(SHRINK_STEPS):
        some = scenes.select(bad.to(scenes.device))
        clear = distance(some, T_wc[bad, :, :3, 3].to(scenes.device, torch.float32)).amin(1).cpu()
        close, apart = clear < MIN_CLEARANCE, overlap(some, T_wc[bad], K_small, *PREVIEW).amin(1) < MIN_OVERLAP
        keep = close | apart
        bad, close, apart = bad[keep], close[keep], apart[keep]
        if not len(bad):
            return T_wc
        wanted[bad] *= torch.where(apart, 0.65, 1.0)
        smaller = scale[bad] * torch.where(apart, 0.65, 1.0)[:, None]
        smaller[:, :3] *= torch.where(close, 0.6, 1.0)[:, None]
        # what translation may not give, rotation does
        gain = _correction(depth[bad], T_wb[bad], _poses(T_wb[bad], twists[bad], smaller), K_small, wanted[bad])
        smaller[:, 3:] *= torch.where(close[:, None], gain.clamp(1, 2), 1.0)
        scale[bad] = smaller
        T_wc[bad] = _poses(T_wb[bad], twists[bad], smaller)
    T_wc[bad] = _poses(T_wb[bad], twists[bad], 0.02 * scale[bad])
    return T_wc


def _correction(depth: Tensor, T_wb: Tensor, T_wc: Tensor, K: Tensor, wanted: Tensor) -> Tensor:
    """(S, 1) factor on the motion that gives the wanted flow."""
    return (wanted / _base_flow(depth, T_wb, T_wc, K).clamp_min(1e-3)).clamp(0.05, 20)[:, None]


def _random_twists(depth: Tensor, views: int, generator: torch.Generator) -> Tensor:
    """(S, V, 6) motion of each view from the base in the base frame, for about unit flow in focal lengths."""
    S = len(depth)
    middle = depth.flatten(1).median(1).values[:, None]
    v = torch.nn.functional.normalize(torch.randn(S, 3, generator=_fork(generator), dtype=torch.float64), dim=-1)
    v = v * middle * torch.tensor([1.0, 0.7, 1.0])
    omega = torch.randn(S, 3, generator=_fork(generator), dtype=torch.float64) * torch.tensor([0.6, 1.0, 0.4])
    orbit = torch.stack([v[:, 1], -v[:, 0], torch.zeros(S)], -1) / middle  # turns back to what it looked at
    keeps_target = uniform(generator, S, 1) < 0.35
    omega = torch.where(keeps_target, uniform(generator, S, 1, low=0.3, high=0.9) * orbit + 0.2 * omega, omega)
    share = uniform(generator, S, 1)  # of translation
    share = torch.where(share < 0.06, 0.0, torch.where(share > 0.9, 1.0, 0.25 + 0.75 * share))
    keeps_target = keeps_target & (share > 0)
    xi = torch.cat([share * v, torch.where(keeps_target, share, 1 - share) * omega], -1)
    bend = 0.25 * xi.norm(dim=-1, keepdim=True) * torch.randn(S, 6, generator=_fork(generator), dtype=torch.float64)
    bend = bend * torch.cat([share, share, share, 1 - share, 1 - share, 1 - share], -1) / views
    s = torch.arange(views) - (views - 1) / 2 + uniform(generator, S, views, low=-0.15, high=0.15)
    return s[..., None] * xi[:, None] + s.square()[..., None] * bend[:, None]


def _fork(generator: torch.Generator) -> torch.Generator:
    """A CPU generator that continues from the given one, wherever that lives."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator().manual_seed(seed)


def _poses(T_wb: Tensor, twists: Tensor, scale: Tensor) -> Tensor:
    return T_wb[:, None] @ se3.exp(twists * scale[:, None])


def _base_flow(depth: Tensor, T_wb: Tensor, T_wc: Tensor, K: Tensor) -> Tensor:
    """(S,) median flow of the base view's points between neighbours, averaged over the clip; preview pixels."""
    S, V = T_wc.shape[:2]
    T_cb = (se3.inverse(T_wc) @ T_wb[:, None]).flatten(0, 1)
    uv, _, _ = reproject(1 / depth.repeat_interleave(V, 0), T_cb, K.expand(S * V, 3, 3))
    step = uv.view(S, V, -1, 2).diff(dim=1).norm(dim=-1)
    return step.median(-1).values.mean(-1)


def neighbour_flow(scenes: Scenes, T_wc: Tensor, K: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Exact flow from each view to the next, by rendered depth.

    Args:
        T_wc: (S, V, 4, 4); K: (3, 3) for height x width.

    Returns:
        (S, V - 1, H, W, 2) pixels, and (S, V - 1, H, W) bool: lands inside the next view.
    """
    S, V = T_wc.shape[:2]
    depth = render_depth(scenes, T_wc.flatten(0, 1), K, height, width).double().cpu().view(S, V, height, width)
    T_ji = se3.inverse(T_wc[:, 1:]) @ T_wc[:, :-1]
    uv, _, valid = reproject(1 / depth[:, :-1].flatten(0, 1), T_ji.flatten(0, 1), K.double().expand(S * (V - 1), 3, 3))
    inside = valid & in_image(uv, height, width, margin=-0.5)
    flow = uv - pixel_grid(height, width, like=uv)
    return flow.view(S, V - 1, height, width, 2), inside.view(S, V - 1, height, width)


def overlap(scenes: Scenes, T_wc: Tensor, K: Tensor, height: int, width: int) -> Tensor:
    """(S, V - 1) share of each view's pixels that land inside the next view (arguments of `neighbour_flow`)."""
    return neighbour_flow(scenes, T_wc, K, height, width)[1].double().mean((-1, -2))
