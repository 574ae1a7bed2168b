"""A run over a recording with ground truth, and its scores: what benches and tests of accuracy are made of."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slam.build import build_slam
from slam.config import SlamConfig, load_config
from slam.errors import EvaluationError
from slam.evaluation.depth import DepthResult, keyframe_depths, mean_depth, stamped_images
from slam.evaluation.report import TrajectoryReport, trajectory_report
from slam.frames import Progress, Trajectory
from slam.sources import Source, SourceSpec, open_source
from slam.sources.groundtruth import read_groundtruth
from slam.system import Slam
from slam.threads import limit_threads

log = logging.getLogger(__name__)

DEPTH_DIFFERENCE_NS = 60_000_000  # of the stamps of a keyframe and of true depth that is compared with it


@dataclass(frozen=True, eq=False)
class Experiment:
    """The system as a run has left it, and its scores."""

    slam: Slam
    truth: Trajectory
    report: TrajectoryReport
    depth: DepthResult | None  # mean of the keyframes' dense depth; None without anything to compare
    seconds: float  # of the run
    cpu_s: float  # of the processor, all threads


@dataclass(frozen=True)
class Scores:
    """The numbers of an experiment, free of its system."""

    ate: float  # metres, after Sim(3) alignment
    coverage: float
    end_drift: float | None  # metres off at the end if the first tenth is aligned; None: too short
    scale_drift: float | None  # of the unit along the path
    abs_rel: float | None  # of confident pixels, median-scaled; None: no true depth
    confident: float | None  # share of the pixels
    fps: float
    cpu_ms: float  # per frame
    seconds: float


def run_and_score(
    folder: str | Path,
    settings: Sequence[str] = (),
    config_file: Path | None = None,
    *,
    threads: bool = False,
    source: Source | None = None,
    truth: Trajectory | None = None,
    publish: Callable[[Progress], None] = lambda progress: None,
) -> Experiment:
    """Track and map a recording, and score trajectory and depth.

    Args:
        folder: the recording, with ground truth.
        settings: `section.field=value`, on top of `config_file`.
        threads: False repeats to the byte.
        source: frames instead of the folder's.
        truth: poses instead of the folder's.
        publish: given the state after each frame.

    Raises:
        SlamError: if the recording cannot be read or has no truth, or its trajectory cannot be scored.
    """
    limit_threads()
    folder = Path(folder)
    truth = read_groundtruth(folder) if truth is None else truth
    source = open_source(SourceSpec(str(folder))) if source is None else source
    try:
        slam = build_slam(load_config(SlamConfig, config_file, settings), source.camera, threads=threads)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        slam.run(source, publish)
        seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    finally:
        source.close()
    report = trajectory_report(slam.store.trajectory(), truth, frames_seen=slam.counts.seen)
    return Experiment(slam, truth, report, score_depth(slam, folder / "depth"), seconds, cpu_s)


def score_depth(slam: Slam, folder: Path) -> DepthResult | None:
    """Mean score of all keyframes' dense depth against the true depth images of a folder; None where nothing can be
    compared, with a WARNING if there are such images."""
    if not folder.is_dir():
        return None
    keyframes = [k.on_host() for k in slam.store.everything()]
    estimates = ((k.view.time_ns, k.dense.depth().numpy(), k.dense.confidence.numpy()) for k in keyframes)
    try:
        return mean_depth(keyframe_depths(estimates, stamped_images(folder), DEPTH_DIFFERENCE_NS))
    except EvaluationError as error:
        log.warning("depth has no score: %s", error)
        return None


def scores(
    folder: str | Path, settings: Sequence[str] = (), config_file: Path | None = None, threads: bool = False
) -> Scores:
    """`run_and_score` as numbers that travel between processes."""
    result = run_and_score(folder, settings, config_file, threads=threads)
    ate, drift, depth, frames = result.report.ate["sim3"], result.report.drift, result.depth, result.slam.counts.seen
    result.slam.store.close()
    return Scores(
        ate=ate.rmse,
        coverage=ate.coverage,
        end_drift=None if drift is None else drift.end_m,
        scale_drift=None if drift is None else drift.scale_drift,
        abs_rel=None if depth is None else depth.abs_rel,
        confident=None if depth is None else depth.confident_share,
        fps=frames / result.seconds,
        cpu_ms=1e3 * result.cpu_s / frames,
        seconds=result.seconds,
    )
