"""All scores of one run, as a table for people and as plain values for files."""

import logging
from dataclasses import dataclass
from typing import Any, get_args

from slam.errors import EvaluationError
from slam.evaluation.depth import DepthResult, mean_depth
from slam.evaluation.drift import DriftResult, drift
from slam.evaluation.run_depth import DepthReport
from slam.evaluation.trajectory import (
    MAX_DIFFERENCE_NS,
    Alignment,
    AteResult,
    RpeResult,
    ate,
    path_length,
    rpe,
)
from slam.frames import Trajectory

log = logging.getLogger(__name__)

TITLES: dict[Alignment, str] = {"sim3": "Sim(3)", "se3": "SE(3)", "none": "none"}


@dataclass(frozen=True)
class TrajectoryReport:
    """Errors of a trajectory under every alignment."""

    ate: dict[Alignment, AteResult]
    rpe: dict[Alignment, RpeResult]  # by the alignment whose scale was used; empty if the poses span too little time
    poses: int
    frames_seen: int | None  # None: not known, coverage is by time
    path_length_m: float  # of the truth between matched poses
    drift: DriftResult | None  # None: too short, or hardly any motion

    @property
    def drift_percent(self) -> float:
        """ATE after Sim(3) alignment in percent of the path; 0 for a camera at rest."""
        return 100 * self.ate["sim3"].rmse / self.path_length_m if self.path_length_m > 0 else 0.0

    def numbers(self) -> dict[str, Any]:
        """The scores as nested plain values."""
        return {
            "poses": self.poses,
            "frames_seen": self.frames_seen,
            "coverage": self.ate["sim3"].coverage,
            "scale": self.ate["sim3"].scale,
            "path_length_m": self.path_length_m,
            "drift_percent": self.drift_percent,
            "drift": self.drift.numbers() if self.drift is not None else None,
            "ate_m": {name: result.numbers() for name, result in self.ate.items()},
            "rpe": {name: result.numbers() for name, result in self.rpe.items()},
        }


def trajectory_report(
    estimate: Trajectory,
    truth: Trajectory,
    max_difference_ns: int = MAX_DIFFERENCE_NS,
    frames_seen: int | None = None,
    delta_s: float = 1.0,
) -> TrajectoryReport:
    """Every trajectory score of a run; a run too short for the RPE has none and a warning says so.

    Raises:
        EvaluationError: as `ate` with an alignment.
    """
    ates = {name: ate(estimate, truth, name, max_difference_ns, frames_seen) for name in get_args(Alignment)}
    rpes: dict[Alignment, RpeResult] = {}
    try:
        for name in ("sim3", "none"):
            rpes[name] = rpe(estimate, truth, delta_s, ates[name].scale, max_difference_ns)
    except EvaluationError as error:
        log.warning("no relative pose error: %s", error)
    start, end = ates["none"].time_ns[[0, -1]]
    near = (truth.time_ns >= start - max_difference_ns) & (truth.time_ns <= end + max_difference_ns)
    travelled = path_length(Trajectory(truth.time_ns[near], truth.T_wc[near]))
    try:
        drifted = drift(estimate, truth, max_difference_ns)
    except EvaluationError as error:
        log.debug("no drift: %s", error)
        drifted = None
    return TrajectoryReport(ates, rpes, len(estimate), frames_seen, travelled, drifted)


def table(report: TrajectoryReport, depth: DepthReport | None = None) -> str:
    """The scores as lines of text, every alignment named."""
    lines = [f"{'ATE (m)':<24}{'rmse':>10}{'median':>10}{'mean':>10}{'max':>10}"]
    for name, a in report.ate.items():
        lines.append(f"  aligned by {TITLES[name]:<11}{a.rmse:10.4f}{a.median:10.4f}{a.mean:10.4f}{a.max:10.4f}")
    if report.rpe:
        delta_s = report.rpe["sim3"].delta_s
        lines.append(f"{f'RPE over {delta_s:g} s':<24}{'rmse m':>10}{'median m':>10}{'rmse deg':>10}{'med. deg':>10}")
    for name, r in report.rpe.items():
        title = "Sim(3) scale" if name == "sim3" else "own scale"
        lines.append(
            f"  {title:<22}{r.translation_rmse:10.4f}{r.translation_median:10.4f}"
            f"{r.rotation_rmse_deg:10.3f}{r.rotation_median_deg:10.3f}"
        )
    aligned = report.ate["sim3"]
    of = f"{report.poses} poses / {report.frames_seen} frames seen" if report.frames_seen else "of the truth's time"
    lines += [
        f"{'coverage':<24}{100 * aligned.coverage:9.1f}%  {of}, {aligned.matched} compared",
        f"{'scale':<24}{aligned.scale:10.4f}  metres per unit of the estimate",
        f"{'drift':<24}{report.drift_percent:9.2f}%  ATE Sim(3) of {report.path_length_m:.2f} m of path",
    ]
    if report.drift is not None:
        lines += [
            f"{'end':<24}{report.drift.end_m:10.4f}  metres off if the first tenth is aligned by Sim(3)",
            f"{'scale drift':<24}{report.drift.scale_drift:10.4f}  growth of the unit from start to end, "
            f"spread {100 * report.drift.scale_spread:.1f} %",
        ]
    if depth is not None:
        one_scale = [_depth_line(f"{depth.keyframes_one_scale.frames} keyframes", depth.keyframes_one_scale.mean)]
        if depth.frames is not None:
            one_scale.append(_depth_line(f"{depth.frames.frames} frames", depth.frames.mean))
        columns = f"{'AbsRel':>10}{'rmse m':>10}{'d<1.25':>10}{'confident':>10}"
        lines += [
            f"{'depth, median-scaled':<24}{columns}",
            _depth_line(f"{len(depth.keyframes)} keyframes", mean_depth(depth.keyframes)),
            f"{'depth, one scale a video':<24}{columns}",
            *one_scale,
        ]
    return "\n".join(lines)


def _depth_line(of: str, result: DepthResult) -> str:
    return (
        f"  {of:<22}{result.abs_rel:10.4f}{result.rmse:10.4f}{result.delta_125:10.3f}"
        f"{100 * result.confident_share:9.1f}%"
    )
