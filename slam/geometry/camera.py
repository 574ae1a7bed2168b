"""Cameras of any lens model of `lens`, and the pixel-centre conventions.

Pixel (0, 0) is the centre of the top-left pixel; `uv` is (column, row).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slam.errors import CalibrationError, shown
from slam.geometry.lens import COEFFICIENTS, RADTAN, TANGENTIAL, angle, distort, limit, undistort


@dataclass(frozen=True)
class Camera:
    """Intrinsics of images of one size, pixels, and their lens; the pinhole has the model RADTAN and no distortion."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()  # as `model` takes them
    model: str = RADTAN  # of the lens, see `slam.geometry.lens`
    undistort_hfov_deg: float | None = None  # horizontal field of view of its undistorted images; None: by the lens
    is_guess: bool = False  # a typical camera stands for one that is not known

    def __post_init__(self) -> None:
        lengths = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not all(map(math.isfinite, lengths)):
            raise CalibrationError(f"a camera needs finite numbers, got {', '.join(f'{x:g}' for x in lengths)}")
        if self.width < 1 or self.height < 1 or not (self.fx > 0 and self.fy > 0):
            raise CalibrationError(
                f"a camera needs a positive size and focal length, got {self.width}x{self.height}, "
                f"fx={self.fx}, fy={self.fy}"
            )
        if self.model not in COEFFICIENTS:
            raise CalibrationError(f"unknown lens model {shown(self.model)}; known: {', '.join(COEFFICIENTS)}")
        counts = COEFFICIENTS[self.model]
        if len(self.distortion) not in counts:
            wanted = " or ".join(map(str, counts))
            raise CalibrationError(f"a {self.model} lens takes {wanted} coefficients, got {len(self.distortion)}")
        if self.undistort_hfov_deg is not None and not 1.0 <= self.undistort_hfov_deg < 180.0:
            raise CalibrationError(
                f"undistorted images see from 1 to below 180 degrees, not {self.undistort_hfov_deg:g}"
            )

    @property
    def is_distorted(self) -> bool:
        """True if its images are not those of a pinhole."""
        return self.model != RADTAN or any(self.distortion)

    def matrix(self) -> Tensor:
        """(3, 3) float64 pinhole matrix K, pixels."""
        return torch.tensor([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], dtype=torch.float64)

    def resized(self, width: int, height: int) -> "Camera":
        """The camera of the same images resized; the pixel-centre rule moves cx to s (cx + 0.5) - 0.5."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=sx * self.fx,
            fy=sy * self.fy,
            cx=sx * (self.cx + 0.5) - 0.5,
            cy=sy * (self.cy + 0.5) - 0.5,
        )

    def turned(self, degrees: int) -> "Camera":
        """The camera of the same images turned clockwise by 90, 180 or 270 degrees; 0 leaves it.

        Raises:
            ValueError: if it is another angle.
        """
        if degrees not in (0, 90, 180, 270):
            raise ValueError(f"images are turned by 0, 90, 180 or 270 degrees, got {degrees}")
        camera = self
        for _ in range(degrees // 90):
            camera = camera._turned_once()
        return camera

    def _turned_once(self) -> "Camera":
        """Clockwise by 90 degrees: x' = -y, y' = x; the radial coefficients stay, p1 x y + ... becomes p2, p2 -p1."""
        values = list(self.distortion)
        if self.model in TANGENTIAL and len(values) >= 4:
            first = TANGENTIAL[self.model]
            values[first : first + 2] = values[first + 1], -values[first]
        return Camera(
            width=self.height,
            height=self.width,
            fx=self.fy,
            fy=self.fx,
            cx=self.height - 1 - self.cy,
            cy=self.cx,
            distortion=tuple(values),
            model=self.model,
        )

    def undistorted(self) -> "Camera":
        """The pinhole of the same intrinsics."""
        return replace(self, distortion=(), model=RADTAN, undistort_hfov_deg=None)


@dataclass(frozen=True)
class Optics:
    """How views are made of the images of a camera with a RADTAN lens; both are of the size of the views."""

    delivered: Camera  # of the images resized, distortion included
    pinhole: Camera  # of the views

    def source_uv(self, uv: Tensor) -> Tensor:
        """Pixels (..., 2) of views -> where they lie in the images as delivered."""
        return _denormalised(distort(_normalised(uv, self.pinhole), self.delivered.distortion), self.delivered)

    def view_uv(self, uv: Tensor) -> Tensor:
        """Pixels (..., 2) of the images as delivered -> where they lie in views."""
        return _denormalised(undistort(_normalised(uv, self.delivered), self.delivered.distortion), self.pinhole)


def _normalised(uv: Tensor, camera: Camera) -> Tensor:
    return (uv - uv.new_tensor([camera.cx, camera.cy])) / uv.new_tensor([camera.fx, camera.fy])


def _denormalised(xy: Tensor, camera: Camera) -> Tensor:
    return xy * xy.new_tensor([camera.fx, camera.fy]) + xy.new_tensor([camera.cx, camera.cy])


def scaled_intrinsics(K: Tensor, factor: float) -> Tensor:
    """Intrinsics (..., 3, 3) of images resized by `factor` (1/8: an eighth of the sides), same pixel-centre rule."""
    K = K.clone()
    K[..., 0, 0] *= factor
    K[..., 1, 1] *= factor
    K[..., :2, 2] = factor * (K[..., :2, 2] + 0.5) - 0.5
    return K


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """(H, W, 2) pixel centres `uv`, dtype and device of `like`."""
    v, u = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([u, v], -1)


def sample(image: Tensor, uv: Tensor, padding: str = "zeros", mode: str = "bilinear") -> Tensor:
    """Read images (B, C, H, W) at pixels uv (B, h, w, 2) -> (B, C, h, w), bilinear, the one use of grid_sample."""
    H, W = image.shape[-2:]
    u, v = uv.unbind(-1)
    grid = torch.stack([2 * u / max(W - 1, 1) - 1, 2 * v / max(H - 1, 1) - 1], -1)
    return torch.nn.functional.grid_sample(
        image, grid.to(image.dtype), mode=mode, padding_mode=padding, align_corners=True
    )


def ray_map(camera: Camera) -> Tensor:
    """(H, W, 3) float64 rays of the pixels of a camera, z = 1; NaN where its lens sees nothing in front of it.

    Raises:
        ValueError: if its lens has tangential distortion.
    """
    tangential = TANGENTIAL.get(camera.model)
    if tangential is not None and any(camera.distortion[tangential : tangential + 2]):
        raise ValueError("rays of lenses with tangential distortion are not known in closed form")
    K = camera.matrix()
    xy = (pixel_grid(camera.height, camera.width, like=K) - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    radius = xy.norm(dim=-1, keepdim=True)
    theta = angle(radius, camera.distortion, camera.model)
    is_seen = (radius < limit(camera.distortion, camera.model)[1]) & (theta < 0.5 * torch.pi)
    xy = torch.where(radius > 0, xy / radius.clamp_min(1e-12) * theta.tan(), xy)
    return torch.where(is_seen, torch.cat([xy, torch.ones_like(radius)], -1), torch.nan)


def undistortion_map(camera: Camera, target: Camera) -> Tensor:
    """(H, W, 2) float64: where each pixel of the pinhole `target` lies in the distorted images of `camera`."""
    uv = pixel_grid(target.height, target.width, like=torch.empty(0, dtype=torch.float64))
    return _denormalised(distort(_normalised(uv, target), camera.distortion, camera.model), camera)
