"""Depth errors over valid, confident pixels, after scaling by the median ratio.

Reference: Eigen, Puhrsch, Fergus, Depth map prediction from a single image, NIPS 2014 (AbsRel, RMSE, delta).
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slam.errors import EvaluationError, SourceError
from slam.io.folders import entries
from slam.io.images import DEPTH_SCALE, read_depth
from slam.io.trajectory import format_time_ns
from slam.sources.names import by_name

log = logging.getLogger(__name__)

STRAY_SHARE = 0.05  # of depth, off the median of 5x5: no surface
DELTA = 1.25  # a pixel counts as right when estimate and truth differ by less than this factor

DepthEstimate = tuple[int, np.ndarray, np.ndarray]  # time in ns, depth (h, w), confidence (h, w)


@dataclass(frozen=True)
class DepthResult:
    """Errors of one depth map, or the mean over several."""

    abs_rel: float  # mean |d - d*| / d*
    rmse: float  # metres
    delta_125: float  # share of pixels with max(d / d*, d* / d) < 1.25
    scale: float  # applied to the estimate: metres per unit
    confident_share: float  # pixels compared, of those with truth
    pixels: int  # compared

    def numbers(self) -> dict[str, float]:
        """The scores by name."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class DepthPair:
    """An estimate with the truth of its time; all (h, w)."""

    time_ns: int
    depth: np.ndarray  # any unit, 0 unknown
    truth: np.ndarray  # metres, 0 unknown
    confidence: np.ndarray | None = None  # in [0, 1]; None: every known pixel counts

    def compared(self, min_confidence: float) -> np.ndarray:
        """(h, w) bool: where both are known and the estimate is sure enough."""
        return _compared(self.depth, self.truth, self.confidence, min_confidence)


def compare_depth(
    depth: np.ndarray,
    truth: np.ndarray,
    confidence: np.ndarray | None = None,
    min_confidence: float = 0.5,
    scale: float | None = None,
) -> DepthResult:
    """Errors of a depth map.

    Args:
        depth: (H, W) estimated z-depth, any unit, 0 unknown.
        truth: (H, W) z-depth, metres, 0 unknown.
        confidence: (H, W) in [0, 1]; None takes every known pixel.
        min_confidence: least confidence of a compared pixel.
        scale: metres per unit of the estimate; None takes the median of truth / depth over the compared pixels.

    Raises:
        EvaluationError: if no pixel can be compared.
        ValueError: if the shapes differ.
    """
    if depth.shape != truth.shape or (confidence is not None and confidence.shape != depth.shape):
        shapes = [image.shape for image in (depth, truth, confidence) if image is not None]
        raise ValueError(f"depth, truth and confidence need one shape, got {shapes}")
    has_truth = is_known(truth)
    compared = _compared(depth, truth, confidence, min_confidence)
    if not compared.any():
        raise EvaluationError(
            f"no pixel to compare: {int(has_truth.sum())} of {truth.size} have ground truth, none of them "
            f"an estimate of confidence {min_confidence:g} or more"
        )
    d, d_true = depth[compared].astype(np.float64), truth[compared].astype(np.float64)
    scale = float(np.median(d_true / d)) if scale is None else scale
    d = scale * d
    return DepthResult(
        abs_rel=float(np.mean(np.abs(d - d_true) / d_true)),
        rmse=float(np.sqrt(np.mean((d - d_true) ** 2))),
        delta_125=float(np.mean(np.maximum(d / d_true, d_true / d) < DELTA)),
        scale=scale,
        confident_share=float(compared.sum() / has_truth.sum()),
        pixels=int(compared.sum()),
    )


def is_known(depth: np.ndarray) -> np.ndarray:
    """(h, w) bool: where a depth map has a depth."""
    return np.isfinite(depth) & (depth > 0)


def _compared(depth: np.ndarray, truth: np.ndarray, confidence: np.ndarray | None, min_confidence: float) -> np.ndarray:
    compared = is_known(truth) & is_known(depth)
    return compared if confidence is None else compared & (confidence >= min_confidence)


def without_strays(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) with 0 where it is off its surroundings: rendered depth has stray pixels along edges, sensor depth
    flies there."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(depth, 2, mode="edge"), (5, 5))
    return np.where(np.abs(np.median(around, (2, 3)) - depth) < STRAY_SHARE * depth, depth, 0).astype(depth.dtype)


def mean_depth(results: Sequence[DepthResult]) -> DepthResult:
    """Mean over depth maps, each with the same weight; `pixels` is the sum, `scale` the median.

    Raises:
        EvaluationError: if there are none.
    """
    if not results:
        raise EvaluationError("no depth map could be compared with the ground truth")

    def mean(name: str) -> float:
        return float(np.mean([getattr(result, name) for result in results]))

    return DepthResult(
        abs_rel=mean("abs_rel"),
        rmse=mean("rmse"),
        delta_125=mean("delta_125"),
        scale=float(np.median([result.scale for result in results])),
        confident_share=mean("confident_share"),
        pixels=sum(result.pixels for result in results),
    )


def with_truth(
    estimates: Iterable[DepthEstimate], truth: Mapping[int, Path], max_difference_ns: int, scale: float = DEPTH_SCALE
) -> Iterator[DepthPair]:
    """The estimates that have a truth image near in time, each with it.

    Args:
        truth: 16-bit depth images by their time.
        scale: value of one metre.
    """
    stamps = np.array(sorted(truth))
    for time_ns, depth, confidence in estimates:
        nearest = int(stamps[np.abs(stamps - time_ns).argmin()])
        if abs(nearest - time_ns) <= max_difference_ns:
            true_depth = resized_nearest(read_depth(truth[nearest], scale), *depth.shape)
            yield DepthPair(time_ns, depth, true_depth, confidence)


def keyframe_depths(
    estimates: Iterable[DepthEstimate],
    truth: Mapping[int, Path],
    max_difference_ns: int,
    min_confidence: float = 0.5,
    scale: float = DEPTH_SCALE,
) -> list[DepthResult]:
    """Compare the depth of every keyframe that has a truth image near in time; a WARNING counts those without common
    pixels.

    Args:
        truth: 16-bit depth images by their time.
        scale: value of one metre.

    Raises:
        EvaluationError: if no keyframe has any truth.
    """
    results, without = [], []
    for pair in with_truth(estimates, truth, max_difference_ns, scale):
        try:
            results.append(compare_depth(pair.depth, pair.truth, pair.confidence, min_confidence))
        except EvaluationError as error:
            without.append(f"at {format_time_ns(pair.time_ns)} s {error}")
    if without:
        log.warning("%d keyframes of %d are left out: %s", len(without), len(without) + len(results), without[0])
    if not results:
        raise EvaluationError(f"no keyframe has true depth within {max_difference_ns / 1e9:g} s")
    return results


def stamped_images(folder: Path) -> dict[int, Path]:
    """The PNGs of a folder by time, ns; their names are stamps, see `slam.sources.names`.

    Raises:
        SourceError: if there are none, or names are no stamps.
    """
    files = [path for path in entries(folder) if path.suffix.lower() == ".png"]
    if not files:
        raise SourceError(f"no depth images (*.png) in {folder}")
    named = by_name(files)
    for remark in named.remarks:
        log.warning("%s: %s", folder, remark)
    if named.time_ns is None:
        raise SourceError(f"the images of {folder} are not named by their time (such as {min(files).name})")
    return dict(zip(named.time_ns, named.files))


def resized_nearest(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) -> (height, width) by the nearest pixel centre: depths are never blended across an edge."""
    H, W = image.shape
    rows = ((np.arange(height) + 0.5) * H / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * W / width).astype(np.int64)
    return image[rows[:, None], columns]
