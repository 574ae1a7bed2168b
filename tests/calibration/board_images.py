"""Images of a calibration board through a lens with known intrinsics and distortion."""

import functools
import itertools

import cv2
import numpy as np
import torch

from slam.calibration.boards import Board
from slam.geometry.camera import Camera, pixel_grid
from slam.geometry.lens import undistort

SQUARE_PX = 60  # of the drawing that is looked at
SAMPLES = 2  # per pixel and axis


def board_poses(count: int, tilted: bool = True, seed: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rotation (3, 3) board to camera, and where the board's middle is in the image with its share of the width."""
    rng = np.random.default_rng(seed)
    poses = []
    for k in range(count):
        angles = rng.uniform(-0.6, 0.6, 2) if tilted else np.zeros(2)
        R, _ = cv2.Rodrigues(np.array([angles[0], angles[1], rng.uniform(-0.3, 0.3) if tilted else 0.0]))
        place = np.array([k % 3 - 1, k // 3 % 3 - 1]) * 0.22 + rng.uniform(-0.04, 0.04, 2)
        poses.append((R, np.array([*place, rng.uniform(0.4, 0.62)])))
    return poses


@functools.cache
def camera_rays(camera: Camera) -> list[np.ndarray]:
    """(H, W, 3) ray through each pixel, one array per sub-pixel."""
    K = camera.matrix()
    offsets = (np.arange(SAMPLES) + 0.5) / SAMPLES - 0.5
    rays = []
    for shift in itertools.product(offsets, offsets):
        uv = pixel_grid(camera.height, camera.width, K) + torch.tensor(shift)
        xy = undistort((uv - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]]), camera.distortion).numpy()
        rays.append(np.concatenate([xy, np.ones((*xy.shape[:2], 1))], -1))
    return rays


def photograph(board: Board, camera: Camera, R: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: exact per-pixel ray and plane intersection, averaged over sub-pixels."""
    square_m = board.config.square_m
    columns, rows = board.config.squares
    drawing = board.draw(SQUARE_PX)
    z = camera.fx * columns * square_m / (place[2] * camera.width)
    middle = np.array([place[0] * camera.width / camera.fx * z, place[1] * camera.height / camera.fy * z, z])
    t = middle - R @ np.array([columns, rows, 0]) * square_m / 2
    total = np.zeros((camera.height, camera.width), np.float32)
    origin = -R.T @ t
    for rays_c in camera_rays(camera):
        rays = rays_c @ R  # in board axes
        points = origin[:2] - rays[..., :2] * (origin[2] / rays[..., 2:])
        at = ((points / square_m + 1) * SQUARE_PX - 0.5).astype(np.float32)
        total += cv2.remap(drawing, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=150)
    gray = 20 + 0.8 * total / SAMPLES**2  # neither black nor white in the image
    return np.repeat(gray[..., None], 3, -1).round().clip(0, 255).astype(np.uint8)
