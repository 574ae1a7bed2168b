"""Pinhole cameras with radial-tangential distortion, and the pixel-centre conventions.

Pixel (0, 0) is the centre of the top-left pixel; `uv` is (column, row).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slam.errors import CalibrationError

UNDISTORT_STEPS = 20  # fixed-point steps; a wide lens (k1 = 0.3) reaches 1e-9 in about 15


@dataclass(frozen=True)
class Camera:
    """Intrinsics of images of one size, pixels; `distortion` is OpenCV's (k1, k2, p1, p2, k3) or empty."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or not (self.fx > 0 and self.fy > 0):
            raise CalibrationError(
                f"a camera needs a positive size and focal length, got {self.width}x{self.height}, "
                f"fx={self.fx}, fy={self.fy}"
            )
        if len(self.distortion) not in (0, 4, 5):
            raise CalibrationError(f"distortion takes k1 k2 p1 p2 [k3], got {len(self.distortion)} numbers")

    @property
    def is_distorted(self) -> bool:
        """True if any distortion coefficient differs from zero."""
        return any(self.distortion)

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

    def undistorted(self) -> "Camera":
        """The same pinhole without distortion."""
        return replace(self, distortion=())


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


def distort(xy: Tensor, distortion: tuple[float, ...]) -> Tensor:
    """Normalised ideal points (..., 2) -> normalised distorted points (OpenCV's radial-tangential model)."""
    if not any(distortion):
        return xy
    k1, k2, p1, p2, k3 = (*distortion, 0.0)[:5]
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return torch.stack([xd, yd], -1)


def undistort(xy: Tensor, distortion: tuple[float, ...]) -> Tensor:
    """Normalised distorted points (..., 2) -> ideal points, by fixed-point iteration (inverse of `distort`)."""
    ideal = xy
    for _ in range(UNDISTORT_STEPS if any(distortion) else 0):
        ideal = ideal - (distort(ideal, distortion) - xy)
    return ideal


def undistortion_map(camera: Camera, target: Camera) -> Tensor:
    """(H, W, 2) float64: where each pixel of the pinhole `target` lies in the distorted images of `camera`."""
    K_inv = torch.linalg.inv(target.matrix())
    uv = pixel_grid(target.height, target.width, like=K_inv)
    xy = uv * torch.stack([K_inv[0, 0], K_inv[1, 1]]) + K_inv[:2, 2]
    K = camera.matrix()
    return distort(xy, camera.distortion) * torch.stack([K[0, 0], K[1, 1]]) + K[:2, 2]
