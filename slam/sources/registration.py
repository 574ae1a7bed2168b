"""Depth of one camera as another beside it sees it."""

import numpy as np
import torch

from slam.errors import CalibrationError
from slam.geometry.camera import Camera, pixel_grid
from slam.geometry.lens import RADTAN, undistort
from slam.kernels.compile import compiled

OVERLAP = 1.1  # of the footprints of neighbouring depth pixels: lens and rotation stretch some of them apart


class Registration:
    """Moves depth maps into the images of a colour camera, lens distortion of both included.

    librealsense's own `align` (2.59) leaves out the distortion of the colour lens (five pixels in the corners of a
    D455) and tears single-pixel holes.
    """

    def __init__(self, depth: Camera, color: Camera, T_cd: np.ndarray) -> None:
        """Prepare the rays.

        Args:
            T_cd: (4, 4) colour from depth camera, metres.

        Raises:
            CalibrationError: if the lens of either is not of RADTAN with at most five coefficients.
        """
        if any(c.model != RADTAN or len(c.distortion) > 5 for c in (depth, color)):
            raise CalibrationError(
                "depth can be brought only into the images of a lens with distortion k1 k2 p1 p2 k3; leave it out "
                "(--use-depth off), or give a calibration with these"
            )
        K = depth.matrix()
        uv = pixel_grid(depth.height, depth.width, like=K)
        xy = undistort((uv - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]]), depth.distortion)
        rays = torch.cat([xy, torch.ones_like(xy[..., :1])], -1).numpy()
        self._rays = (rays @ T_cd[:3, :3].T).astype(np.float32)  # (h, w, 3), turned into the colour camera
        self._shift = T_cd[:3, 3].astype(np.float32)
        lens = (color.fx, color.fy, color.cx, color.cy, *(*color.distortion, *5 * [0.0])[:5])
        self._lens = np.array(lens, np.float32)
        self._reach = 0.5 * OVERLAP * np.array([color.fx / depth.fx, color.fy / depth.fy], np.float32)
        self._shape = color.height, color.width
        self(np.zeros(self._rays.shape[:2], np.float32))  # compiles

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        """Register a depth map.

        Args:
            depth: (h, w) float32 metres, 0 unknown.

        Returns:
            (H, W) float32 z-depth of the colour camera, 0 unknown; the nearest surface where several meet.
        """
        registered = np.full(self._shape, np.inf, np.float32)
        _splat(depth, self._rays, self._shift, self._lens, self._reach, registered)
        registered[np.isinf(registered)] = 0.0
        return registered


@compiled()
def _splat(
    depth: np.ndarray, rays: np.ndarray, shift: np.ndarray, lens: np.ndarray, reach: np.ndarray, nearest: np.ndarray
) -> None:
    """Every depth pixel, as large as it appears, onto the pixels whose centres it covers."""
    H, W = nearest.shape
    h, w = depth.shape
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = lens
    one, two = np.float32(1), np.float32(2)
    for row in range(h):
        for column in range(w):
            d = depth[row, column]
            z = d * rays[row, column, 2] + shift[2]
            if d <= 0 or z <= 0:
                continue
            x, y = (d * rays[row, column, 0] + shift[0]) / z, (d * rays[row, column, 1] + shift[1]) / z
            r2 = x * x + y * y
            radial = one + r2 * (k1 + r2 * (k2 + r2 * k3))
            u = fx * (x * radial + two * p1 * x * y + p2 * (r2 + two * x * x)) + cx
            v = fy * (y * radial + p1 * (r2 + two * y * y) + two * p2 * x * y) + cy
            reach_u, reach_v = reach[0] * d / z, reach[1] * d / z
            if not (-reach_u < u < W and -reach_v < v < H):
                continue
            for j in range(max(int(np.ceil(v - reach_v)), 0), min(int(np.floor(v + reach_v)) + 1, H)):
                for i in range(max(int(np.ceil(u - reach_u)), 0), min(int(np.floor(u + reach_u)) + 1, W)):
                    nearest[j, i] = min(nearest[j, i], z)
