"""Image files: colour, 16-bit depth, 8-bit confidence and masks.

OpenCV is used here only to encode and decode; the bytes go through Python, which reports a full disk (imwrite does
not) and takes any path. Its BGR order stays inside this file.
"""

from pathlib import Path

import cv2
import numpy as np

from slam.errors import OutputError, SourceError
from slam.io.files import write_bytes
from slam.io.image_data import decoded
from slam.reading import read_bytes, reason

DEPTH_SCALE = 5000.0  # PNG value of one metre (TUM RGB-D); 65535 is 13.1 m, 0 is unknown
JPEG_QUALITY = 95
MAX_UINT16 = 65535
MAX_BYTES = 512 << 20  # of a file: the largest size that is read, with 16 bits a colour and not compressed


def write_color(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 RGB as JPEG or PNG, by the suffix.

    Raises:
        OutputError: if the suffix is unknown or the file cannot be written.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"need (H, W, 3) uint8, got {image.shape} {image.dtype}")
    _encode(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def read_color(path: Path, levels: tuple[float, float] | None = None) -> np.ndarray:
    """Read any image as (H, W, 3) uint8 RGB.

    Gray is repeated, palettes and CMYK are converted, alpha is left out, of animations and pages the first counts. The
    rotation that EXIF asks for is applied: calibrations are of images as they are shown, as v2d-calibrate sees them.

    Args:
        levels: values that become black and white; None: 16 bits are cut to 8.

    Raises:
        SourceError: if the file is missing, no image, or cut off.
    """
    if levels is not None:
        return stretched(read_full_depth(path), levels)
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_unchanged(path: Path) -> np.ndarray:
    """The pixels as the file has them: (H, W) or (H, W, 3 or 4), BGR, of any type, not turned; raises SourceError."""
    return _decode(path, cv2.IMREAD_UNCHANGED)


def read_full_depth(path: Path) -> np.ndarray:
    """As `read_color`, but values of more than 8 bits stay as they are; raises SourceError."""
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), cv2.COLOR_BGR2RGB)


def stretched(image: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """An image as uint8 whose values `levels` become black and white."""
    low, high = levels
    if image.dtype == np.uint8:
        table = np.clip((np.arange(256) - low) * (255 / (high - low)), 0, 255)
        return np.asarray(cv2.LUT(image, np.rint(table).astype(np.uint8)))
    return cv2.convertScaleAbs(cv2.max(image.astype(np.float32) - np.float32(low), 0), alpha=255 / (high - low))


def write_depth(path: Path, depth: np.ndarray, scale: float = DEPTH_SCALE) -> None:
    """Write (H, W) z-depth as a 16-bit PNG of `round(depth * scale)`.

    What is unknown, not finite, or past the range of 16 bits (13.1 m at the default) is written as 0, unknown.

    Raises:
        OutputError: if the file cannot be written.
    """
    scaled = np.rint(np.nan_to_num(depth.astype(np.float64) * scale, nan=0.0, posinf=0.0, neginf=0.0))
    _encode(path, np.where((scaled > 0) & (scaled <= MAX_UINT16), scaled, 0).astype(np.uint16))


def read_depth(path: Path, scale: float = DEPTH_SCALE, invalid: int = 0) -> np.ndarray:
    """Read a 16-bit PNG as (H, W) float32 z-depth (metres where `scale` is values per metre); 0 is unknown.

    Args:
        invalid: a further value that means unknown.

    Raises:
        SourceError: if the file is missing or no 16-bit single-channel image.
    """
    values = _decode(path, cv2.IMREAD_UNCHANGED)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise SourceError(
            f"{path} is no depth image: expected one channel of 16 bits, got {values.dtype} {values.shape}"
        )
    return np.where(values == invalid, 0, values).astype(np.float32) / np.float32(scale)


def write_confidence(path: Path, confidence: np.ndarray) -> None:
    """Write (H, W) confidence in [0, 1] as an 8-bit PNG, 255 = 1; raises OutputError."""
    _encode(path, np.rint(255 * np.clip(np.nan_to_num(confidence), 0, 1)).astype(np.uint8))


def read_confidence(path: Path) -> np.ndarray:
    """Read an 8-bit PNG as (H, W) float32 in [0, 1]; raises SourceError."""
    values = _decode(path, cv2.IMREAD_UNCHANGED)
    if values.dtype != np.uint8 or values.ndim != 2:
        raise SourceError(f"{path} is no confidence image: expected one channel of 8 bits, got {values.dtype}")
    return values.astype(np.float32) / np.float32(255)


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write (H, W) bool as an 8-bit PNG, 255 = True; raises OutputError."""
    _encode(path, np.where(mask, 255, 0).astype(np.uint8))


def read_mask(path: Path) -> np.ndarray:
    """Read an 8-bit PNG as (H, W) bool, True from 128; raises SourceError."""
    values = _decode(path, cv2.IMREAD_UNCHANGED)
    if values.dtype != np.uint8 or values.ndim != 2:
        raise SourceError(f"{path} is no mask: expected one channel of 8 bits, got {values.dtype} {values.shape}")
    return values >= 128


def _encode(path: Path, pixels: np.ndarray) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        done, data = cv2.imencode(path.suffix, pixels, options)
    except cv2.error as error:
        raise OutputError(f"cannot write {path}: no image format has the suffix {path.suffix!r}") from error
    if not done:
        raise OutputError(f"cannot write {path}: encoding {pixels.shape} {pixels.dtype} failed")
    write_bytes(path, data.tobytes())


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        return decoded(read_bytes(path, MAX_BYTES), flags)
    except OSError as error:
        raise SourceError(f"cannot read the image {path}: {reason(error)}") from error
    except ValueError as error:
        raise SourceError(f"cannot read the image {path}: {error}") from error
