"""Video files, by OpenCV; stamps are those of the container where it has usable ones."""

import codecs
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from slam.errors import SourceError
from slam.frames import Frame
from slam.io.image_size import check_pixels
from slam.reading import open_file
from slam.sources.archives import archive_kind
from slam.sources.container import examine
from slam.sources.faults import Faults
from slam.sources.images import IMAGE_SUFFIXES
from slam.sources.sequence import (
    ALL_FRAMES,
    DEFAULT_FPS,
    MAX_FPS,
    OWN_CAMERA,
    CameraChoice,
    FrameWindow,
    checked_fps,
    frame_time_ns,
)

log = logging.getLogger(__name__)

SHORTFALL = 0.9  # a file that yields less than this share of its stated frames is damaged


class VideoSource:
    """Frames of a video file. Every iteration starts from the first frame of the window."""

    live = False

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        fps: float | None = None,
        name: str | None = None,
    ) -> None:
        """Open the file and read its first frame.

        Args:
            fps: replaces the stamps of the file by a constant rate.
            name: of the video, for messages; None: its path.

        Raises:
            SourceError: if the file is missing, no video, or ends before the window.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        self._path = path
        self._window = window
        self._fixed_fps = checked_fps(fps)
        self.name = name or str(path)
        self.skipped = 0
        self._faults = Faults(log)
        self._capture: cv2.VideoCapture | None = None
        capture = self._opened()
        try:
            decoded, first = capture.read()
            if not decoded:
                raise SourceError(self._undecodable(capture))
            height, width = first.shape[:2]
            stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            rate = capture.get(cv2.CAP_PROP_FPS)
            # clockwise, from the images as the sensor took them to the frames as delivered: 0, 90, 180 or 270
            self.rotation_deg = _rotation_deg(capture)
        finally:
            capture.release()
        self._container = examine(path)
        # as the container states it; a trimmed one counts also what is not shown
        self.stated = math.ceil(stated * self._container.shown) if math.isfinite(stated) and stated >= 1 else None
        self._rate = self._fixed_fps or (rate if 0 < rate <= MAX_FPS else DEFAULT_FPS)  # NaN compares false
        self.count = len(window.indices(self.stated)) if self.stated else None
        if self.count == 0:
            raise SourceError(f"--start {window.start} is past the end of {self.name}: it has {self.stated} frames")
        self.camera = choice.camera(width, height, [path.with_suffix(".yaml")], self.name, self.rotation_deg)

    def __iter__(self) -> Iterator[Frame]:
        self.close()
        self.skipped = 0
        self._capture = capture = self._opened()
        delivered = 0
        index = 0
        first_ns = last_ns = -1
        stop = None if self._window.max_frames is None else self._window.start + self._window.max_frames
        while (stop is None or index < stop) and capture.isOpened() and capture.grab():
            last_ns = self._time_ns(capture, index, last_ns)
            first_ns = last_ns if index == 0 else first_ns
            if index >= self._window.start and (index - self._window.start) % self._window.stride == 0:
                image = self._retrieve(capture, index)
                if image is not None:
                    yield Frame(delivered, last_ns, image, self.camera)
                    delivered += 1
            index += 1
        self._faults.end()
        self._check_end(index, stop, delivered, first_ns)
        self.close()

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def sampled(self, count: int) -> list[np.ndarray]:
        """Up to `count` images (H, W, 3) spread over the window, RGB; fewer where the file cannot be searched."""
        stop = self._window.start + (self._window.max_frames or 10**9)
        last = min(self.stated or 1, stop) - 1
        images = []
        capture = self._opened()
        try:
            for n in np.unique(np.linspace(self._window.start, max(last, self._window.start), count).astype(int)):
                capture.set(cv2.CAP_PROP_POS_FRAMES, int(n))
                decoded, bgr = capture.read()
                if decoded and bgr.shape[:2] == (self.camera.height, self.camera.width):
                    images.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        finally:
            capture.release()
        return images

    def _opened(self) -> cv2.VideoCapture:
        if not self._path.exists():
            raise SourceError(f"no video at {self._path}")
        if not (self._path.is_file() or self._path.is_dir()):  # FFmpeg would wait for the end of a pipe
            raise SourceError(f"{self._path} is no file: it is a pipe or a device; copy its content into a file")
        if self._path.is_dir():
            raise SourceError(f"{self._path} is a folder, not a video file; for a folder of images use --images")
        archive = archive_kind(self._path)
        if archive is not None:  # OpenCV plays the images that lie in some of them, in the order of the archive
            fetched = "download it, and " if self.name != str(self._path) else ""
            raise SourceError(
                f"{self.name} is no video but an archive ({archive}); for images or a data set in it {fetched}use "
                "--sequence"
            )
        if (
            self._path.suffix.lower() in IMAGE_SUFFIXES
        ):  # OpenCV plays a.1.jpg with all the images that count on from it
            raise SourceError(f"{self._path} is one image, not a video; give its folder to --images")
        try:
            capture = cv2.VideoCapture(str(self._path))
        except cv2.error as error:  # some builds raise where others return a closed capture
            raise SourceError(self._unreadable()) from error
        if not capture.isOpened():
            raise SourceError(self._unreadable())
        try:
            check_pixels(*stated_size(capture))
        except ValueError as error:
            capture.release()
            raise SourceError(f"{self.name} is not read: {error}") from error
        return capture

    def _unreadable(self) -> str:
        """Why OpenCV does not open the file, as far as one can tell."""
        container = examine(self._path)
        if container.kind == "iso" and not container.has_index:
            return (
                f"{self.name} is no video that can be read: it has no index (moov): its recording or its copying was "
                "cut off; copy it again, or repair it with untrunc and a whole video of the same camera"
            )
        if self._path.suffix.lower() in (".bag", ".db3", ".mcap"):
            return f"{self.name} is no video; for a ROS bag or a RealSense recording use --sequence"
        other = _other_kind(self._path)
        if other:
            return f"{self.name} is no video: {other}"
        if container.kind:
            return f"{self.name} is no video that OpenCV can read; {_convert(self.name)}"
        return f"{self.name} is no video that OpenCV can read; if a player shows it: {_convert(self.name)}"

    def _undecodable(self, capture: cv2.VideoCapture) -> str:
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
        codec = code.decode("ascii", "replace").strip() if code.isalnum() else "unknown"
        if examine(self._path).is_cut_off:
            return f"{self.name} is no video that can be read: it is cut off before its first whole frame"
        return f"not one frame of the video {self.name} can be decoded (codec {codec}); {_convert(self.name)}"

    def _time_ns(self, capture: cv2.VideoCapture, index: int, last_ns: int) -> int:
        """Time of the frame just grabbed, strictly later than `last_ns`."""
        if self._fixed_fps is not None:
            return frame_time_ns(index, self._fixed_fps)
        time_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
        if math.isfinite(time_ms) and round(time_ms * 1e6) > last_ns:
            return round(time_ms * 1e6)
        return last_ns + frame_time_ns(1, self._rate)  # no stamps, or some repeat: by the rate from the last one

    def _retrieve(self, capture: cv2.VideoCapture, index: int) -> np.ndarray | None:
        """The grabbed frame as RGB, None (counted) if it cannot be decoded or changed its size."""
        decoded, bgr = capture.retrieve()
        if decoded and bgr is not None and bgr.shape[:2] == (self.camera.height, self.camera.width):
            return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        self.skipped += 1
        problem = f"changed to {bgr.shape[1]}x{bgr.shape[0]}" if decoded and bgr is not None else "cannot be decoded"
        self._faults.add(f"skipped a frame: it {problem}", f"skipped a frame: frame {index} of {self.name} {problem}")
        return None

    def _check_end(self, index: int, stop: int | None, delivered: int, first_ns: int) -> None:
        if delivered == 0:
            raise SourceError(f"no frame of {self.name} could be read (from frame {self._window.start} on)")
        expected = min(self.stated or 0, stop or math.inf)
        missing_ns = first_ns if self._fixed_fps is None else 0
        if self._container.is_cut_off and index != stop:
            stated = f" of {expected}" if index < expected else ""  # some containers count anew
            log.warning("%s is cut off: %d%s frames are there", self.name, index, stated)
        elif index < SHORTFALL * expected and missing_ns > frame_time_ns(1, self._rate) * 3 // 2:
            log.warning(
                "the first %.2f s of %s cannot be decoded: it does not begin with a key frame; %d frames are used",
                *(missing_ns / 1e9, self.name, index),
            )
        elif index < SHORTFALL * expected and self._container.kind != "matroska":  # there the number is an estimate
            log.warning("%s ended after %d of %d frames: is the file damaged?", self.name, index, expected)


def stated_size(capture: cv2.VideoCapture) -> tuple[int, int]:
    """Width and height that a video or stream states before a frame of it is decoded; 0 where it states none."""
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    return int(width), int(height)


def _convert(name: str) -> str:
    """What turns a video into one that everything reads."""
    return f"bring it to H.264: ffmpeg -i {name} -c:v libx264 -crf 16 converted.mp4"


def _rotation_deg(capture: cv2.VideoCapture) -> int:
    """The turn that the file asks for and OpenCV has made."""
    stated = capture.get(cv2.CAP_PROP_ORIENTATION_META)
    is_turned = capture.get(cv2.CAP_PROP_ORIENTATION_AUTO) and stated in (90.0, 180.0, 270.0)
    return int(stated) if is_turned else 0


def _other_kind(path: Path) -> str:
    """What a file is that is no video, and what to do; empty if it may be one."""
    with open_file(path) as file:
        head = file.read(512)
    if not head:
        return "it is empty; copy it again"
    if path.suffix.lower() == ".sens":
        return (
            "it is a stream of ScanNet; export it by ScanNet's SensReader (reader.py --export_color_images "
            "--export_depth_images --export_poses --export_intrinsics), and give the folder to --sequence"
        )
    if b"\0" in head or not _is_text(head):
        return ""
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page; give the address of the video file itself"
    return "it is text; of a recording give the folder"


def _is_text(head: bytes) -> bool:
    """True of the first bytes of a text in UTF-8; its last letter may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True
