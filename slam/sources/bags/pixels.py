"""Images of `sensor_msgs/Image` and `sensor_msgs/CompressedImage`.

Reference: sensor_msgs/image_encodings.h; compressed_depth_image_transport/compression_common.h (ROS).
"""

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from slam.errors import shown
from slam.io.image_data import decoded
from slam.sources.bags.messages import Message, MessageError

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
BAYER = {
    "bayer_rggb": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg": cv2.COLOR_BayerGRBG2RGB,
}
# channels, bytes of each, and what makes RGB of it
ENCODINGS: dict[str, tuple[int, int, int | None]] = {
    "rgb8": (3, 1, None),
    "bgr8": (3, 1, cv2.COLOR_BGR2RGB),
    "rgba8": (4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, 1, cv2.COLOR_BGRA2RGB),
    "8uc3": (3, 1, cv2.COLOR_BGR2RGB),  # without a stated order: as OpenCV has it
    "8uc4": (4, 1, cv2.COLOR_BGRA2RGB),
    "mono8": (1, 1, cv2.COLOR_GRAY2RGB),
    "8uc1": (1, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": (3, 2, None),
    "bgr16": (3, 2, cv2.COLOR_BGR2RGB),
    "rgba16": (4, 2, cv2.COLOR_RGBA2RGB),
    "bgra16": (4, 2, cv2.COLOR_BGRA2RGB),
    "mono16": (1, 2, cv2.COLOR_GRAY2RGB),
    "16uc1": (1, 2, cv2.COLOR_GRAY2RGB),
    "yuv422": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, 1, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": (2, 1, cv2.COLOR_YUV2RGB_YUYV),
    **{f"{name}8": (1, 1, code) for name, code in BAYER.items()},
    **{f"{name}16": (1, 2, code) for name, code in BAYER.items()},
}
GRAY = ("mono8", "8uc1", "mono16", "16uc1")
DEPTHS = ("16uc1", "32fc1")
MILLIMETRES = 1000.0  # value of one metre
SENSOR_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True)
class ImageForm:
    """What the images of a topic are like."""

    encoding: str  # as the message says; of a compressed image that of its contents, where it says it
    width: int
    height: int
    is_gray: bool
    is_depth: bool  # by its encoding
    bits: int = 8  # of the brightness, of 16-bit images

    def __str__(self) -> str:
        return f"{self.encoding} {self.width}x{self.height}"


def form_of(message: Message, type_name: str) -> ImageForm:
    """What an image is like.

    Raises:
        MessageError: if it is damaged, or of an encoding that is not known.
    """
    encoding = encoding_of(message, type_name)
    if is_compressed_depth(message, type_name):
        values = _compressed_depth(message.content)
        return ImageForm("compressedDepth", values.shape[1], values.shape[0], True, True)
    base = encoding.lower()
    pixels = _decoded(message.content) if type_name == COMPRESSED else _raw(message.content)
    is_gray = pixels.ndim == 2 and not base.startswith("bayer")
    is_depth = base in DEPTHS
    peak = int(pixels.max(initial=0)) if pixels.dtype == np.uint16 else 255
    bits = next(bits for bits in SENSOR_BITS if peak < 1 << bits)
    return ImageForm(encoding, pixels.shape[1], pixels.shape[0], is_gray, is_depth, bits)


def encoding_of(message: Message, type_name: str) -> str:
    """The encoding, or the format of a compressed image: `bgr8` of `bgr8; jpeg compressed bgr8`, `jpeg` of `jpeg`."""
    if type_name == IMAGE:
        return str(message.content.encoding)
    return str(message.content.format).partition(";")[0].strip() or "compressed"


def is_compressed_depth(message: Message, type_name: str) -> bool:
    """True of depth that was coded by compressed_depth_image_transport, which no image reader opens."""
    return type_name == COMPRESSED and "compresseddepth" in str(message.content.format).lower()


def rgb_of(message: Message, type_name: str, bits: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Args:
        bits: of the brightness of 16-bit images; what is brighter is cut.

    Raises:
        MessageError: if the message is damaged, or of an encoding that is not known.
    """
    encoding = encoding_of(message, type_name).lower()
    if type_name == COMPRESSED:
        pixels = _decoded(message.content)
        code: int | None = _code_of_decoded(pixels, encoding)
    else:
        pixels, code = _raw(message.content), ENCODINGS[encoding][2]
    try:
        rgb = pixels if code is None else cv2.cvtColor(pixels, code)
    except cv2.error as error:
        raise MessageError(f"{encoding} of {pixels.shape[1]}x{pixels.shape[0]} cannot be converted") from error
    if rgb.dtype == np.uint16:
        rgb = np.minimum(rgb >> (bits - 8), 255).astype(np.uint8)
    return np.ascontiguousarray(rgb)


def depth_of(message: Message, type_name: str, scale: float = MILLIMETRES) -> np.ndarray:
    """(H, W) float32 z-depth in metres, 0 unknown: of millimetres (16UC1) or metres (32FC1), also compressed (REP 118).

    Args:
        scale: value of one metre in depth of integers.

    Raises:
        MessageError: if the message is damaged or no depth.
    """
    if is_compressed_depth(message, type_name):
        values = _compressed_depth(message.content)
    elif type_name == COMPRESSED:
        values = _decoded(message.content)
    else:
        values = _raw(message.content)
    if values.ndim != 2 or values.dtype not in (np.uint16, np.float32):
        raise MessageError("it is no depth")
    metres = values.astype(np.float32) / np.float32(scale if values.dtype == np.uint16 else 1)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


def _raw(image: Any) -> np.ndarray:
    """(H, W) or (H, W, channels) of uint8, uint16 or float32, of this computer's order of bytes."""
    encoding = str(image.encoding).lower()
    if encoding != "32fc1" and encoding not in ENCODINGS:
        raise MessageError(f"the encoding {shown(image.encoding)} is not supported ({', '.join(ENCODINGS)})")
    channels, size = (1, 4) if encoding == "32fc1" else ENCODINGS[encoding][:2]
    height, width, step = int(image.height), int(image.width), int(image.step)
    row = width * channels * size
    data = np.asarray(image.data, np.uint8)
    if not height or not width or step < row or len(data) < step * (height - 1) + row:
        raise MessageError(f"its data is too short: {len(data)} bytes for {width}x{height} {image.encoding}")
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    order = ">" if image.is_bigendian else "<"
    kind = np.dtype({1: "u1", 2: f"{order}u2", 4: f"{order}f4"}[size])
    pixels = np.ascontiguousarray(rows).view(kind).reshape(height, width, channels)
    pixels = pixels.astype(kind.newbyteorder("="), copy=False)
    return pixels[..., 0] if channels == 1 else pixels


def _decoded(image: Any, begin: int = 0) -> np.ndarray:
    """(H, W) or (H, W, channels), channels in OpenCV's order, of the JPEG, PNG or other image file in the data from a
    byte on."""
    try:
        pixels = decoded(bytes(image.data[begin:]), cv2.IMREAD_UNCHANGED)
    except ValueError as error:
        raise MessageError(f"an image of the format {shown(str(image.format))} cannot be decoded: {error}") from error
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MessageError(f"its values are of the type {pixels.dtype}")
    return pixels


def _code_of_decoded(pixels: np.ndarray, encoding: str) -> int:
    if pixels.ndim == 2:
        return BAYER.get(encoding.rstrip("0123456789"), cv2.COLOR_GRAY2RGB)
    return cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB


def _compressed_depth(image: Any) -> np.ndarray:
    """(H, W) uint16 millimetres or float32 metres: a PNG after 12 bytes, of inverse depth where it was float."""
    data = np.asarray(image.data, np.uint8)
    if len(data) < 12:
        raise MessageError("its depth is too short")
    values = _decoded(image, 12)
    if "32fc1" not in str(image.format).lower():
        return values
    a, b = struct.unpack("<ff", bytes(data[4:12]))  # inverse depth is (value - b) / a
    with np.errstate(divide="ignore"):
        return np.where(values > 0, a / (values.astype(np.float32) - np.float32(b)), np.float32(0)).astype(np.float32)
