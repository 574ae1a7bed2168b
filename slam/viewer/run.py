"""A finished run as the viewer shows it, read from its directory."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from slam.errors import SourceError
from slam.frames import Trajectory
from slam.io.files import read_text
from slam.io.images import read_color, read_confidence, read_depth
from slam.io.ply import PointCloud, read_ply
from slam.io.trajectory import read_tum

MAX_POINTS = 300_000  # drawn at once; a software renderer needs a second for that many
MIN_STRIDE = 2  # pixels between points


@dataclass(frozen=True)
class ViewedKeyframe:
    """One keyframe as stored."""

    id: int
    parent_id: int  # -1: none, or not recorded
    time_ns: int
    T_wc: np.ndarray  # (4, 4) float64
    K: np.ndarray  # (3, 3) float64, pixels of the image
    image: np.ndarray  # (h, w, 3) uint8 RGB
    depth: np.ndarray  # (h, w) float32 map units, 0 unknown
    confidence: np.ndarray  # (h, w) float32 in [0, 1]

    def cloud(self, min_confidence: float, stride: int = MIN_STRIDE) -> PointCloud:
        """Points in the camera frame of the pixels whose confidence passes, every `stride`-th row and column."""
        good = (self.depth > 0) & (self.confidence >= min_confidence)
        v, u = (a * stride for a in np.nonzero(good[::stride, ::stride]))
        z = self.depth[v, u]
        points = np.stack([(u - self.K[0, 2]) / self.K[0, 0] * z, (v - self.K[1, 2]) / self.K[1, 1] * z, z], -1)
        return PointCloud(points.astype(np.float32), self.image[v, u])

    def depth_picture(self) -> np.ndarray:
        """(h, w, 3) uint8 RGB: inverse depth in colours, near is bright; unknown is black."""
        known = self.depth > 0
        inverse = np.where(known, 1 / np.where(known, self.depth, 1), 0)
        near = float(np.percentile(inverse[known], 98)) if known.any() else 1.0
        colors = cv2.applyColorMap((255 * np.clip(inverse / near, 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)
        return np.ascontiguousarray(colors[..., ::-1] * known[..., None].astype(np.uint8))

    def confidence_picture(self) -> np.ndarray:
        """(h, w, 3) uint8 grey, white is sure."""
        return np.repeat(np.rint(255 * self.confidence).astype(np.uint8)[..., None], 3, axis=2)


@dataclass(frozen=True)
class ViewedRun:
    """What there is to see; at least one keyframe."""

    path: Path
    keyframes: tuple[ViewedKeyframe, ...]
    trajectory: Trajectory  # every frame, T_wc

    @property
    def stride(self) -> int:
        """Pixels between drawn points, so that all keyframes together stay below MAX_POINTS."""
        pixels = sum(keyframe.depth.size for keyframe in self.keyframes)
        return max(MIN_STRIDE, math.ceil(math.sqrt(pixels / MAX_POINTS)))

    def median_depth(self) -> float:
        """Median of the confident depths, of all depths where none is; 1 where there is no depth at all."""
        for minimum in (0.5, 0.0):
            z = np.concatenate([keyframe.cloud(minimum, 8).points[:, 2] for keyframe in self.keyframes])
            if len(z):
                return float(np.median(z))
        return 1.0

    def cloud(self, min_confidence: float, shown: int) -> PointCloud:
        """Points of the first `shown` keyframes in the world frame, as they are drawn."""
        points, colors = [np.zeros((0, 3), np.float32)], [np.zeros((0, 3), np.uint8)]
        for keyframe in self.keyframes[:shown]:
            cloud = keyframe.cloud(min_confidence, self.stride)
            assert cloud.colors is not None
            points.append((cloud.points @ keyframe.T_wc[:3, :3].T + keyframe.T_wc[:3, 3]).astype(np.float32))
            colors.append(cloud.colors)
        return PointCloud(np.concatenate(points), np.concatenate(colors))

    def fused_cloud(self) -> PointCloud:
        """The points of `map.ply`.

        Raises:
            SourceError: if it is missing or damaged.
        """
        return read_ply(self.path / "map.ply")


def read_run(path: Path) -> ViewedRun:
    """Read keyframes and trajectory of a run directory.

    Raises:
        SourceError: if it is no run, has no keyframes, or a file of it is missing or damaged.
    """
    if not path.is_dir():
        raise SourceError(f"no run directory at {path}; name one that v2d-slam has written (results/<time>)")
    listing = path / "keyframes" / "keyframes.json"
    text = read_text(listing, "list of keyframes")
    try:
        entries = json.loads(text)
        keyframes = tuple(_read_keyframe(path / "keyframes", entry) for entry in entries)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{listing} is damaged ({error}); run v2d-slam again") from error
    if not keyframes:
        raise SourceError(f"the run {path} has no keyframes: there is nothing to show")
    return ViewedRun(path, keyframes, read_tum(path / "trajectory.txt"))


def _read_keyframe(folder: Path, entry: dict[str, Any]) -> ViewedKeyframe:
    image = read_color(folder / entry["color"])
    depth = read_depth(folder / entry["depth"], entry["depth_scale"])
    confidence = read_confidence(folder / entry["confidence"])
    K, T_wc = np.array(entry["K"], dtype=np.float64), np.array(entry["T_wc"], dtype=np.float64)
    if not image.shape[:2] == depth.shape == confidence.shape:
        raise ValueError(f"keyframe {entry['id']}: sizes {image.shape[:2]}, {depth.shape}, {confidence.shape} differ")
    if K.shape != (3, 3) or T_wc.shape != (4, 4):
        raise ValueError(f"keyframe {entry['id']}: K {K.shape} or T_wc {T_wc.shape} is no matrix of that kind")
    return ViewedKeyframe(
        int(entry["id"]), int(entry.get("parent_id", -1)), int(entry["time_ns"]), T_wc, K, image, depth, confidence
    )
