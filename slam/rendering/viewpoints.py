"""Places worth looking from: clear of geometry, with something textured in view."""

import torch
from torch import Tensor

from slam.geometry import se3
from slam.rendering.primitives import NOTHING, ROOM, Scenes, distance
from slam.rendering.renderer import render

CLEARANCE = 0.3  # metres from a viewpoint to any surface
PREVIEW = (24, 32)  # rows, columns of the small images that judge a viewpoint
MIN_MEDIAN_DEPTH, MAX_MEDIAN_DEPTH = 0.4, 8.0  # metres


def default_intrinsics(height: int, width: int) -> Tensor:
    """(3, 3) float64 of a camera of 60 degrees across."""
    f = 0.866 * width
    return torch.tensor([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64)


def preview_intrinsics(K: Tensor, height: int, width: int) -> Tensor:
    """K (..., 3, 3) of a height x width image, for the same field of view at PREVIEW size."""
    sx, sy = PREVIEW[1] / width, PREVIEW[0] / height
    S = torch.tensor([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]], dtype=K.dtype, device=K.device)
    return S @ K


def look_at(position: Tensor, target: Tensor, roll_rad: Tensor | float = 0.0) -> Tensor:
    """T_wc (..., 4, 4) of cameras at `position` (..., 3) looking at `target`, level but for the roll."""
    z = torch.nn.functional.normalize(target - position, dim=-1)
    down = torch.zeros_like(z)
    down[..., 1] = 1
    x = torch.linalg.cross(down, z)
    east = torch.zeros_like(z)
    east[..., 0] = 1
    x = torch.nn.functional.normalize(torch.where(x.norm(dim=-1, keepdim=True) < 1e-3, east, x), dim=-1)
    y = torch.linalg.cross(z, x)
    omega = torch.zeros_like(z)
    omega[..., 2] = torch.as_tensor(roll_rad, dtype=z.dtype, device=z.device)
    return se3.from_rt(torch.stack([x, y, z], -1) @ se3.so3_exp(omega), position)


def uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Float64 numbers of a generator, wherever it lives, as a CPU tensor."""
    drawn = torch.rand(*shape, generator=generator, device=generator.device, dtype=torch.float64)
    return low + (high - low) * drawn.cpu()


def texture_score(image: Tensor) -> Tensor:
    """(B,) share of the pixels of small images (B, 3, h, w) that differ visibly from their neighbours."""
    gray = image.mean(1)
    dx = (gray[:, 1:, 1:] - gray[:, 1:, :-1]).abs()
    dy = (gray[:, 1:, 1:] - gray[:, :-1, 1:]).abs()
    return ((dx + dy) > 0.03).float().mean((1, 2))


def random_targets(scenes: Scenes, count: int, generator: torch.Generator) -> Tensor:
    """(S, count, 3) float64 CPU points on or near the things of each scene, on its walls if it has none."""
    kind, centre, half = (t.cpu().double() for t in (scenes.kind, scenes.centre, scenes.half))
    S, P = kind.shape
    weight = ((kind != NOTHING) & (kind != ROOM)).double() + 1e-6
    pick = (uniform(generator, S, count, 1) * weight.sum(1)[:, None, None] > weight.cumsum(1)[:, None]).sum(-1)
    pick = pick.clamp_max(P - 1)[..., None].expand(-1, -1, 3)
    size = half.gather(1, pick).clamp_max(0.5)
    room_centre, room = centre[:, :1], half[:, :1]
    point = centre.gather(1, pick) + size * uniform(generator, S, count, 3, low=-1, high=1)
    return torch.minimum(torch.maximum(point, room_centre - room), room_centre + room)


def candidates(scenes: Scenes, count: int, generator: torch.Generator) -> Tensor:
    """(S, count, 4, 4) float64 CPU poses, not yet judged: some look at things from 0.4 to 4 m, some across the room."""
    S = len(scenes)
    target = random_targets(scenes, count, generator)
    azimuth = uniform(generator, S, count, low=-torch.pi, high=torch.pi)
    elevation = uniform(generator, S, count, low=-0.35, high=0.9)
    reach = (uniform(generator, S, count) * torch.tensor(10.0).log()).exp() * 0.4
    direction = [elevation.cos() * azimuth.cos(), -elevation.sin(), elevation.cos() * azimuth.sin()]
    position = target + reach[..., None] * torch.stack(direction, -1)
    centre, half = scenes.centre[:, :1].cpu().double(), (scenes.half[:, :1].cpu().double() - CLEARANCE - 0.05)
    position = torch.minimum(torch.maximum(position, centre - half), centre + half)
    anywhere = centre + half * uniform(generator, S, count, 3, low=-1, high=1)
    across = uniform(generator, S, count, 1) < 0.35
    # the other end of the room, on its long side more often
    beyond = centre + (half + 1) * (2 * uniform(generator, S, count, 3).round() - 1) * torch.tensor([1.0, 0.6, 1.0])
    position, target = torch.where(across, anywhere, position), torch.where(across, beyond, target)
    aim = target + 0.15 * reach[..., None] * uniform(generator, S, count, 3, low=-1, high=1)
    roll = uniform(generator, S, count, low=-0.2, high=0.2) * uniform(generator, S, count)
    return look_at(position, aim, roll)


def good_viewpoints(
    scenes: Scenes, generator: torch.Generator, K: Tensor, height: int, width: int, count: int = 10
) -> tuple[Tensor, Tensor]:
    """One viewpoint a scene: the best of some candidates by clearance, depth and texture, with chance mixed in.

    Returns:
        T_wc (S, 4, 4) float64 CPU, and its small depth map (S, *PREVIEW) float32 on the device of the scenes.
    """
    S = len(scenes)
    T_wc = candidates(scenes, count, generator)
    clear = distance(scenes, T_wc[..., :3, 3].to(scenes.device, torch.float32)).cpu()
    small = render(scenes, T_wc.flatten(0, 1), preview_intrinsics(K, height, width), *PREVIEW)
    depth = small.depth.flatten(1).cpu()
    middle, near = depth.median(1).values, depth.quantile(0.05, dim=1)
    score = 2 * texture_score(small.image).cpu().clamp_max(0.5) + depth.log().std(1).clamp_max(0.6)
    score = (score - 2 * ((middle < MIN_MEDIAN_DEPTH) | (middle > MAX_MEDIAN_DEPTH)) - (near < 0.3).float()).view(S, -1)
    score = score + 0.6 * uniform(generator, S, count) - 10 * (CLEARANCE - clear).clamp_min(0) - 5 * (clear < CLEARANCE)
    best = score.argmax(1)
    rows = torch.arange(S)
    return T_wc[rows, best], small.depth.view(S, count, *PREVIEW)[rows.to(scenes.device), best.to(scenes.device)]
