"""The frames of a run with their final poses, and the depth that the run has for each: where refinement begins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slam.errors import SourceError
from slam.frames import Keyframe, Trajectory, View
from slam.frontend.preparation import Preparation
from slam.geometry import se3
from slam.inv_depth import UNMEASURED_SIGMA, InvDepth
from slam.sources import Source

MIN_FOUND = 0.98  # share of the frames with a pose that the source must still deliver
FIRST_FRAMES = 100  # without any of the run's, after which the source is taken for another one
SPARSE = 64  # pixels from one to the next of those whose median is taken
SOURCES_OF_DEPTH = 3  # keyframes nearest in time that a frame's depth is taken from


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one size in order of time."""

    views: tuple[View, ...]
    T_wc: Tensor  # (N, 4, 4) float64, map units

    def __len__(self) -> int:
        return len(self.views)

    @property
    def K(self) -> Tensor:
        """(3, 3) intrinsics at network size."""
        return self.views[0].K

    def motion(self, i: Tensor, j: Tensor) -> Tensor:
        """(E, 4, 4) float64 frames j from frames i, (E,) each."""
        return se3.inverse(self.T_wc[j]) @ self.T_wc[i]


@dataclass(frozen=True, eq=False)
class Stretch:
    """Frames that are refined together; those at its ends are there for the others, and belong to its neighbours."""

    clip: Clip
    own: range  # of the clip's frames


def stretches(
    name: str, source: Source, pixels: int, trajectory: Trajectory, length: int, margin: int
) -> Iterator[Stretch]:
    """Read the frames that have a pose again, a stretch at a time.

    Args:
        name: of the source, for messages.
        pixels: width times height of the network's images.
        trajectory: final T_wc of the frames; matched by their time.
        length: frames that belong to a stretch, at least; a rest shorter than half of it is added to the last one.
        margin: frames beside them.

    Raises:
        SourceError: if the source no longer delivers them.
    """
    T_of = dict(zip(trajectory.time_ns.tolist(), torch.from_numpy(trajectory.T_wc), strict=True))
    prepare = Preparation(source.camera, pixels)
    views: list[View] = []  # not yet done with
    first = found = 0  # of the views that is not yet in a stretch, and frames that were found
    for count, frame in enumerate(source, 1):
        if frame.time_ns in T_of:
            views.append(prepare.prepare(frame))
            found += 1
        elif found == 0 and count >= FIRST_FRAMES and frame.time_ns > int(trajectory.time_ns[0]):
            break
        if len(views) >= first + length + max(length // 2, margin):
            yield _stretch(views, T_of, first, first + length, margin)
            views, first = views[max(first + length - margin, 0) :], min(margin, first + length)
    if found < max(MIN_FOUND * len(T_of), 2):
        raise SourceError(
            f"{name} has {found} of the {len(T_of)} frames of this run: it has changed since; run v2d-slam again"
        )
    if len(views) > first:
        yield _stretch(views, T_of, first, len(views), margin)


def _stretch(views: list[View], T_of: dict[int, Tensor], begin: int, end: int, margin: int) -> Stretch:
    """Views [begin, end) with those beside them."""
    chosen = tuple(views[max(begin - margin, 0) : end + margin])
    before = begin - max(begin - margin, 0)
    clip = Clip(chosen, torch.stack([T_of[view.time_ns] for view in chosen]))
    return Stretch(clip, range(before, before + end - begin))


def spread_depth(clip: Clip, keyframes: Sequence[Keyframe]) -> list[InvDepth]:
    """The depth of each frame as the map has it, known everywhere: its own if it is a keyframe, else that of the
    keyframes nearest in time, seen from its place; the rest is inpainted. Where nothing is seen it is the median.

    Args:
        keyframes: final, with dense depth of the clip's size; at least one that knows any.
    """
    middle = torch.cat([k.dense.value[k.dense.known][::SPARSE] for k in keyframes]).median()
    stamps = torch.tensor([k.view.time_ns for k in keyframes])
    maps = []
    for view, T_wi in zip(clip.views, clip.T_wc, strict=True):
        nearest = (stamps - view.time_ns).abs().argsort()[:SOURCES_OF_DEPTH].tolist()
        own = keyframes[nearest[0]]
        if own.view.time_ns == view.time_ns and bool(own.dense.known.any()):
            maps.append(own.dense.inpainted())
            continue
        depth = InvDepth.unknown(view.image.size)
        for n in reversed(nearest):  # the nearest has the last word
            T_ik = se3.inverse(T_wi) @ keyframes[n].T_wc
            depth = depth.composited(keyframes[n].dense.warped(T_ik, clip.K))
        guess = torch.full(view.image.size, float(middle))
        maps.append(depth.inpainted(None if bool(depth.known.any()) else InvDepth(guess, UNMEASURED_SIGMA * guess)))
    return maps
