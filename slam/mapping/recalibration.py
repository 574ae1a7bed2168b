"""Keyframes of a camera that turned out to be another: new intrinsics, and new pixels where the lens bends more."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from slam.frames import Image, Keyframe, Keypoints, Recalibration, View
from slam.geometry import se3
from slam.geometry.camera import pixel_grid, sample
from slam.inv_depth import InvDepth


def recalibrated_by(keyframe: Keyframe, changes: Iterable[Recalibration]) -> Keyframe:
    """The keyframe, made before any of the changes or between two, as of the camera after them all."""
    for change in changes:
        keyframe = recalibrated(keyframe, change)
    return keyframe


def recalibrated(keyframe: Keyframe, change: Recalibration) -> Keyframe:
    """The keyframe with the new intrinsics; pose and depths stay, at the pixels that show the same things. Itself if
    its view was not made as before the change."""
    if not torch.equal(keyframe.view.K, change.before.pinhole.matrix()):
        return keyframe
    view = recalibrated_view(keyframe.view, change)
    if not change.is_warp:
        return replace(keyframe, view=view)
    return replace(
        keyframe,
        view=view,
        dense=_warped(keyframe.dense, change, keyframe.view.image.size),
        coarse=_warped(keyframe.coarse, change, keyframe.view.image.size),
        prior=None if keyframe.prior is None else _warped(keyframe.prior, change, keyframe.view.image.size),
        static=None,
        keypoints=None if keyframe.keypoints is None else _moved(keyframe.keypoints, change),
    )


def recalibrated_motion(T: Tensor, zoom: float) -> Tensor:
    """Motions (..., 4, 4) between views, to first order as the new focal length shows them, in the same unit of length:
    turns and shifts across the axis are so much smaller, those about and along it stay."""
    xi = se3.log(T)
    return se3.exp(xi / xi.new_tensor([zoom, zoom, 1, zoom, zoom, 1]))


def pixels_of_cells(cells: Tensor, stride: float, step: int = 1) -> Tensor:
    """Cells (..., 2) of a grid that has every `step`-th one of `stride` pixels -> pixels, centre to centre."""
    return (cells * step + 0.5) * stride - 0.5


def cells_of_pixels(uv: Tensor, stride: float, step: int = 1) -> Tensor:
    """The inverse of `pixels_of_cells`."""
    return ((uv + 0.5) / stride - 0.5) / step


@lru_cache(16)  # the same for all keyframes and all flows between them
def origin_of_cells(change: Recalibration, size: tuple[int, int], stride: float, step: int = 1) -> Tensor:
    """(hc, wc, 2) float64: the cells of views as they were, that the cells of views show now."""
    cells = pixel_grid(*size, like=torch.empty(0, dtype=torch.float64))
    return cells_of_pixels(change.origin(pixels_of_cells(cells, stride, step)), stride, step)


def recalibrated_view(view: View, change: Recalibration) -> View:
    """The view as made of the camera after a change."""
    view = replace(view, K=change.after.pinhole.matrix())
    if not change.is_warp:
        return view
    h, w = view.image.size
    uv = origin_of_cells(change, (h, w), 1.0)
    rgb = sample(view.image.channels[None].float(), uv[None].float(), padding="border")[0]
    depth, mask = view.sensor_depth, view.image.mask
    if depth is not None:
        depth = sample(torch.from_numpy(depth)[None, None], uv[None].float(), mode="nearest")[0, 0].numpy()
    if mask is not None:
        mask = sample(torch.from_numpy(mask).float()[None, None], uv[None].float(), padding="border")[0, 0].numpy() >= 1
    image = Image(rgb.round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy(), mask)
    return replace(view, image=image, sensor_depth=depth)


def _warped(inv_depth: InvDepth, change: Recalibration, size: tuple[int, int]) -> InvDepth:
    uv = origin_of_cells(change, inv_depth.size, size[1] / inv_depth.size[1]).to(inv_depth.value)
    both = torch.stack([inv_depth.value, inv_depth.sigma])[None]
    is_holed = not bool(inv_depth.known.all())  # between a hole and what is known nothing can be interpolated
    value, sigma = sample(both, uv[None], padding="border", mode="nearest" if is_holed else "bilinear")[0]
    return InvDepth(value, sigma)


def _moved(keypoints: Keypoints, change: Recalibration) -> Keypoints:
    uv = change.moved(torch.from_numpy(keypoints.uv).double())
    return replace(keypoints, uv=uv.float().numpy())
