"""From frames as delivered to views of network size: undistort, resize, keep the depth that can be used."""

import logging
import math

import cv2
import numpy as np
import torch

from slam.errors import CalibrationError, UsageError
from slam.frames import Frame, Image, View
from slam.geometry.camera import Camera, Optics, pixel_grid, undistortion_map
from slam.geometry.lens import RADTAN, limit

log = logging.getLogger(__name__)

MIN_MEASURED = 0.05  # part of an image whose depth a sensor must know for any of it to be used
FISHEYE_FIELD_DEG = 90.0  # of the undistorted images of a fisheye lens, along the longer side
NARROWEST_DEG, WIDEST_DEG = 1.0, 170.0  # pinholes tried
FOCAL_BISECTIONS = 24
FOLD_MARGIN = 0.95  # of the angle at which a lens model folds back: near it everything is stretched
INNER_SLACK = 0.01  # of the longer side, by which OpenCV's inner pinhole may pass the border
HIDDEN = 13  # of 255: a twentieth of a pixel that does not show the scene spoils it
NEVER = -(10**9)  # frame id


def network_size(camera: Camera, pixels: int) -> tuple[int, int]:
    """Width and height, multiples of 8, of about `pixels` in all and the aspect of the camera's images."""
    height = math.sqrt(pixels * camera.height / camera.width)
    return max(8 * round(height * camera.width / camera.height / 8), 64), max(8 * round(height / 8), 64)


def optics_of(camera: Camera, pixels: int) -> Optics:
    """How `Preparation` makes views of about `pixels` of the images of a camera."""
    size = network_size(camera, pixels)
    return Optics(camera.resized(*size), pinhole_of(camera).resized(*size))


class Preparation:
    """Makes views, pinhole images of network size, of a camera's frames."""

    def __init__(self, camera: Camera, pixels: int) -> None:
        width, height = network_size(camera, pixels)
        self.source = camera
        self._pixels = pixels
        self.depth_frame_id = NEVER  # last frame whose sensor depth could be used
        self._maps = None
        self._warned_of: set[str] = set()
        self._mask: tuple[np.ndarray, np.ndarray] | None = None  # of the last frame that had one, and as prepared
        pinhole = pinhole_of(camera)
        if camera.is_distorted or camera.undistort_hfov_deg is not None:
            uv = undistortion_map(camera, pinhole).numpy().astype(np.float32)
            self._maps = cv2.convertMaps(uv, None, cv2.CV_16SC2)
        self.camera = pinhole.resized(width, height)
        self._K = self.camera.matrix()
        # of images smaller than the network size, INTER_AREA would make flat blocks with edges between them
        is_upsampled = width > camera.width or height > camera.height
        self._interpolation = cv2.INTER_LINEAR if is_upsampled else cv2.INTER_AREA

    def recalibrated(self, camera: Camera) -> "Preparation":
        """The same for a camera that turned out to be another; what was told is not told again."""
        other = Preparation(camera, self._pixels)
        other.depth_frame_id, other._warned_of = self.depth_frame_id, self._warned_of
        return other

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
        return View(frame.id, frame.time_ns, Image(image, self._prepared_mask(frame)), self._K, depth)

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

    def _prepared_mask(self, frame: Frame) -> np.ndarray | None:
        """The mask (h, w) of a frame; a pixel of mixed parts does not show the scene. Frames share theirs, so that it
        is prepared once."""
        if frame.mask is None:
            return None
        if self._mask is None or self._mask[0] is not frame.mask:
            if frame.mask.shape != frame.image.shape[:2]:
                raise ValueError(f"the mask must have the shape {frame.image.shape[:2]}, got {frame.mask.shape}")
            hidden = np.where(frame.mask, 0, 255).astype(np.uint8)
            if self._maps is not None:
                hidden = cv2.remap(hidden, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            size = (self.camera.width, self.camera.height)
            self._mask = frame.mask, cv2.resize(hidden, size, interpolation=self._interpolation) < HIDDEN
        return self._mask[1]

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


def pinhole_of(camera: Camera) -> Camera:
    """The pinhole, of the same image size, to which the images of a camera are undistorted.

    Every pixel of it lies inside the distorted image, on the side where the lens model does not fold back. Its field of
    view is the camera's `undistort_hfov_deg`; else as wide as possible, of other lenses than RADTAN up to
    FISHEYE_FIELD_DEG along the longer side (a wider pinhole is mostly stretched border).

    Raises:
        UsageError: if the camera does not see that much.
    """
    wanted_deg = camera.undistort_hfov_deg
    if wanted_deg is None and not camera.is_distorted:
        return camera.undistorted()
    if wanted_deg is None and camera.model == RADTAN:
        inner = _inner_pinhole(camera)
        if _is_inside(camera, inner, slack_px=INNER_SLACK * max(camera.width, camera.height)):
            return inner
    shortest = _shortest_focal(camera)
    if wanted_deg is None:
        field_rad = math.radians(FISHEYE_FIELD_DEG if camera.model != RADTAN else WIDEST_DEG)
        focal = max(shortest, 0.5 * max(camera.width, camera.height) / math.tan(field_rad / 2))
    else:
        focal = 0.5 * camera.width / math.tan(math.radians(wanted_deg) / 2)
        if focal < shortest:
            widest_deg = math.degrees(2 * math.atan(0.5 * camera.width / shortest))
            raise UsageError(
                f"--undistort-hfov {wanted_deg:g} is more than this lens fills: give at most {math.floor(widest_deg)}"
            )
    return _centred(camera, focal)


def _centred(camera: Camera, focal: float) -> Camera:
    return Camera(camera.width, camera.height, focal, focal, (camera.width - 1) / 2, (camera.height - 1) / 2)


def _shortest_focal(camera: Camera) -> float:
    """Focal length of the widest centred pinhole whose every pixel lies inside the image."""
    side = 0.5 * camera.width
    narrow, wide = (math.log(side / math.tan(math.radians(deg) / 2)) for deg in (NARROWEST_DEG, WIDEST_DEG))
    if not _is_inside(camera, _centred(camera, math.exp(narrow))):
        raise CalibrationError("the axis of the lens is too far from the middle of its images to undistort them")
    for _ in range(FOCAL_BISECTIONS):
        middle = 0.5 * (narrow + wide)
        if _is_inside(camera, _centred(camera, math.exp(middle))):
            narrow = middle
        else:
            wide = middle
    return math.exp(narrow)


def _is_inside(camera: Camera, pinhole: Camera, slack_px: float = 0.0) -> bool:
    """True if all pixels on the border of `pinhole` show what the camera sees."""
    border = torch.ones(pinhole.height, pinhole.width, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    K = pinhole.matrix()
    xy = (pixel_grid(pinhole.height, pinhole.width, like=K)[border] - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])
    uv = undistortion_map(camera, pinhole)[border]
    size = torch.tensor([camera.width, camera.height], dtype=uv.dtype)
    is_seen = (uv >= -0.5 - slack_px) & (uv <= size - 0.5 + slack_px)
    furthest = FOLD_MARGIN * limit(camera.distortion, camera.model)[0]
    return bool(is_seen.all()) and float(xy.norm(dim=-1).atan().max()) <= furthest


def _inner_pinhole(camera: Camera) -> Camera:
    """OpenCV's pinhole of the same size whose every pixel lies inside the distorted image."""
    distortion = np.array(camera.distortion)
    K, _ = cv2.getOptimalNewCameraMatrix(camera.matrix().numpy(), distortion, (camera.width, camera.height), 0.0)
    return Camera(camera.width, camera.height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
