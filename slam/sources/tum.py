"""TUM RGB-D layout: `rgb.txt`, `depth.txt`, `groundtruth.txt`, `calibration.yaml`, and variants seen in the wild.

Reference: Sturm et al., A benchmark for the evaluation of RGB-D SLAM systems, IROS 2012.
"""

import itertools
from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.geometry.camera import Camera
from slam.io.files import read_text
from slam.io.trajectory import format_time_ns, parse_time_ns
from slam.sources.alias import known_camera
from slam.sources.images import IMAGE_SUFFIXES
from slam.sources.sequence import (
    ALL_FRAMES,
    OWN_CAMERA,
    CameraChoice,
    DepthFormat,
    FrameWindow,
    ImageSequence,
    ListedImage,
)

MAX_DIFFERENCE_NS = 20_000_000  # between an image and its depth, as in the benchmark's own tools
DEPTH = DepthFormat(scale=5000.0)


class TumSource(ImageSequence):
    """Frames of a TUM folder, stamps exact to the nanosecond.

    The images are those of `rgb.txt`, or, without it, the files of `rgb/` named by their stamps. The calibration is
    `calibration.yaml` of the folder, else that of the benchmark's camera if the folder has one of its names.
    """

    def __init__(
        self,
        path: Path,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        with_depth: bool = False,
    ) -> None:
        """Read the lists.

        Args:
            with_depth: deliver the depth nearest in time, at most 0.02 s away, each used once.

        Raises:
            SourceError: if the folder is not of this layout, a list is damaged or out of order, or nothing is readable.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        images = _listed(path, "rgb")
        depths: dict[int, Path] = {}
        if with_depth:
            depth_times, depth_files = _columns(_listed(path, "depth"))
            pairs = associate(_columns(images)[0], depth_times)
            depths = {i: depth_files[j] for i, j in pairs}
        super().__init__(
            str(path),
            [ListedImage(time_ns, file, depths.get(i)) for i, (time_ns, file) in enumerate(images)],
            window,
            lambda width, height: choice.camera(width, height, _own_calibrations(path), str(path)),
            DEPTH if with_depth else None,
        )


def is_tum(path: Path) -> bool:
    """True if the folder has a list of images, or images named by stamps in `rgb/`."""
    if (path / "rgb.txt").is_file():
        return True
    return any(_stamp_of(file) is not None for file in _files(path / "rgb"))


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


def _listed(path: Path, kind: str) -> list[tuple[int, Path]]:
    """Stamps and files of `<kind>.txt`, or of the folder `<kind>/` if its names are stamps."""
    if (path / f"{kind}.txt").is_file():
        return _read_list(path / f"{kind}.txt")
    stamped = [(stamp, file) for file in _files(path / kind) if (stamp := _stamp_of(file)) is not None]
    if not stamped:
        remedy = "for a plain folder of images use --images" if kind == "rgb" else "it has no depth to use"
        raise SourceError(f"{path} has no {kind}.txt, nor images named by time stamps in {kind}/; {remedy}")
    stamped.sort()
    for (before, first), (after, second) in itertools.pairwise(stamped):
        if before == after:
            raise SourceError(f"{first} and {second.name} have the same time stamp; remove one")
    return stamped


def _read_list(file: Path) -> list[tuple[int, Path]]:
    """The (time_ns, path) lines of a list, checked to increase in time."""
    listed: list[tuple[int, Path]] = []
    for number, line in enumerate(read_text(file, "list of images").splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise SourceError(f"{file}, line {number}: expected 'timestamp filename', got {line.strip()!r}")
        try:
            time_ns = parse_time_ns(words[0])
        except ValueError as error:
            raise SourceError(f"{file}, line {number}: {error}; expected 'timestamp filename'") from error
        if listed and time_ns <= listed[-1][0]:
            problem = "repeats" if time_ns == listed[-1][0] else "is earlier than"
            raise SourceError(
                f"{file}, line {number}: time {words[0]} {problem} the stamp before it "
                f"({format_time_ns(listed[-1][0])}); sort the file and remove duplicates"
            )
        listed.append((time_ns, file.parent / words[1].strip()))
    if not listed:
        raise SourceError(f"{file} lists no images")
    return listed


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]


def _stamp_of(file: Path) -> int | None:
    try:
        return parse_time_ns(file.stem)
    except ValueError:
        return None
