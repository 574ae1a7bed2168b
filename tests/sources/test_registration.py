"""Depth moved from one camera into another."""

import numpy as np
import pytest
import torch

from slam.geometry.camera import Camera, pixel_grid
from slam.geometry.lens import undistort
from slam.sources.registration import Registration

DEPTH = Camera(160, 90, 85.0, 85.0, 79.0, 44.0)
COLOR = Camera(128, 96, 95.0, 96.0, 64.2, 47.1, (-0.06, 0.06, 0.001, -0.002, -0.02))  # narrower
NORMAL, OFFSET = np.array([0.2, -0.1, 1.0]), 2.0  # the plane n . p = 2 of the depth camera


def rays_of(camera: Camera) -> np.ndarray:
    K = camera.matrix()
    uv = pixel_grid(camera.height, camera.width, like=K)
    xy = undistort((uv - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]]), camera.distortion).numpy()
    return np.concatenate([xy, np.ones_like(xy[..., :1])], -1)


def moved(angle_rad: float, t: tuple[float, float, float]) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0, s, t[0]], [0, 1, 0, t[1]], [-s, 0, c, t[2]], [0, 0, 0, 1]])


@pytest.mark.parametrize("color", [COLOR, Camera(320, 240, 240.0, 240.0, 160.0, 118.0)])
def test_a_slanted_plane_is_the_same_plane_for_the_other_camera(color):
    """Splatting moves depth by 0.55 depth pixels each way at most: 0.55 * 0.3 * (2.5 m)^2 / (2 m * 85) is 6 mm."""
    T_cd = moved(0.03, (0.05, -0.01, 0.02))
    depth = (OFFSET / (rays_of(DEPTH) @ NORMAL)).astype(np.float32)
    got = Registration(DEPTH, color, T_cd)(depth)
    normal = T_cd[:3, :3] @ NORMAL
    true = (OFFSET + normal @ T_cd[:3, 3]) / (rays_of(color) @ normal)
    inner = got[8:-8, 8:-8]
    assert (inner > 0).mean() == 1.0  # no holes
    np.testing.assert_allclose(inner, true[8:-8, 8:-8], atol=0.007)


def test_the_nearer_surface_hides_the_farther_and_unknown_stays_unknown():
    """A bar at 1 m moves by 100 * 0.1 / 1 = 10 pixels, the wall at 4 m behind it by 2.5."""
    camera = Camera(100, 20, 100.0, 100.0, 49.5, 9.5)
    depth = np.full((20, 100), 4.0, np.float32)
    depth[:, 40:50] = 1.0
    depth[5, 80:90] = 0.0
    got = Registration(camera, camera, moved(0.0, (0.1, 0.0, 0.0)))(depth)
    assert (got[10, 50:60] == 1.0).all() and (got[10, 62:] == 4.0).all()
    assert (got[10, 43:50] == 0.0).all() and (got[10, 3:42] == 4.0).all()  # seen by neither behind the bar
    assert (got[5, 83:92] == 0.0).all() and (got[6, 83:92] == 4.0).all()


def test_the_same_camera_moves_nothing():
    depth = np.random.default_rng(3).uniform(1, 2, (90, 160)).astype(np.float32)
    got = Registration(DEPTH, DEPTH, np.eye(4))(depth)
    np.testing.assert_allclose(got, depth, rtol=1e-6)
