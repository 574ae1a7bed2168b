"""Depth errors of a run directory: of its keyframes and, where it has depth of every frame, of the whole video."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slam.evaluation.depth import DepthEstimate, DepthResult, keyframe_depths, mean_depth, stamped_images, with_truth
from slam.evaluation.video_depth import VideoDepthResult, streamed_depth_errors
from slam.io.images import DEPTH_SCALE
from slam.io.refined import Frames, has_frames
from slam.io.run import Run


@dataclass(frozen=True)
class DepthReport:
    """Errors of the depth of a run."""

    keyframes: tuple[DepthResult, ...]  # each with a scale of its own
    keyframes_one_scale: VideoDepthResult
    frames: VideoDepthResult | None  # None: the run has depth of its keyframes alone

    def numbers(self) -> dict[str, Any]:
        """The scores as nested plain values."""
        of_keyframes = {
            "keyframes": len(self.keyframes),
            **mean_depth(self.keyframes).numbers(),
            "one_scale": self.keyframes_one_scale.mean.numbers(),
        }
        return {"depth": of_keyframes} | ({} if self.frames is None else {"video_depth": self.frames.numbers()})


def depth_report(
    run: Run, folder: Path, max_difference_ns: int, min_confidence: float = 0.5, scale: float = DEPTH_SCALE
) -> DepthReport:
    """Compare the depth of a run with true depth images.

    Args:
        folder: 16-bit PNGs, named by their stamps in seconds.
        scale: value of one metre.

    Raises:
        SourceError: if a file of the run or the truth is missing or damaged.
        EvaluationError: if nothing can be compared.
    """
    truth = stamped_images(folder)

    def keyframes() -> Iterator[DepthEstimate]:
        own = (k for k in run.keyframe_records() if not k.is_earlier)
        return ((k.time_ns, run.depth(k), run.confidence(k)) for k in own)

    def frames() -> Iterator[DepthEstimate]:
        every = Frames(run.path)
        return ((f.time_ns, every.depth(f), every.confidence(f)) for f in every.records)

    def one_scale(estimates: Callable[[], Iterator[DepthEstimate]]) -> VideoDepthResult:
        return streamed_depth_errors(lambda: with_truth(estimates(), truth, max_difference_ns, scale), min_confidence)

    return DepthReport(
        keyframes=tuple(keyframe_depths(keyframes(), truth, max_difference_ns, min_confidence, scale)),
        keyframes_one_scale=one_scale(keyframes),
        frames=one_scale(frames) if has_frames(run.path) else None,
    )
