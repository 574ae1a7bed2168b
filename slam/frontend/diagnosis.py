"""Why there is no first map: the most likely reason, in one sentence with the remedy."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d

from slam.frames import View
from slam.frontend.initialiser import Initialiser

THUMBNAIL = (15, 20)  # rows and columns
MAX_THUMBNAILS = 400
TEXTURE = 4.0  # gray levels from one pixel to the next that a flow can hold on to
FEW_FRAMES = 5
BLACK, WHITE = 12, 243  # median gray level
MIN_TEXTURED = 0.01  # share of the pixels
STILL_PX = 1.0  # largest flow of a camera that stands still
SAME = 0.5  # gray levels, mean difference of the thumbnails of a repeated image
MOSTLY = 0.6  # share of the frames that repeat the one before, in slides
SHUFFLED = 0.5  # distance to the most similar frame, over that to the next one, median
MIN_SHUFFLED = 12  # frames from which the order can be judged
MANY_FAILED = 0.4  # share of the frames that were not found in the ones before
NARROW_DEG, WIDE_DEG = 15.0, 120.0  # horizontal fields of view that ordinary lenses do not have
TURNED_DEG = 2.0


@dataclass(frozen=True)
class StartEvidence:
    """What is known of frames that made no map; pixels are of the network size."""

    frames: int
    size: tuple[int, int] = (640, 480)  # width and height of the images as delivered
    hfov_deg: float = 60.0  # of the lens, as given or guessed
    gray: float = 128.0  # median gray level of the median frame
    textured: float = 0.5  # share of the pixels with texture, of the best frame
    repeated: float = 0.0  # share of the frames that are the same as the one before
    nearest: float = 1.0  # distance of a frame to the most similar other one, over that to the next; median
    failed: float = 0.0  # share of the frames that were not found in the ones before
    flow_px: float = 0.0  # largest median flow from one frame to a later one
    turned_deg: float = 0.0  # largest rotation
    parallax_px: float = 0.0  # largest
    wanted_px: float = 3.0  # parallax that a map needs


def diagnosed(e: StartEvidence) -> str:
    """The most likely reason, and what to do."""
    if e.frames < FEW_FRAMES:
        return f"{e.frames} frame{'s are' if e.frames != 1 else ' is'} too few for a map: give a longer recording"
    if e.gray <= BLACK:
        return f"the images are nearly black (median {e.gray:.0f} of 255): is the lens covered? give it more light"
    if e.gray >= WHITE:
        return f"the images are nearly white (median {e.gray:.0f} of 255): lower the exposure"
    if e.textured < MIN_TEXTURED:
        return (
            f"the images show next to nothing to hold on to (texture in {100 * e.textured:.1f} % of the pixels): "
            "turn the camera to something with detail, and look at its focus"
        )
    if MOSTLY < e.repeated < 1 and e.failed > 0.5 * (1 - e.repeated):  # what is new has nothing to do with the old
        return (
            "the images stand still and then change at once: slides, or a recorded screen; only a camera can be tracked"
        )
    if e.repeated == 1:
        return "all images are the same: the recording, or the camera, is frozen"
    if e.nearest < SHUFFLED and e.repeated < MOSTLY:
        return "the frames are not in the order in which they were taken: name them so that they sort by time"
    lens = _doubts(e)
    if lens:  # such a lens makes matches fail, too
        return lens
    if e.failed > MANY_FAILED:
        return (
            f"{100 * e.failed:.0f} % of the frames have hardly anything in common with those before: move more slowly, "
            "use every frame (--stride 1), or record more frames a second"
        )
    if e.flow_px < STILL_PX:
        return f"the camera stands still (the image moved by {e.flow_px:.1f} px): move it sideways, slowly"
    if e.parallax_px >= e.wanted_px:
        return (
            f"the motion (parallax {e.parallax_px:.1f} px) fits no rigid scene: most of it moves, or the calibration "
            "is of another lens"
        )
    if e.turned_deg > TURNED_DEG and e.parallax_px < e.wanted_px / 2:
        return (
            f"the camera only turned (by {e.turned_deg:.0f} degrees, with {e.parallax_px:.1f} of {e.wanted_px:g} px of "
            "parallax): move it sideways, slowly"
        )
    small = f", and the images are only {e.size[0]}x{e.size[1]}" if min(e.size) < 64 else ""
    return (
        f"the motion never showed enough parallax ({e.parallax_px:.1f} of {e.wanted_px:g} px{small}): move the camera "
        "sideways, slowly"
    )


def _doubts(e: StartEvidence) -> str:
    """A lens that makes every motion look wrong; empty if it is an ordinary one."""
    if NARROW_DEG <= e.hfov_deg <= WIDE_DEG:
        return ""
    return (
        f"the lens is given as {e.hfov_deg:.0f} degrees wide, which few are, and no motion fits that: give "
        "--calib FILE or --hfov DEGREES"
    )


class StartWatch:
    """Collects the evidence while there is no map."""

    def __init__(self) -> None:
        self.frames = 0
        self._grays: list[float] = []
        self._textured = 0.0
        self._steps: list[float] = []  # mean difference of the thumbnails of consecutive frames
        self._thumbnails: list[np.ndarray] = []
        self._hfov_deg = 60.0

    def add(self, view: View) -> None:
        """Take a view that goes to the start."""
        gray = view.image.gray
        image = torch.from_numpy(gray[::2, ::2]).float()[None]
        small = adaptive_avg_pool2d(image, THUMBNAIL)[0].numpy()
        if self._thumbnails:
            self._steps.append(float(np.abs(small - self._thumbnails[-1]).mean()))
        self._thumbnails = [*self._thumbnails[1 - MAX_THUMBNAILS :], small]
        self._grays.append(float(np.median(gray[::4, ::4])))
        smooth = avg_pool2d(image, 3, 1)  # without the noise of single pixels
        across, down = smooth[:, 2:, 2:] - smooth[:, 2:, :-2], smooth[:, 2:, 2:] - smooth[:, :-2, 2:]
        steps = torch.maximum(across.abs(), down.abs())
        self._textured = max(self._textured, float((steps > TEXTURE).float().mean()))
        self._hfov_deg = 2 * math.degrees(math.atan(0.5 * gray.shape[1] / float(view.K[0, 0])))
        self.frames += 1

    def evidence(self, initialiser: Initialiser, size: tuple[int, int]) -> StartEvidence:
        """All that is known by now; `size`: width and height of the images as delivered."""
        steps, seen = np.array(self._steps or [0.0]), initialiser.seen
        return StartEvidence(
            frames=self.frames,
            size=size,
            hfov_deg=self._hfov_deg,
            gray=float(np.median(self._grays)) if self._grays else 128.0,
            textured=self._textured,
            repeated=float((steps < SAME).mean()),
            nearest=_nearest(self._thumbnails),
            failed=seen.failed / max(self.frames - 1, 1),
            flow_px=seen.flow_px,
            turned_deg=seen.turned_deg,
            parallax_px=seen.parallax_px,
            wanted_px=initialiser.config.parallax_px,
        )


def _nearest(thumbnails: list[np.ndarray]) -> float:
    """Median, over the frames, of the distance to the most similar frame that is no neighbour, over that to the more
    similar neighbour; 1 where nothing can be said."""
    if len(thumbnails) < MIN_SHUFFLED:
        return 1.0
    flat = torch.from_numpy(np.stack(thumbnails).reshape(len(thumbnails), -1))
    distance = torch.cdist(flat, flat)
    index = torch.arange(len(flat))
    apart = (index[:, None] - index).abs()
    beside = torch.where(apart == 1, distance, torch.inf).amin(1)
    other = torch.where(apart > 1, distance, torch.inf).amin(1)
    return float((other / beside.clamp_min(1.0)).median())
