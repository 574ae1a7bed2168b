"""Rendered views: images and exact depth of scenes, batched, on the device of the scenes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from slam.geometry.camera import scaled_intrinsics
from slam.rendering.casting import Rays, cast, make_rays
from slam.rendering.primitives import Scenes
from slam.rendering.shading import shade


@dataclass(frozen=True, eq=False)
class Rendered:
    """B views."""

    image: Tensor  # (B, 3, H, W) float32 RGB in [0, 1]
    depth: Tensor  # (B, H, W) float32 z-depth, metres, exact at the pixel centre


def render(
    scenes: Scenes,
    T_wc: Tensor,
    K: Tensor,
    height: int,
    width: int,
    *,
    row_T_wc: Tensor | None = None,
    rays_c: Tensor | None = None,
    supersample: int = 1,
) -> Rendered:
    """Look at scenes.

    Args:
        scenes: S scenes.
        T_wc: (B, 4, 4) with B a multiple of S: the first B / S views are of scene 0, and so on.
        K: (B, 3, 3) or (3, 3) intrinsics of this image size, pixels.
        row_T_wc: (B, H, 4, 4) pose at the time of each row (rolling shutter); T_wc is then unused but for its count.
        rays_c: (H, W, 3) rays of the pixel centres, camera frame, z = 1, of a lens that is no pinhole; K then only says
            how far pixels are apart.
        supersample: colour is the mean of this many squared rays a pixel (smooth edges, as many times slower);
            depth stays that of the centre.

    Raises:
        ValueError: if B is not a multiple of S, `row_T_wc` does not fit, or `rays_c` are to be supersampled.
    """
    B, S = len(T_wc), len(scenes)
    if B == 0 or B % S:
        raise ValueError(f"need the same count of views for each of {S} scenes, got {B} poses")
    if row_T_wc is not None and row_T_wc.shape != (B, height, 4, 4):
        raise ValueError(f"row_T_wc must be {(B, height, 4, 4)}, got {tuple(row_T_wc.shape)}")
    T_wc = T_wc.to(scenes.device, torch.float32)
    K = K.to(scenes.device, torch.float32).expand(B, 3, 3)
    if row_T_wc is not None:
        row_T_wc = row_T_wc.to(scenes.device, torch.float32)
    if supersample > 1 and rays_c is not None:
        raise ValueError("views of a lens that is no pinhole cannot be supersampled")
    if supersample > 1:
        rows = None if row_T_wc is None else row_T_wc.repeat_interleave(supersample, 1)
        size = (supersample * height, supersample * width)
        fine = render(scenes, T_wc, scaled_intrinsics(K, supersample), *size, row_T_wc=rows)
        rays = make_rays(T_wc, K, height, width, B // S, row_T_wc)
        depth = rays.image(cast(scenes, rays).depth[:, None], height, width)[:, 0]
        return Rendered(torch.nn.functional.avg_pool2d(fine.image, supersample), depth.contiguous())
    rays = make_rays(T_wc, K, height, width, B // S, row_T_wc, rays_c)
    hits = cast(scenes, rays)
    depth = rays.image(hits.depth[:, None], height, width)[:, 0]
    pixel_angle = (1 / K[:, 0, 0]).repeat_interleave(len(rays.scene) // B)
    image = rays.image(shade(scenes, rays, hits, pixel_angle), height, width)
    return Rendered(image.contiguous(), depth.contiguous())


def render_depth(scenes: Scenes, T_wc: Tensor, K: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) z-depth alone, arguments as for `render`."""
    rays = _rays(scenes, T_wc, K, height, width, None)
    return rays.image(cast(scenes, rays).depth[:, None], height, width)[:, 0].contiguous()


def render_primitives(
    scenes: Scenes, T_wc: Tensor, K: Tensor, height: int, width: int, *, row_T_wc: Tensor | None = None
) -> Tensor:
    """(B, H, W) int64 which primitive of its scene each pixel centre shows, arguments as for `render`."""
    rays = _rays(scenes, T_wc, K, height, width, row_T_wc)
    index = cast(scenes, rays).primitive % scenes.kind.shape[1]
    return rays.image(index[:, None], height, width)[:, 0].contiguous()


def _rays(scenes: Scenes, T_wc: Tensor, K: Tensor, height: int, width: int, row_T_wc: Tensor | None) -> Rays:
    B = len(T_wc)
    T_wc = T_wc.to(scenes.device, torch.float32)
    K = K.to(scenes.device, torch.float32).expand(B, 3, 3)
    if row_T_wc is not None:
        row_T_wc = row_T_wc.to(scenes.device, torch.float32)
    return make_rays(T_wc, K, height, width, B // len(scenes), row_T_wc)
