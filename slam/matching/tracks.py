"""Point tracks through a video, by Lucas-Kanade from frame to frame.

References: Shi & Tomasi, Good features to track, CVPR 1994; Bouguet, Pyramidal implementation of the Lucas Kanade
feature tracker, 2001; Kalal et al., Forward-backward error, ICPR 2010.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

MAX_ALIVE = 400  # tracks followed at a time
MAX_LENGTH = 60  # frames of a track: the errors of Lucas-Kanade add up from frame to frame
START_EVERY = 5  # frames between starts of new tracks, up to MAX_ALIVE
MIN_DISTANCE_PX = 6.0  # of a new track from all others
MIN_QUALITY = 0.01  # smaller eigenvalue of a new track's patch, of the best one's in the image
FORWARD_BACKWARD_PX = 0.5  # a track ends where the way there and back misses its start by this much
CORNER_PX = 7  # side of the patch that makes a corner: OpenCV's 3 picks outlines and noise, twice the instability
MAX_DIFFERENCE = 16.0  # mean over a patch from frame to frame, gray levels of even contrast; another patch has 30
PATCH_PX = 15  # side of a Lucas-Kanade window, which must lie in the image
PYRAMID_LEVELS = 3  # above the image itself; each halves it
SURROUNDINGS_PX = 8.0  # standard deviation of the Gaussian over which contrast is made even
FAINT = 8.0  # gray levels of contrast that are half amplified
EVEN_CONTRAST = 40.0  # gray levels
LK_STOP = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 0.01)  # steps, and their last length in pixels


@dataclass(frozen=True, eq=False)
class Tracks:
    """Where T points of the scene are seen in the N frames of a video."""

    uv: Tensor  # (T, N, 2) float32 pixels; 0 where the point is not visible
    visible: Tensor  # (T, N) bool

    def __post_init__(self) -> None:
        if self.uv.shape != (*self.visible.shape, 2) or self.visible.ndim != 2:
            raise ValueError(
                f"tracks need uv (T, N, 2) and visible (T, N), got {tuple(self.uv.shape)}, {tuple(self.visible.shape)}"
            )


def flow_tracks(images: Sequence[np.ndarray], max_alive: int = MAX_ALIVE, max_length: int = MAX_LENGTH) -> Tracks:
    """Follow corners through a video.

    A track ends where Lucas-Kanade loses the patch or finds another, where the way back misses its start by
    FORWARD_BACKWARD_PX, where its patch leaves the image, or after `max_length` frames. Whether its point stands still
    in the world is not known.

    Args:
        images: N gray images (H, W) uint8.
        max_alive: tracks followed at a time, at most.
        max_length: frames of a track, at most.

    Returns:
        Tracks in pixels of the images, each seen in two frames or more, in consecutive ones.
    """
    begun: list[int] = []  # first frame of each track
    ways: list[list[np.ndarray]] = []  # its pixels (2,) from then on
    alive = np.zeros(0, np.int64)
    before = np.zeros((0, 0), np.uint8)
    for n, image in enumerate(images):
        after = _with_even_contrast(image)
        if len(alive):
            uv, is_found = _followed(before, after, np.stack([ways[t][-1] for t in alive]))
            is_found &= np.array([len(ways[t]) for t in alive]) < max_length
            alive = alive[is_found]
            for t, pixel in zip(alive, uv[is_found]):
                ways[t].append(pixel)
        if n % START_EVERY == 0:
            taken = np.stack([ways[t][-1] for t in alive]) if len(alive) else np.zeros((0, 2), np.float32)
            corners = _corners(image, taken, max_alive - len(alive))
            alive = np.concatenate([alive, len(ways) + np.arange(len(corners))])
            ways += [[corner] for corner in corners]
            begun += [n] * len(corners)
        before = after
    followed = [t for t, way in enumerate(ways) if len(way) > 1]
    tracks_uv = torch.zeros(len(followed), len(images), 2)
    visible = torch.zeros(len(followed), len(images), dtype=torch.bool)
    for row, t in enumerate(followed):
        frames = slice(begun[t], begun[t] + len(ways[t]))
        tracks_uv[row, frames] = torch.from_numpy(np.stack(ways[t]))
        visible[row, frames] = True
    return Tracks(tracks_uv, visible)


def _with_even_contrast(image: np.ndarray) -> np.ndarray:
    """The image (H, W) less its local mean, over its local contrast: Lucas-Kanade takes equal brightness for granted,
    and 10 % of exposure from frame to frame made the instability of exact depth three times as large."""
    gray = image.astype(np.float32)
    mean = cv2.GaussianBlur(gray, (0, 0), SURROUNDINGS_PX)
    contrast = np.sqrt(np.maximum(cv2.GaussianBlur(gray * gray, (0, 0), SURROUNDINGS_PX) - mean * mean, 0))
    even = 128 + EVEN_CONTRAST * (gray - mean) / (contrast + FAINT)
    return np.clip(even + 0.5, 0, 255).astype(np.uint8)


def _corners(image: np.ndarray, taken: np.ndarray, count: int) -> np.ndarray:
    """(n, 2) float32 pixels of at most `count` corners away from the pixels (m, 2) where tracks are."""
    if count < 1:
        return np.zeros((0, 2), np.float32)
    is_free = np.zeros(image.shape, np.uint8)
    inner = slice(PATCH_PX // 2, -(PATCH_PX // 2))
    is_free[inner, inner] = 255
    for u, v in np.rint(taken).astype(int):
        cv2.circle(is_free, (int(u), int(v)), round(MIN_DISTANCE_PX), 0, -1)
    corners = cv2.goodFeaturesToTrack(image, count, MIN_QUALITY, MIN_DISTANCE_PX, mask=is_free, blockSize=CORNER_PX)
    return np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)


def _followed(before: np.ndarray, after: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (m, 2) of one image in the next (m, 2), and which were found there (m,)."""
    window = {"winSize": (PATCH_PX, PATCH_PX), "maxLevel": PYRAMID_LEVELS, "criteria": LK_STOP}
    there, is_there, difference = cv2.calcOpticalFlowPyrLK(before, after, uv[:, None], None, **window)
    back, is_back, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **window)
    there, back = there[:, 0], back[:, 0]
    margin, last = PATCH_PX // 2, np.array(after.shape[::-1]) - 1
    is_inside = ((there >= margin) & (there <= last - margin)).all(-1)
    returns = np.linalg.norm(back - uv, axis=-1) < FORWARD_BACKWARD_PX
    looks_alike = difference[:, 0] < MAX_DIFFERENCE
    return there, (is_there[:, 0] > 0) & (is_back[:, 0] > 0) & is_inside & returns & looks_alike
