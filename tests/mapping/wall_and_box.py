"""A small world with exact truth: a slanted, textured wall and a box face before it, seen by a pinhole camera."""

import cv2
import numpy as np
import torch
from torch import Tensor

from slam.frames import Image, Keyframe, View
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import rays
from slam.inv_depth import InvDepth
from slam.matching.dis import DisFlow

F64 = torch.float64
H, W, STRIDE = 120, 160, 4
K = torch.tensor([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]], dtype=F64)
TEXELS = 90.0  # a unit of length; at depth 2 a pixel is 1.3 texels
# (normal n, offset): n . p = offset; and the limits |x - a| < b, |y - c| < e of the face of the box
WALL = (torch.tensor([0.15, -0.1, 1.0], dtype=F64), 2.0)
BOX = (torch.tensor([0.0, 0.05, 1.0], dtype=F64), 1.3)
BOX_LIMITS = (0.1, 0.3, 0.05, 0.25)


def texture(seed: int) -> np.ndarray:
    """(512, 512, 3) float32 RGB, periodic, detail of 2 to 12 texels."""
    noise = np.random.default_rng(seed).standard_normal((512, 512, 3)).astype(np.float32)
    total = sum(_unit(cv2.GaussianBlur(np.tile(noise, (3, 3, 1)), (0, 0), s)[512:1024, 512:1024]) for s in (2, 5, 12))
    return np.clip(128 + 26 * total, 0, 255).astype(np.float32)


def _unit(image: np.ndarray) -> np.ndarray:
    return image / image.std()


class World:
    """The same `seed`, the same walls."""

    def __init__(self, seed: int = 0, box: bool = True) -> None:
        self.textures = (texture(2 * seed), texture(2 * seed + 1))
        self.box = box
        self.flow = DisFlow()

    def cast(self, T_cw: Tensor, K: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inverse depth (h, w), points (h, w, 3) in the world, and where the box is seen (h, w)."""
        T_wc = se3.inverse(T_cw)
        ray = rays(K[None], height, width)[0] @ T_wc[:3, :3].mT
        wall = self._meet(WALL, T_wc, ray)
        box = self._meet(BOX, T_wc, ray)
        p = T_wc[:3, 3] + ray / box[..., None]
        a, b, c, e = BOX_LIMITS
        on_box = ((p[..., 0] - a).abs() < b) & ((p[..., 1] - c).abs() < e) & (box > wall) & self.box
        inv_depth = torch.where(on_box, box, wall)
        return inv_depth, T_wc[:3, 3] + ray / inv_depth[..., None], on_box

    @staticmethod
    def _meet(plane: tuple[Tensor, float], T_wc: Tensor, ray: Tensor) -> Tensor:
        normal, offset = plane
        return (ray @ normal) / (offset - normal @ T_wc[:3, 3])

    def image(self, T_cw: Tensor) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        _, points, on_box = self.cast(T_cw, K, H, W)
        xy = (TEXELS * points[..., :2]).numpy().astype(np.float32) % 512
        wall, box = (cv2.remap(t, xy, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP) for t in self.textures)
        return np.where(on_box.numpy()[..., None], box, wall).round().astype(np.uint8)

    def view(self, T_cw: Tensor, frame_id: int = 0) -> View:
        """The view from a pose."""
        return View(frame_id, 10**8 * frame_id, Image(self.image(T_cw)), K)

    def inv_depth(self, T_cw: Tensor) -> Tensor:
        """(H, W) float32 truth."""
        return self.cast(T_cw, K, H, W)[0].float()

    def cell_inv_depth(self, T_cw: Tensor) -> Tensor:
        """(H / 4, W / 4) float32 truth at the cells."""
        return self.cast(T_cw, scaled_intrinsics(K, 1 / STRIDE), H // STRIDE, W // STRIDE)[0].float()

    def coarse(self, T_cw: Tensor, relative_sigma: float = 0.01) -> InvDepth:
        """(H / 4, W / 4) truth at the cells, with a standard deviation."""
        value = self.cell_inv_depth(T_cw)
        return InvDepth(value, relative_sigma * value)

    def keyframe(self, T_cw: Tensor, keyframe_id: int = 0, frame_id: int = 0) -> Keyframe:
        """A keyframe with true pose and depth."""
        value = self.inv_depth(T_cw)
        return Keyframe(
            keyframe_id,
            self.view(T_cw, frame_id),
            se3.inverse(T_cw),
            InvDepth(value, 1e-3 * value),
            self.coarse(T_cw),
            parent_id=keyframe_id - 1,
        )


def moved(x: float = 0, y: float = 0, z: float = 0, rx: float = 0, ry: float = 0, rz: float = 0) -> Tensor:
    """T_cw (4, 4) of a twist."""
    return se3.exp(torch.tensor([x, y, z, rx, ry, rz], dtype=F64))
