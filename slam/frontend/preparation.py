"""From frames as delivered to views of network size: undistort, resize, keep the depth that can be used."""

import logging
import math

import cv2
import numpy as np

from slam.frames import Frame, Image, View
from slam.geometry.camera import Camera, undistortion_map

log = logging.getLogger(__name__)

MIN_MEASURED = 0.05  # part of an image whose depth a sensor must know for any of it to be used
NEVER = -(10**9)  # frame id


def network_size(camera: Camera, pixels: int) -> tuple[int, int]:
    """Width and height, multiples of 8, of about `pixels` in all and the aspect of the camera's images."""
    height = math.sqrt(pixels * camera.height / camera.width)
    return max(8 * round(height * camera.width / camera.height / 8), 64), max(8 * round(height / 8), 64)


class Preparation:
    """Makes views, pinhole images of network size, of a camera's frames."""

    def __init__(self, camera: Camera, pixels: int) -> None:
        width, height = network_size(camera, pixels)
        self.source = camera
        self.depth_frame_id = NEVER  # last frame whose sensor depth could be used
        self._maps = None
        self._warned_of: set[str] = set()
        pinhole = camera.undistorted()
        if camera.is_distorted:
            pinhole = _inner_pinhole(camera)
            uv = undistortion_map(camera, pinhole).numpy().astype(np.float32)
            self._maps = cv2.convertMaps(uv, None, cv2.CV_16SC2)
        self.camera = pinhole.resized(width, height)
        self._K = self.camera.matrix()
        # of images smaller than the network size, INTER_AREA would make flat blocks with edges between them
        is_upsampled = width > camera.width or height > camera.height
        self._interpolation = cv2.INTER_LINEAR if is_upsampled else cv2.INTER_AREA

    def prepare(self, frame: Frame) -> View:
        """The view of a frame.

        Depth that is not of the image's size, or hardly known anywhere, is left out; the first of each kind is a
        WARNING.
        """
        image, depth = self.image_and_depth(frame)
        if depth is not None:
            known = float((depth > 0).mean())
            if known < MIN_MEASURED:
                self._warn(
                    "poor", "frame %d: %.0f %% of its sensor depth is known, it is not used", frame.id, 100 * known
                )
                depth = None
            else:
                self.depth_frame_id = frame.id
        return View(frame.id, frame.time_ns, Image(image), self._K, depth)

    def image_and_depth(self, frame: Frame) -> tuple[np.ndarray, np.ndarray | None]:
        """Image (h, w, 3) uint8 and depth (h, w) float32 metres or None, at `self.camera`'s size."""
        size = (self.camera.width, self.camera.height)
        image, depth = frame.image, self._checked_depth(frame)
        if self._maps is not None:
            image = cv2.remap(image, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            depth = depth if depth is None else cv2.remap(depth, *self._maps, cv2.INTER_NEAREST)
        image = cv2.resize(image, size, interpolation=self._interpolation)
        # INTER_NEAREST would take the upper left of what lies under a pixel, not its middle
        return image, depth if depth is None else cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT)

    def _checked_depth(self, frame: Frame) -> np.ndarray | None:
        if frame.depth is None:
            return None
        if frame.depth.shape != frame.image.shape[:2]:
            sizes = [f"{width}x{height}" for height, width in (frame.depth.shape[:2], frame.image.shape[:2])]
            message = "frame %d: depth of %s for an image of %s is not used; align it to the image"
            self._warn("size", message, frame.id, *sizes)
            return None
        return np.where(np.isfinite(frame.depth) & (frame.depth > 0), frame.depth, 0).astype(np.float32)

    def _warn(self, kind: str, message: str, *values: object) -> None:
        """A WARNING the first time, DEBUG from then on."""
        log.log(logging.DEBUG if kind in self._warned_of else logging.WARNING, message, *values)
        self._warned_of.add(kind)


def _inner_pinhole(camera: Camera) -> Camera:
    """A pinhole of the same size whose every pixel lies inside the distorted image."""
    distortion = np.array(camera.distortion)
    K, _ = cv2.getOptimalNewCameraMatrix(camera.matrix().numpy(), distortion, (camera.width, camera.height), 0.0)
    return Camera(camera.width, camera.height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
