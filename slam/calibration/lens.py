"""Calibration of a camera from views of a board: which views to use, what is still missing, and the solution.

Reference: Zhang, A flexible new technique for camera calibration, PAMI 2000 (as in OpenCV's calibrateCamera).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from slam.calibration.boards import BoardView
from slam.errors import CalibrationError
from slam.geometry.camera import Camera

log = logging.getLogger(__name__)

MAX_VIEWS = 40  # more cost time and add nothing
MIN_VIEWS = 6
GOOD_VIEWS = 12
NEAR_DUPLICATE = 0.04  # distance of two views, see `Views.add`
CELL_CORNERS = 6  # corners, in all views together, that make a ninth of the image covered
TILTED = 0.08  # change of distance across the board, relative
TILTED_VIEWS = 2  # wanted about each axis
CLOSE = 0.35  # side of the board in the image, as a share of the image's
OUTLIER_RATIO = 2.5  # a view that fits this many times worse than the median view is left out, once
OUTLIER_PX = 0.3  # but not one that fits better than this
POOR_PX = 1.0  # RMS error of a calibration to be doubted
WRONG_PX = 8.0  # RMS error that no lens explains
POOR_FOCAL = 0.01  # standard deviation of the focal length, relative
CELL_NAMES = (
    ("upper left", "upper middle", "upper right"),
    ("middle left", "centre", "middle right"),
    ("lower left", "lower middle", "lower right"),
)


@dataclass(frozen=True)
class Calibration:
    """A calibrated camera and how far to trust it."""

    camera: Camera
    rms_px: float  # reprojection error
    focal_deviation_px: float  # standard deviation of fx
    views_used: int
    views_dropped: int  # outliers


class Views:
    """The varied views of a board seen so far."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.views: list[BoardView] = []
        self._looks: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.views)

    def add(self, view: BoardView) -> bool:
        """Take a view unless it looks like one there is; the distance is of position, size and tilt, see `_look`.

        Of more than MAX_VIEWS, one of the two most alike is given up.
        """
        look = _look(view, self.width, self.height)
        if look is None or (
            self._looks and min(np.linalg.norm(look - other) for other in self._looks) < NEAR_DUPLICATE
        ):
            return False
        self.views.append(view)
        self._looks.append(look)
        if len(self.views) > MAX_VIEWS:
            looks = np.array(self._looks)
            distance = np.linalg.norm(looks[:, None] - looks[None], axis=-1) + 1e9 * np.eye(len(looks))
            worst = int(distance.min(1).argmin())
            del self.views[worst], self._looks[worst]
            return worst != MAX_VIEWS
        return True

    def coverage(self) -> np.ndarray:
        """(3, 3) bool: which ninths of the image have corners."""
        counts = np.zeros((3, 3), int)
        for view in self.views:
            column = np.clip(3 * (view.uv[:, 0] + 0.5) / self.width, 0, 2).astype(int)
            row = np.clip(3 * (view.uv[:, 1] + 0.5) / self.height, 0, 2).astype(int)
            np.add.at(counts, (row, column), 1)
        return counts >= CELL_CORNERS

    def missing(self) -> list[str]:
        """What to do next, in words; empty if the views suffice."""
        bare = [CELL_NAMES[row][column] for row, column in np.argwhere(~self.coverage())]
        words = [f"move the board to the {', '.join(bare)}"] if bare else []
        looks = np.array(self._looks).reshape(-1, 6)
        for axis, name in enumerate(("left and right", "up and down")):
            if (np.abs(looks[:, 3 + axis]) > TILTED).sum() < TILTED_VIEWS:
                words.append(f"tilt it {name}")
        if not (looks[:, 2] > CLOSE).any():
            words.append("bring it closer")
        if len(self) < GOOD_VIEWS:
            words.append(f"show {GOOD_VIEWS - len(self)} more different views")
        return words

    def image(self) -> str:
        """Coverage as three words of three signs."""
        return " ".join("".join("#" if covered else "." for covered in row) for row in self.coverage())

    def feedback(self) -> str:
        """The state in one line."""
        missing = self.missing()
        return f"{len(self)} views, coverage {self.image()}: {'; '.join(missing) if missing else 'enough'}"


def calibrate(views: Sequence[BoardView], width: int, height: int, with_k3: bool = False) -> Calibration:
    """Solve for fx fy cx cy k1 k2 p1 p2 [k3]; views that fit badly are dropped once.

    Raises:
        CalibrationError: if there are too few views, they fix no camera, or no camera explains them.
    """
    if len(views) < MIN_VIEWS:
        raise CalibrationError(
            f"only {len(views)} different views of the board, at least {MIN_VIEWS} are needed ({GOOD_VIEWS} or more "
            "are good): move and tilt the board between images"
        )
    kept = list(views)
    solution = _solve(kept, width, height, with_k3)
    limit = max(OUTLIER_RATIO * float(np.median(solution.view_px)), OUTLIER_PX)
    good = [view for view, error in zip(kept, solution.view_px) if error <= limit]
    if MIN_VIEWS <= len(good) < len(kept):
        kept, solution = good, _solve(good, width, height, with_k3)
    if not solution.rms_px <= WRONG_PX:  # NaN too
        raise CalibrationError(
            f"no camera explains these views (error {solution.rms_px:.1f} px): is the board flat, are --board and "
            "--size those of this board, and do all images come from one camera at one zoom?"
        )
    K, distortion = solution.K, solution.distortion
    fx, fy, cx, cy = (float(K[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = Camera(width, height, fx, fy, cx, cy, tuple(float(d) for d in distortion))
    return Calibration(camera, solution.rms_px, solution.focal_px, len(kept), len(views) - len(kept))


def doubts(calibration: Calibration, views: Views) -> list[str]:
    """Reasons to mistrust a calibration, each with a remedy."""
    words = []
    if calibration.rms_px > POOR_PX:
        words.append(
            f"the error of {calibration.rms_px:.2f} px is large (below 0.5 is good): blurred images, a board that "
            "is not flat, or a zooming lens"
        )
    camera = calibration.camera
    if calibration.focal_deviation_px > POOR_FOCAL * camera.fx:
        words.append(
            f"the focal length is uncertain by {100 * calibration.focal_deviation_px / camera.fx:.1f} %: tilt the board"
        )
    missing = views.missing()
    if missing:
        words.append(f"the views are one-sided: {'; '.join(missing)}")
    return words


@dataclass(frozen=True, eq=False)
class _Solution:
    K: np.ndarray
    distortion: np.ndarray
    rms_px: float
    focal_px: float
    view_px: np.ndarray


def _solve(views: Sequence[BoardView], width: int, height: int, with_k3: bool) -> _Solution:
    try:
        rms, K, distortion, _, _, deviations, _, view_px = cv2.calibrateCameraExtended(
            [view.xyz for view in views],
            [view.uv for view in views],
            (width, height),
            None,
            None,
            flags=0 if with_k3 else cv2.CALIB_FIX_K3,
        )
    except cv2.error as error:
        raise CalibrationError(
            f"the {len(views)} views fix no camera ({error.err or error}): show the board tilted, in all parts of the "
            "image"
        ) from error
    if not (np.isfinite(K).all() and np.isfinite(distortion).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise CalibrationError(f"the {len(views)} views fix no camera: tilt the board differently in each")
    return _Solution(
        K,
        distortion.ravel()[: 5 if with_k3 else 4],
        float(rms),
        float(deviations.ravel()[0]),
        np.asarray(view_px).ravel(),
    )


def _look(view: BoardView, width: int, height: int) -> np.ndarray | None:
    """(6,) position u, v and size as shares of the image, tilt about two axes, roll; None if it fixes no plane.

    Tilt is the relative change of distance across the board, from the homography's last row; in magnitude because a
    checkerboard turned by half a turn looks the same.
    """
    H, _ = cv2.findHomography(view.xyz[:, :2].astype(np.float64), view.uv.astype(np.float64))
    if H is None:
        return None
    extent = np.ptp(view.xyz[:, :2], axis=0)
    middle = view.xyz[:, :2].mean(0)
    scale = H[2, :2] @ middle + H[2, 2]
    tilt = np.abs(H[2, :2]) * extent / abs(scale)
    centre = view.uv.mean(0) / (width, height)
    size = np.sqrt(cv2.contourArea(cv2.convexHull(view.uv)) / (width * height))
    along = H[:2, 0] - H[2, 0] * view.uv.mean(0)
    roll = np.abs(np.arctan2(along[1], along[0])) / np.pi
    return np.array([*centre, size, *tilt, 0.3 * min(roll, 1 - roll)])
