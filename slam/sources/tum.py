"""TUM RGB-D layout: `rgb.txt`, `depth.txt`, `groundtruth.txt`, `calibration.yaml`, and variants seen in the wild.

Reference: Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems, IROS 2012.
"""

from pathlib import Path

import numpy as np

from slam.errors import SourceError, UsageError
from slam.geometry.camera import Camera
from slam.io.images import DEPTH_SCALE
from slam.io.recorder import has_sensor_depth
from slam.sources.alias import known_camera
from slam.sources.depth_format import DepthFormat, stated_scale
from slam.sources.image_lists import read_image_list
from slam.sources.images import images_in, timed_images
from slam.sources.names import by_name, counter_of
from slam.sources.sequence import (
    ALL_FRAMES,
    OWN_CAMERA,
    CameraChoice,
    FrameWindow,
    ImageSequence,
    ListedImage,
    checked_fps,
)

MAX_DIFFERENCE_NS = 20_000_000  # between an image and its depth, as in the benchmark's own tools


class TumSource(ImageSequence):
    """Frames of a TUM folder, stamps exact to the nanosecond.

    The images are those of `rgb.txt`, or, without it, the files of `rgb/`, with the stamps of their names or, where
    they only count, at a constant rate. The calibration is `calibration.yaml` of the folder, else that of the
    benchmark's camera if the folder has one of its names.
    """

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        with_depth: bool = False,
        fps: float | None = None,
        depth_scale: float | None = None,
    ) -> None:
        """Read the lists.

        Args:
            with_depth: deliver the depth nearest in time, at most 0.02 s away, each used once; where names only count,
                that of the same number.
            fps: frames per second, where names only count; None: 30.
            depth_scale: its value of one metre, where it is not that of the layout.

        Raises:
            UsageError: if there are stamps, and a rate is given.
            SourceError: if the folder is not of this layout, a list is damaged, or nothing is readable.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        images = _listed(path, "rgb")
        if images is None:
            shots = _counted(path, checked_fps(fps), with_depth)
        elif fps is not None:
            raise UsageError(f"--fps is for images and videos; {path} (tum) has its own time stamps")
        else:
            shots = _with_depth(images, path) if with_depth else [ListedImage(*each) for each in images]
        super().__init__(
            str(path),
            shots,
            window,
            lambda width, height: choice.camera(width, height, _own_calibrations(path), str(path)),
            depth_format(path).rescaled(depth_scale, str(path)) if with_depth else None,
        )


def is_tum(path: Path) -> bool:
    """True if the folder has a list of images, or images in `rgb/`."""
    return (path / "rgb.txt").is_file() or bool(images_in(path / "rgb"))


def depth_format(path: Path) -> DepthFormat:
    """5000 to the metre, unless a file of the folder says otherwise; a recording of ours says it in `depth.txt`."""
    scale = stated_scale(path)
    return DepthFormat(scale or DEPTH_SCALE, is_stated=scale is not None or has_sensor_depth(path))


def associate(a_ns: np.ndarray, b_ns: np.ndarray, max_difference_ns: int = MAX_DIFFERENCE_NS) -> list[tuple[int, int]]:
    """Pair two increasing series of times, one to one, the closest pairs first.

    Args:
        a_ns, b_ns: (N,), (M,) int64.

    Returns:
        (i, j) with `|a_ns[i] - b_ns[j]| <= max_difference_ns`, increasing in i.
    """
    first = np.searchsorted(b_ns, a_ns - max_difference_ns, "left")
    last = np.searchsorted(b_ns, a_ns + max_difference_ns, "right")
    candidates = [(abs(int(a_ns[i] - b_ns[j])), i, j) for i in range(len(a_ns)) for j in range(first[i], last[i])]
    free_a, free_b = np.ones(len(a_ns), bool), np.ones(len(b_ns), bool)
    pairs = []
    for _, i, j in sorted(candidates):
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = False
            pairs.append((i, j))
    return sorted(pairs)


def _own_calibrations(path: Path) -> list[Path | Camera]:
    known = known_camera(path)
    return [path / "calibration.yaml", path / "calibration.txt", *([known] if known else [])]


def _columns(listed: list[tuple[int, Path]]) -> tuple[np.ndarray, list[Path]]:
    return np.array([time_ns for time_ns, _ in listed], dtype=np.int64), [file for _, file in listed]


def _with_depth(images: list[tuple[int, Path]], path: Path) -> list[ListedImage]:
    listed = _listed(path, "depth")
    if listed is None:
        raise SourceError(f"{path} has no depth.txt, nor images named by time stamps in depth/; it has no depth to use")
    depth_times, depth_files = _columns(listed)
    depths = {i: depth_files[j] for i, j in associate(_columns(images)[0], depth_times)}
    return [ListedImage(time_ns, file, depths.get(i)) for i, (time_ns, file) in enumerate(images)]


def _counted(path: Path, fps: float | None, with_depth: bool) -> list[ListedImage]:
    """Images whose names only count, with the depth of the same number."""
    shots = timed_images(images_in(path / "rgb"), fps, str(path / "rgb"))
    if not with_depth:
        return shots
    depths = {counter_of(file): file for file in images_in(path / "depth")}
    if not depths:
        raise SourceError(f"{path} has no images in depth/; it has no depth to use")
    return [ListedImage(shot.time_ns, shot.image, depths.get(counter_of(shot.image))) for shot in shots]


def _listed(path: Path, kind: str) -> list[tuple[int, Path]] | None:
    """Stamps and files of `<kind>.txt`, or of the folder `<kind>/`; None if its names only count."""
    if (path / f"{kind}.txt").is_file():
        return read_image_list(path / f"{kind}.txt", path)
    files = images_in(path / kind)
    if not files:
        remedy = "for a plain folder of images use --images" if kind == "rgb" else "it has no depth to use"
        raise SourceError(f"{path} has no {kind}.txt, nor images named by time stamps in {kind}/; {remedy}")
    if by_name(files).time_ns is None:
        return None
    return [(shot.time_ns, shot.image) for shot in timed_images(files, None, str(path / kind), takes_fps=False)]
