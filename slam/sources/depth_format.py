"""How data sets store depth, and whether what is read can be metres."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from slam.errors import CalibrationError, SourceError, UsageError
from slam.geometry.camera import Camera
from slam.io.calibration_text import load_yaml
from slam.io.image_size import check_pixels
from slam.io.images import read_depth
from slam.reading import open_file, read_text, reason

log = logging.getLogger(__name__)

SCALE_KEYS = ("depth_scale", "png_depth_scale", "depthmapfactor", "depth_factor")  # in files beside a recording
SCALES = (1.0, 1e6)  # metres in floats; micrometres in 16 bits, of an endoscope
SCALE_WORDS = "the value of one metre, from 1 (metres) over 1000 (millimetres) to 1000000"
USUAL_SCALES = (1000.0, 5000.0)  # millimetres; the TUM benchmark
SAMPLES = 7  # depth maps looked at before a run
# Median and far end of a depth map of a room, metres. A room of 2 m in millimetres, read at 5000 to the metre, has a
# median of 0.4 m and nothing beyond 1 m; a close look at a desk has something behind it.
NEAR_MEDIAN, NEAR_FAR, FAR_MEDIAN = 0.65, 1.4, 10.0
FAR_QUANTILE = 0.98
POSSIBLE_M = (1e-3, 1e4)  # of a median at a stated scale: an endoscope at a wall, a plane over a valley
STATED_SLACK = 100.0  # by which both may be passed where the scale was said
# what NumPy raises of a damaged header, which it reads as Python
UNREADABLE = (ValueError, TypeError, EOFError, OverflowError, SyntaxError, TokenError, MemoryError)


def read_png(path: Path, form: "DepthFormat") -> np.ndarray:
    """A 16-bit PNG."""
    return read_depth(path, form.scale, form.invalid)


def read_npy(path: Path, form: "DepthFormat") -> np.ndarray:
    """A NumPy array (H, W); `form.scale` values to the metre; what is not finite or positive is unknown.

    Raises:
        SourceError: if the file is missing, damaged, or no such array.
    """
    try:
        open_file(path).close()  # of a pipe NumPy waits for the end
        depth = np.load(path, mmap_mode="r", allow_pickle=False)  # else it makes room for what a damaged header says
        if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind not in "fiu":
            raise SourceError(f"{path} is no depth image: expected an array of rows and columns of numbers")
        check_pixels(depth.shape[1], depth.shape[0])
    except OSError as error:
        raise SourceError(f"cannot read the depth {path}: {reason(error)}") from error
    except UNREADABLE as error:
        raise SourceError(f"cannot read the depth {path}: {error}") from error
    with np.errstate(all="ignore"):  # what is infinite, or no number, is left out next
        metres = depth.astype(np.float32) / np.float32(form.scale)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


@dataclass(frozen=True, eq=False)
class DepthFormat:
    """How a data set stores depth."""

    scale: float = 5000.0  # value of one metre
    invalid: int = 0  # value that means unknown, besides 0
    is_stated: bool = False  # the scale is written in the recording or said by the user; else it is a convention
    camera: Camera | None = None  # of the depth images, where it is not that of the images; both have one centre
    read: Callable[[Path, "DepthFormat"], np.ndarray] = read_png  # -> (H, W) float32 z-depth, metres, 0 unknown

    def rescaled(self, scale: float | None, name: str = "") -> "DepthFormat":
        """With the scale that the user says, if any; a WARNING where the recording `name` is known to have another.

        Raises:
            UsageError: if it is no scale.
        """
        if scale is None:
            return self
        if not SCALES[0] <= scale <= SCALES[1]:  # NaN compares false
            raise UsageError(f"--depth-scale is {SCALE_WORDS}, got {scale:g}")
        if self.is_stated and name and scale != self.scale:
            log.warning("--depth-scale %g is used, though %s has %g to the metre", scale, name, self.scale)
        return replace(self, scale=scale, is_stated=True)


def stated_scale(folder: Path) -> float | None:
    """The value of one metre as a file of the recording says it (`scale` of NICE-SLAM's cam_params.json, `depth_scale`
    or `DepthMapFactor` of a calibration); None if none does."""
    for name in ("cam_params.json", "calibration.yaml", "calibration.yml", "camera.yaml", "config.yaml"):
        if not (folder / name).is_file():
            continue
        try:
            scale = _scale_in(load_yaml(read_text(folder / name, "camera parameters"), folder / name))
        except (SourceError, CalibrationError):
            continue  # whoever reads the calibration says what is wrong with it
        if scale is not None:
            return checked_scale(scale, folder / name)
    return None


def checked_scale(scale: float, file: Path) -> float:
    """The value of one metre that a file says.

    Raises:
        SourceError: if it is none.
    """
    if not SCALES[0] <= scale <= SCALES[1]:
        inverse = f" ({scale:g} metres to a value are {1 / scale:g})" if 0 < scale < 1 else ""
        raise SourceError(f"{file}: a depth scale is {SCALE_WORDS}, got {scale:g}{inverse}")
    return scale


def check_scale(name: str, files: Sequence[Path], form: DepthFormat) -> None:
    """Warn where depth read by a mere convention is not that of a room or of anything near it, and where depth of any
    scale is beyond what a sensor measures; refuse a scale by which it is beyond anything.

    Args:
        name: the recording, for the message.
        files: its depth images.

    Raises:
        SourceError: naming the scale.
    """
    if form.read is not read_png or not files:
        return
    chosen = sorted({round(i) for i in np.linspace(0, len(files) - 1, SAMPLES)})
    maps = []
    for i in chosen:
        try:
            depth = form.read(files[i], form)
        except SourceError:
            continue  # warned of where the frame comes
        maps.append(depth[depth > 0])
    maps = [known for known in maps if len(known)]
    if not maps:
        return
    median = float(np.median([np.median(known) for known in maps]))
    far = float(np.median([np.quantile(known, FAR_QUANTILE) for known in maps]))
    if form.is_stated and not POSSIBLE_M[0] <= median <= POSSIBLE_M[1]:
        raise SourceError(
            f"the depth of {name} has a median of {median:.2g} m at {form.scale:g} to the metre, no sensor's is below "
            f"{POSSIBLE_M[0]:g} or above {POSSIBLE_M[1]:g} m: give the value of one metre by --depth-scale"
        )
    slack = STATED_SLACK if form.is_stated else 1.0
    is_near = median < NEAR_MEDIAN / slack and far < NEAR_FAR / slack
    if median <= FAR_MEDIAN * slack and not is_near:
        return
    if form.is_stated:
        words = "the depth of %s has a median of %.2g m at %g to the metre: is that right?"
        log.warning(words, name, median, form.scale)
        return
    others = [s for s in USUAL_SCALES if s != form.scale and (s < form.scale) == (median < NEAR_MEDIAN)]
    hint = "".join(f"; with {s:g} it would be {median * form.scale / s:.2g} m" for s in others)
    log.warning(
        "the depth of %s has a median of %.2g m when %g is one metre%s. If that is wrong, say the value of one metre "
        "with --depth-scale (1000 for millimetres); if it is right, --depth-scale %g says so",
        name,
        median,
        form.scale,
        hint,
        form.scale,
    )


def _scale_in(content: Any) -> float | None:
    """The scale in a tree of mappings."""
    if not isinstance(content, dict):
        return None
    camera = content.get("camera")
    if isinstance(camera, dict) and _is_scale(camera.get("scale")):  # NICE-SLAM's cam_params.json
        return float(camera["scale"])
    for key, value in content.items():
        if str(key).lower().rsplit(".", 1)[-1] in SCALE_KEYS and _is_scale(value):
            return float(value)
        inner = _scale_in(value)
        if inner is not None:
            return inner
    return None


def _is_scale(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value != 1
