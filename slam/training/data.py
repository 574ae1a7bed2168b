"""Batches for training: crops, colours, pairs of views, and what the networks will meet instead of the truth."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.errors import ConfigError
from slam.geometry import se3
from slam.geometry.camera import sample, scaled_intrinsics
from slam.geometry.flow import in_image, reproject, reprojection_jacobians
from slam.training.clips import Clip

SAME_SURFACE = 0.05  # relative difference of inverse depths up to which two views see the same point


@dataclass(frozen=True)
class AugmentConfig:
    """Changes of the images, each drawn anew; the probabilities are per clip unless said otherwise."""

    crop_height: int = 128  # pixels, multiples of 8; 0: whole images
    crop_width: int = 160
    flip: float = 0.5  # probability of a mirrored world; without, the flow learns a bias
    flip_upright: float = 0.5  # the same, along y: floors become ceilings
    gray: float = 0.1  # probability of no colour
    exposure: float = 0.25  # standard deviation of log gain, per clip; a quarter of it per view
    gamma: float = 0.2  # standard deviation of log gamma, per clip
    blur: float = 0.25  # probability of a softer image, per view
    noise: float = 0.02  # largest standard deviation of pixel noise, per view
    rolling: float = 0.3  # probability that rows are read out one after the other while the camera moves
    rolling_px: float = 1.5  # largest shift of the outermost rows then, mean over a row's pixels, per view
    lens: float = 0.3  # probability that the calibration leaves some distortion
    lens_px: float = 1.0  # largest shift in the corners then

    def __post_init__(self) -> None:
        if self.crop_height % 8 or self.crop_width % 8:
            raise ConfigError(f"crop sides must be multiples of 8, got {self.crop_width}x{self.crop_height}")


@dataclass(frozen=True, eq=False)
class Batch:
    """B clips of V views, on the training device."""

    images: Tensor  # (B, V, 3, H, W) float32 [0, 1]
    inv_depth: Tensor  # (B, V, H, W) float32; 0 unknown
    T_wc: Tensor  # (B, V, 4, 4) float64
    K: Tensor  # (B, 3, 3) float64


@dataclass(frozen=True, eq=False)
class Edges:
    """Pairs (i, j) among the B * V views of a batch, at the stride of the motion network."""

    index: Tensor  # (E, 2) int64
    inv_depth: Tensor  # (E, h, w) true inverse depth of view i; 0 unknown
    K: Tensor  # (E, 3, 3)
    T_ji: Tensor  # (E, 4, 4) true
    true_uv: Tensor  # (E, h, w, 2)
    visible: Tensor  # (E, h, w) bool

    def __getitem__(self, kept: Tensor) -> "Edges":
        return Edges(**{name: value[kept] for name, value in vars(self).items()})


def uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Uniform numbers of a shape in [low, high)."""
    return low + (high - low) * torch.rand(tuple(shape), generator=generator)


def make_batch(
    clips: Sequence[Clip], views: int, config: AugmentConfig, generator: torch.Generator, device: torch.device
) -> Batch:
    """Crop, mirror and colour `views` random views of each clip (order kept or reversed)."""
    images, depths, poses, intrinsics, rows = [], [], [], [], []
    for clip in clips:
        V, _, H, W = clip.images.shape
        chosen = torch.randperm(V, generator=generator)[:views]
        h, w = config.crop_height or H, config.crop_width or W
        top = int(torch.randint(H - h + 1, (), generator=generator))
        left = int(torch.randint(W - w + 1, (), generator=generator))
        window = (slice(top, top + h), slice(left, left + w))
        image, depth = clip.images[chosen][..., window[0], window[1]], clip.inv_depth[chosen][:, window[0], window[1]]
        T_wc, K = clip.T_wc[chosen], clip.K.clone()
        K[0, 2] -= left
        K[1, 2] -= top
        for axis, chance in ((0, config.flip), (1, config.flip_upright)):
            if torch.rand((), generator=generator) < chance:
                image, depth, T_wc, K = mirror(image, depth, T_wc, K, axis)
        rows.append(1 / H)
        images.append(image)
        depths.append(depth)
        poses.append(T_wc)
        intrinsics.append(K)
    inv_depth, T_wc, K = (torch.stack(parts).to(device) for parts in (depths, poses, intrinsics))
    augmented = torch.stack(images).to(device).float() / 255
    augmented = warp(augmented, inv_depth, K, torch.tensor(rows), config, generator)
    return Batch(colour(augmented, config, generator), inv_depth, T_wc, K)


def mirror(
    image: Tensor, inv_depth: Tensor, T_wc: Tensor, K: Tensor, axis: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The views of the mirrored world: images (..., H, W), depths (..., H, W), poses (V, 4, 4), K (3, 3).

    `axis` 0 turns x into -x, 1 turns y into -y.
    """
    sign = torch.ones(4, dtype=T_wc.dtype)
    sign[axis] = -1
    S = torch.diag(sign)
    K = K.clone()
    K[axis, 2] = image.shape[-1 - axis] - 1 - K[axis, 2]
    return image.flip(-1 - axis), inv_depth.flip(-1 - axis), S @ T_wc @ S, K


def warp(
    images: Tensor, inv_depth: Tensor, K: Tensor, row_time: Tensor, config: AugmentConfig, generator: torch.Generator
) -> Tensor:
    """Images as of a rolling shutter and a lens that the pinhole model does not describe; the truth stays.

    Each row is seen from where a constant motion has taken the camera: the true pose is that of the row through the
    principal point, and depth is taken from the same pixel, which the small shift allows. The lens is the same in all
    views of a clip.

    Args:
        images: (B, V, 3, H, W); inv_depth: (B, V, H, W); K: (B, 3, 3), of the same crops.
        row_time: (B,) of a row, where 1 is a whole image.
    """
    B, V, H, W = inv_depth.shape
    rolls = torch.rand(B, 1, generator=generator) < config.rolling
    strength = uniform((B, V), 0, 1, generator) * rolls * config.rolling_px
    bend = uniform((B,), -1, 1, generator) * (torch.rand(B, generator=generator) < config.lens) * config.lens_px
    twist = torch.randn(B, V, 6, generator=generator)
    chosen = (rolls[:, 0] | (bend != 0)).nonzero().squeeze(-1)
    if not len(chosen) or not (config.rolling_px or config.lens_px):
        return images
    strength, bend, twist, row_time = (t[chosen].to(images) for t in (strength, bend, twist, row_time))
    chosen = chosen.to(images.device)
    depths, K = inv_depth[chosen].flatten(0, 1), K[chosen].to(images).repeat_interleave(V, 0)
    eye = torch.eye(4, device=images.device).expand(len(depths), 4, 4)
    rest, q, _ = reproject(depths, eye, K)
    unit = (depths.sum((1, 2)) / (depths > 0).sum((1, 2)).clamp_min(1)).clamp_min(1e-3)[:, None]
    depths = torch.where(depths > 0, depths, unit[..., None])
    # translation and rotation shift about as much
    xi = torch.cat([twist.flatten(0, 1)[:, :3] / unit, twist.flatten(0, 1)[:, 3:]], -1)
    flow = (reprojection_jacobians(q, depths, eye, K)[0] @ xi[:, None, None, :, None]).squeeze(-1)  # pixels
    flow = flow * (2 * strength.flatten() / flow.norm(dim=-1).mean((1, 2)).clamp_min(1e-6))[:, None, None, None]
    offset = rest - K[:, None, None, :2, 2]
    time = offset[..., 1:] * row_time.repeat_interleave(V)[:, None, None, None]  # -1/2 .. 1/2
    corner = 0.5 * (1 / row_time.repeat_interleave(V))[:, None, None, None] * (1 + (4 / 3) ** 2) ** 0.5
    lens = offset * offset.square().sum(-1, keepdim=True) / corner**3 * bend.repeat_interleave(V)[:, None, None, None]
    warped = sample(images[chosen].flatten(0, 1), rest + time * flow + lens, padding="border")
    return images.index_copy(0, chosen, warped.view(-1, V, 3, H, W))


def colour(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Exposure, white balance, gamma, loss of colour and noise on images (B, V, 3, H, W) in [0, 1]."""
    B, V, _, H, W = images.shape
    device = images.device
    gain = torch.randn(B, 1, 1, 1, 1, generator=generator) * config.exposure
    gain = gain + torch.randn(B, V, 1, 1, 1, generator=generator) * config.exposure / 4
    gain = gain + torch.randn(B, 1, 3, 1, 1, generator=generator) * config.exposure / 4
    gamma = (torch.randn(B, 1, 1, 1, 1, generator=generator) * config.gamma).exp()
    gray = (torch.rand(B, 1, 1, 1, 1, generator=generator) < config.gray).to(device)
    level = uniform((B, V, 1, 1, 1), 0, config.noise, generator).to(device)
    noise = torch.randn(B, V, 3, H, W, generator=generator).to(device) if config.noise else torch.zeros_like(images)
    images = images * gain.exp().to(device)
    images = images.clamp(1e-4, 1).pow(gamma.to(device))
    images = torch.where(gray, images.mean(2, keepdim=True), images)
    soft = (torch.rand(B, V, generator=generator) < config.blur).to(device)
    if soft.any():
        images[soft] = F.avg_pool2d(F.pad(images[soft], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (images + level * noise).clamp(0, 1)


def at_cells(inv_depth: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Inverse depth (N, H, W) at the centres of cells of `stride` pixels.

    Returns:
        (N, H / stride, W / stride) mean of the four pixels around each centre, 0 where one is unknown, and bool:
        the four lie on one surface.
    """
    c = stride // 2
    four = torch.stack([inv_depth[:, y::stride, x::stride] for y in (c - 1, c) for x in (c - 1, c)])
    known = (four > 0).all(0)
    value = torch.where(known, four.mean(0), torch.zeros_like(four[0]))
    return value, known & (four.amax(0) < (1 + SAME_SURFACE) * four.amin(0))


def true_flow(
    inv_depth_i: Tensor, inv_depth_j: Tensor, T_ji: Tensor, K: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """True correspondence of edges at the centres of cells.

    Args:
        inv_depth_i, inv_depth_j: (E, H, W) of both views; 0 unknown.
        T_ji, K: (E, 4, 4) true motion and (E, 3, 3) intrinsics at H x W.
        stride: cell size, pixels.

    Returns:
        inv_depth (E, h, w) at the cells, true_uv (E, h, w, 2) in cells, visible (E, h, w) bool: known, not on an edge
        of depth, inside view j and not hidden there.
    """
    cells, smooth = at_cells(inv_depth_i, stride)
    uv, q, valid = reproject(cells, T_ji, scaled_intrinsics(K, 1 / stride))
    h, w = cells.shape[-2:]
    pixel = (uv + 0.5) * stride - 0.5
    seen = sample(inv_depth_j[:, None], pixel, mode="nearest")[:, 0]
    expected = cells / q[..., 2]
    same = (seen - expected).abs() < SAME_SURFACE * expected
    return cells, uv, smooth & valid & same & in_image(uv, h, w)


def all_edges(batch: Batch, stride: int) -> Edges:
    """Both directions of every pair of views of each clip."""
    B, V, H, W = batch.inv_depth.shape
    i, j = (~torch.eye(V, dtype=torch.bool)).nonzero().unbind(-1)
    first = (torch.arange(B) * V)[:, None]
    i, j = (first + i).reshape(-1).to(batch.K.device), (first + j).reshape(-1).to(batch.K.device)
    inv_depth = batch.inv_depth.flatten(0, 1)
    T_wc = batch.T_wc.flatten(0, 1)
    T_ji = se3.inverse(T_wc[j]) @ T_wc[i]
    K = batch.K[i // V]
    cells, uv, visible = true_flow(inv_depth[i], inv_depth[j], T_ji, K, stride)
    return Edges(torch.stack([i, j], -1), cells, scaled_intrinsics(K, 1 / stride), T_ji, uv, visible)


def mean_flow(edges: Edges) -> Tensor:
    """(E,) mean length of the true flow over visible pixels, pixels at the stride; 0 where nothing is visible."""
    h, w = edges.visible.shape[-2:]
    rest, _, _ = reproject(edges.inv_depth, torch.eye(4).expand(len(edges.K), 4, 4).to(edges.T_ji), edges.K)
    length = (edges.true_uv - rest).norm(dim=-1) * edges.visible
    return length.sum((1, 2)) / edges.visible.sum((1, 2)).clamp_min(1)


def pick_edges(
    edges: Edges, count: int, max_flow: float, generator: torch.Generator, min_visible: float = 0.35
) -> Edges:
    """At most `count` random edges with a mean flow below `max_flow` and enough in view."""
    overlap = edges.visible.float().mean((1, 2))
    good = ((overlap > min_visible) & (mean_flow(edges) < max_flow)).nonzero().squeeze(-1)
    order = torch.randperm(len(good), generator=generator)[:count].to(good.device)
    return edges[good[order].sort().values]


def smooth_field(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """(count, height, width) smooth noise of about unit variance: a 3x4 grid of normal numbers, upsampled."""
    grid = torch.randn(count, 1, 3, 4, generator=generator) * 1.3
    return F.interpolate(grid, (height, width), mode="bilinear", align_corners=True)[:, 0]


def perturb_depth(inv_depth: Tensor, generator: torch.Generator) -> Tensor:
    """What a running system has instead of the true inverse depth (E, h, w).

    A third of the edges keep the truth, half get a smooth factor, pixel noise and holes, the rest a constant.
    """
    E, h, w = inv_depth.shape
    strength = uniform((E, 1, 1), 0, 0.3, generator)
    factor = strength * smooth_field(E, h, w, generator) + strength / 3 * torch.randn(E, h, w, generator=generator)
    blocks = torch.rand(E, 1, -(-h // 2), -(-w // 2), generator=generator)
    holes = F.interpolate(blocks, scale_factor=2.0)[:, 0, :h, :w] < uniform((E, 1, 1), 0, 0.3, generator)
    case = torch.rand(E, 1, 1, generator=generator).to(inv_depth.device)
    noisy = torch.where(holes.to(inv_depth.device), 0.0, inv_depth * factor.exp().to(inv_depth.device))
    known = inv_depth > 0
    mean = inv_depth.sum((1, 2), keepdim=True) / known.sum((1, 2), keepdim=True).clamp_min(1)
    constant = mean.expand_as(inv_depth)
    return torch.where(case < 0.33, inv_depth, torch.where(case < 0.83, noisy, constant))


def perturb_pose(T_ji: Tensor, generator: torch.Generator) -> Tensor:
    """Start of the iterations: half of the edges at rest, half at a share of the true motion T_ji (E, 4, 4)."""
    xi = se3.log(T_ji)
    share = torch.rand(len(xi), 1, generator=generator).to(xi)
    noise = 0.1 * torch.randn(len(xi), 6, generator=generator).to(xi)
    moved = share * xi + noise * torch.cat(
        [xi[:, :3].norm(dim=-1, keepdim=True)] * 3 + [xi[:, 3:].norm(dim=-1, keepdim=True)] * 3, -1
    )
    at_rest = torch.rand(len(xi), 1, generator=generator).to(xi) < 0.5
    return se3.exp(torch.where(at_rest, torch.zeros_like(xi), moved))
