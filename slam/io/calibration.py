"""Cameras from calibration files and from what other files say of them, and our calibration file.

Pixels as in OpenCV: pixel (0, 0) is the centre of the first one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slam.errors import CalibrationError, warn_once
from slam.geometry.camera import Camera
from slam.geometry.lens import RADTAN
from slam.io.calibration_text import described
from slam.io.files import write_text
from slam.io.lens_names import lens_of
from slam.io.plausible import check_plausible
from slam.reading import read_text

MAX_BYTES = 16 << 20  # of a file; transforms.json of nerfstudio takes 1 kB for each image


def camera_of(
    model: str,
    width: int,
    height: int,
    intrinsics: Sequence[float],
    coefficients: Sequence[float],
    name: str,
) -> Camera:
    """The camera that a file or a message describes; every reader makes its cameras here.

    What is doubtful is a WARNING, once; what cannot be a camera is refused.

    Args:
        model: any common name of a lens model (plumb_bob, radtan, opencv, equidistant, KannalaBrandt8, fisheye, mei,
            ds, ...) in any spelling, or camera and distortion model in one, `pinhole-equi`. Empty: OpenCV's.
        intrinsics: fx fy cx cy, pixels; Kalibr's omni, ds and eucm have their own coefficients in front.
        coefficients: of the distortion, in the order of `slam.geometry.lens`; none: no distortion.
        name: of the calibration, for messages.

    Raises:
        CalibrationError: if the model is unknown, or the numbers are not those of a camera of this size.
    """
    lens, (fx, fy, cx, cy), distortion = lens_of(model, intrinsics, coefficients, name)
    try:
        camera = Camera(width, height, fx, fy, cx, cy, distortion, lens)
    except CalibrationError as error:
        raise CalibrationError(f"{name}: {error}") from error
    check_plausible(camera, name)
    return camera


def read_calibration(path: str | Path, size: tuple[int, int] | None = None, turned_deg: int | None = None) -> Camera:
    """Read a calibration file of any of the known kinds.

    Args:
        size: (width, height) of the images in use. A file without a size gets it; a file with another size is an
            error, never rescaled: a crop and a resize look alike in the numbers.
        turned_deg: as of `fitted`.

    Raises:
        CalibrationError: if the file is missing, of no known kind, incomplete, not a camera, or for other images.
    """
    path = Path(path)
    text = read_text(path, "calibration", CalibrationError, MAX_BYTES)
    says = described(text, path)
    width, height = says.size or size or (0, 0)
    if not width:
        raise CalibrationError(f"{path} gives no image size: write it as YAML with width and height")
    camera = camera_of(says.model, width, height, says.intrinsics, says.coefficients, str(path))
    if says.undistort_hfov_deg is not None:
        camera = replace(camera, undistort_hfov_deg=says.undistort_hfov_deg)
    camera = replace(camera, is_guess=says.is_guess)
    return camera if size is None else fitted(camera, *size, str(path), turned_deg)


def fitted(camera: Camera, width: int, height: int, name: str, turned_deg: int | None = None) -> Camera:
    """A calibration as that of images of this size, which may have been turned since they were taken.

    Args:
        name: the calibration, as the user knows it.
        turned_deg: clockwise from the images as the sensor took them to those in use; None: not known. A calibration
            of the shape of the first is turned too, with a WARNING.

    Raises:
        CalibrationError: as `check_size`.
    """
    if turned_deg in (90, 270) and (camera.width, camera.height) == (height, width) and width != height:
        warn_once(
            f"{name} is for {camera.width}x{camera.height} images; it is turned clockwise by {turned_deg} degrees, as "
            f"the {width}x{height} images are by their own account"
        )
        return camera.turned(turned_deg)
    check_size(camera, width, height, name)
    return camera


def check_size(camera: Camera, width: int, height: int, name: str) -> None:
    """Make sure that a calibration belongs to images of this size.

    Args:
        name: the calibration, as the user knows it.

    Raises:
        CalibrationError: saying both sizes and what to do.
    """
    if (camera.width, camera.height) == (width, height):
        return
    problem = f"{name} is for {camera.width}x{camera.height} images but these are {width}x{height}"
    if camera.width * height == camera.height * width:
        s = width / camera.width
        numbers = _numbers(camera.resized(width, height).undistorted())
        raise CalibrationError(
            f"{problem}; if they are the same images resized by {s:g}, put width: {width}, height: {height} and "
            f"[{numbers}, same distortion] into the file, else calibrate at this size"
        )
    if (camera.width, camera.height) == (height, width):
        clockwise, counter = (_numbers(camera.turned(degrees)) for degrees in (90, 270))
        raise CalibrationError(
            f"{problem}; put width: {width}, height: {height} into the file, and calibration: [{clockwise}] if the "
            f"images were turned clockwise after they were taken, [{counter}] if counter-clockwise"
        )
    raise CalibrationError(f"{problem}, another shape: calibrate again with images of this size")


def _numbers(camera: Camera) -> str:
    return ", ".join(f"{x:.6g}" for x in (camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion))


def write_calibration(path: Path, camera: Camera, note: str = "") -> None:
    """Write our YAML form, every digit kept, with a note in words; raises OutputError."""
    values = [camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion]
    numbers = ", ".join(repr(float(value)) for value in values)
    lines = [
        "# pixels; fx, fy, cx, cy and distortion as in OpenCV, pixel (0, 0) is the centre of the first",
        f"width: {camera.width}",
        f"height: {camera.height}",
        f"calibration: [{numbers}]",
    ]
    if camera.model != RADTAN:
        lines.append(f"distortion_model: {camera.model}")
    if camera.undistort_hfov_deg is not None:
        lines.append(f"undistort_hfov: {camera.undistort_hfov_deg!r}")
    if camera.is_guess:
        lines.append("guess: true  # a typical lens, nobody measured it")
    if note:
        lines.insert(0, f"# {note}")
    write_text(path, "\n".join(lines) + "\n")
