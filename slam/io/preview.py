"""A video to look at: every image beside its depth before and after refinement, all in one range of colours.

OpenCV encodes and its BGR order stays inside this file. It reports no refused write, so the finished file is opened
again and counts if all frames are in it.
"""

import logging
import math
import os

import cv2
import numpy as np

from slam.errors import OutputError
from slam.io.run_directory import RunDirectory

log = logging.getLogger(__name__)

PREVIEW = "preview.mp4"
PART = f".part.{PREVIEW}"  # its name until it is whole; the suffix tells OpenCV the format
CODEC = "mp4v"  # MPEG-4 part 2: in every build of FFmpeg
CAPTIONS = ("colour", "stereo", "refined")
MIN_FPS, MAX_FPS = 1.0, 60.0
TIMED_FRAMES = 16  # the first ones, which wait until their stamps have told the frame rate


class PreviewWriter:
    """Writes `preview.mp4` frame after frame; without a codec there is none, and one WARNING says so."""

    def __init__(self, directory: RunDirectory, depth_range: tuple[float, float]) -> None:
        """Start a video; one that was there is removed.

        Args:
            depth_range: depths of the first and the last colour, map units.

        Raises:
            ValueError: if the range is empty or not positive.
        """
        near, far = depth_range
        if not 0 < near < far < math.inf:
            raise ValueError(f"depth_range must be 0 < near < far, got {depth_range}")
        self._directory = directory
        self._range = depth_range
        self._part = directory.path / PART
        self._waiting: list[np.ndarray] = []
        self._stamps_ns: list[int] = []
        self._video: cv2.VideoWriter | None = None
        self._frames = 0
        self._is_over = False  # closed, or there is no codec
        directory.write(PREVIEW, lambda path: path.unlink(missing_ok=True))

    def add(self, time_ns: int, rgb: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
        """Append a frame; all frames have one size.

        Args:
            rgb: (h, w, 3) uint8.
            before: (h, w) inverse depth, 1 / map unit, 0 unknown.
            after: the same, refined.
        """
        if self._is_over:
            return
        depths = (depth_colors(inv_depth, self._range) for inv_depth in (before, after))
        panels = [cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in (rgb, *depths)]
        for panel, words in zip(panels, CAPTIONS):
            _caption(panel, words)
        image = np.concatenate(panels, axis=1)
        H, W = image.shape[:2]
        image = np.pad(image, ((0, H % 2), (0, W % 2), (0, 0)))  # the codec halves the colours' size
        if self._video is not None:
            self._write(image)
            return
        self._waiting.append(image)
        self._stamps_ns.append(time_ns)
        if len(self._waiting) == TIMED_FRAMES:
            self._open()

    def close(self) -> None:
        """End the video; what the disk refused is noted in the run directory. A second call does nothing."""
        if self._video is None and self._waiting:
            self._open()
        if self._video is not None and not self._is_over:
            self._video.release()
            self._directory.write(PREVIEW, self._move)
        self._is_over = True

    def _open(self) -> None:
        """Open the file at the rate of the stamps so far, and write the images that have waited."""
        H, W = self._waiting[0].shape[:2]
        try:
            video = cv2.VideoWriter(
                str(self._part), cv2.VideoWriter.fourcc(*CODEC), frame_rate(self._stamps_ns), (W, H)
            )
            is_open = video.isOpened()
        except cv2.error:
            is_open = False
        if is_open:
            self._video = video
            for image in self._waiting:
                self._write(image)
        else:
            log.warning("no %s: OpenCV cannot encode %dx%d with the codec %s here", PREVIEW, W, H, CODEC)
            self._part.unlink(missing_ok=True)
            self._is_over = True
        self._waiting.clear()

    def _write(self, image: np.ndarray) -> None:
        assert self._video is not None
        self._video.write(image)
        self._frames += 1

    def _move(self, path: os.PathLike[str]) -> None:
        """Give the file its name if it is whole; raises OutputError."""
        try:
            video = cv2.VideoCapture(str(self._part))
            count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
            video.release()
            if count != self._frames:
                raise OutputError(f"{count} of {self._frames} frames of the video were written (disk full?)")
            os.replace(self._part, path)
        finally:
            self._part.unlink(missing_ok=True)


def depth_colors(inv_depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
    """Depth in colours by its logarithm: near is red, far is blue, unknown is black.

    Args:
        inv_depth: (h, w) inverse depth, 1 / map unit, 0 unknown.
        depth_range: depths of the first and the last colour; depths beyond have those colours.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    near, far = depth_range
    known = inv_depth > 0
    nearness = np.log(np.where(known, inv_depth, 1 / far) * far) / math.log(far / near)
    colors = cv2.applyColorMap(np.rint(255 * np.clip(nearness, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.ascontiguousarray(colors[..., ::-1] * known[..., None].astype(np.uint8))


def frame_rate(stamps_ns: list[int]) -> float:
    """Frames a second by the median interval of stamps, within what players show well."""
    if len(stamps_ns) < 2:
        return MIN_FPS
    return float(np.clip(1e9 / max(np.median(np.diff(stamps_ns)), 1), MIN_FPS, MAX_FPS))


def _caption(panel: np.ndarray, words: str) -> None:
    """Write words into the lower left corner of an image (h, w, 3), white with a black rim."""
    scale = max(0.35, panel.shape[0] / 600)
    for color, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        origin = (4, panel.shape[0] - 6)
        cv2.putText(panel, words, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
