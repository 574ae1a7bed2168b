"""Tiny recordings made by hand, for the tests of the sources."""

import struct
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 32, 24


def image(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """RGB whose red says the number; green and blue differ from it."""
    image = np.empty((height, width, 3), np.uint8)
    image[...] = (5 * number, 200, 90)
    return image


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image)


def number_of(image: np.ndarray) -> int:
    """The number of a `image`, checking that its channels are in RGB order."""
    assert abs(int(image[0, 0, 1]) - 200) < 12 and abs(int(image[0, 0, 2]) - 90) < 12
    return round(float(image[..., 0].mean()) / 5)


def tum_folder(path: Path, stamps: list[str], calibration: bool = True) -> Path:
    """A TUM folder with these image stamps, depth of n + 1 metres at each, 4 ms later."""
    lines = []
    for n, stamp in enumerate(stamps):
        save(path / f"rgb/{stamp}.png", image(n))
        lines.append(f"{stamp} rgb/{stamp}.png\n")
    path.mkdir(exist_ok=True)
    (path / "rgb.txt").write_text("# colour images\n# timestamp filename\n" + "".join(lines))
    if calibration:
        (path / "calibration.yaml").write_text(f"width: {WIDTH}\nheight: {HEIGHT}\ncalibration: [30, 31, 15.5, 11.5]\n")
    return path


def add_depth(path: Path, stamps: list[str]) -> None:
    lines = []
    for n, stamp in enumerate(stamps):
        depth = np.full((HEIGHT, WIDTH), 5000 * (n + 1), np.uint16)
        depth[0, 0] = 0
        save(path / f"depth/{stamp}.png", depth)
        lines.append(f"{stamp} depth/{stamp}.png\n")
    (path / "depth.txt").write_text("".join(lines))


def image_folder(path: Path, names: list[str]) -> Path:
    for n, name in enumerate(names):
        save(path / name, image(n))
    return path


def video(path: Path, frames: int, fps: float = 25.0, code: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for n in range(frames):
        writer.write(np.ascontiguousarray(image(n)[..., ::-1]))
    writer.release()
    return path


def turn_video(path: Path, degrees: int) -> None:
    """Let an MP4 say that its images are to be turned clockwise, as phones write it (ISO/IEC 14496-12, 8.3.2)."""
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 44  # of version 0, that OpenCV writes
    assert struct.unpack_from(">9i", data, matrix) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, matrix, a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
