"""What a run leaves behind: its status line, its files, and the words at its end."""

import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from slam import __version__
from slam.backend.self_calibration import SelfCalibration, in_words, verdict
from slam.errors import SlamError, UsageError
from slam.evaluation.report import trajectory_report
from slam.frames import Counts, Estimate, Keyframe, Progress, Status, Trajectory
from slam.io.calibration import write_calibration
from slam.io.run import (
    CLOUD,
    KEYFRAMES,
    LISTING,
    ONLINE,
    RECORD,
    TRAJECTORY,
    file_of_map,
    write_cloud,
    write_keyframes,
    write_record,
    write_trajectories,
)
from slam.io.run_directory import RunDirectory
from slam.io.run_record import MapRecord, Outcome, RunRecord, SourceRecord, SystemRecord
from slam.io.trajectory import OnlineTrajectoryWriter
from slam.mapping.fusion import FusionConfig, fused_cloud
from slam.mapping.store import KeyframeStore
from slam.timing import StageTime

log = logging.getLogger(__name__)

CALIBRATION = "calibration.yaml"
MONOCULAR_SCALE = "unknown (monocular): one unit is the median depth of the first keyframe"
METRIC_SCALE = "metric (sensor depth)"
STATUS_PERIOD_S = 0.5
NOT_YET = {name: "not written yet" for name in ("config.yaml", "metrics.json", "keyframes", "map.ply")}


class Report:
    """Accompanies a run: online trajectory and status line while it goes on, everything else at its end."""

    def __init__(
        self, out: Path | None, source: SourceRecord, total: int | None, stream: TextIO | None = sys.stderr
    ) -> None:
        """Make the run directory.

        Args:
            out: None for one named by the time.
            source: of the frames.
            total: frames of the source, if known.
            stream: where the status goes; None shows none.

        Raises:
            UsageError: if `out` holds a run already.
            OutputError: if it cannot be written to.
        """
        if out is not None and any(os.path.exists(out / name) for name in (ONLINE, RECORD)):
            raise UsageError(f"{out} holds a run already; choose another directory with --out, or remove it")
        self.directory = RunDirectory.create() if out is None else RunDirectory(out)
        self.source = source
        self.total = total
        self.stream = stream
        self.words = "\n".join(
            [
                f"v2d-slam {__version__}, {source.name}",
                "T_wc: camera to world, world is the first keyframe",
            ]
        )
        self._scale = ""  # known with the first pose
        self._online = OnlineTrajectoryWriter(self.directory.path / ONLINE, self.words)
        self._lens_words = ""
        self._start_s = time.perf_counter()
        self._shown_s = 0.0

    def write_online(self, estimates: Sequence[Estimate]) -> None:
        """Append poses as first estimated."""
        for estimate in estimates:
            if estimate.status is Status.TRACKING:
                if not self._scale:
                    self._scale = scale_source(estimate.metric)
                    self._online.comment(f"scale: {self._scale}")
                self._online.append(estimate.time_ns, estimate.T_wc.numpy())

    def show(self, progress: Progress) -> None:
        """Take the state after a frame: refresh the status line, a few times a second in place on a terminal, as lines
        every 10 s elsewhere."""
        if progress.frame is not None:
            first_ns = self.source.first_ns
            last_ns = progress.frame.time_ns
            self.source = replace(self.source, first_ns=last_ns if first_ns is None else first_ns, last_ns=last_ns)
        if self.stream is None:
            return
        now_s = time.perf_counter()
        in_place = self.stream.isatty()
        if now_s - self._shown_s < (STATUS_PERIOD_S if in_place else 20 * STATUS_PERIOD_S):
            return
        self._shown_s = now_s
        line = status_line(progress, self.total, now_s - self._start_s)
        self.stream.write(f"\r{line}\033[K" if in_place else f"{line}\n")
        self.stream.flush()

    def tell_camera(self, calibration: SelfCalibration) -> None:
        """Take what the map said of the camera: for the summary, and where it replaces a guess, for the files."""
        self._lens_words = verdict(calibration)
        if calibration.is_applied and calibration.estimate is not None:
            camera, words = replace(calibration.camera, is_guess=False), in_words(calibration.estimate)
            self.source = replace(self.source, camera=camera)
            self.directory.write(CALIBRATION, lambda path: write_calibration(path, camera, words))

    def finish(
        self,
        store: KeyframeStore,
        counts: Counts,
        times: Sequence[StageTime],
        system: SystemRecord,
        outcome: Outcome,
        fusion: FusionConfig,
        config: dict[str, Any],
        truth: Trajectory | None,
    ) -> str:
        """Write all files, the small ones first; what the disk refuses is logged and noted in `run.json`.

        Args:
            system: what tracked and mapped.
            outcome: how the run ended.
            config: settings as plain values.
            truth: of the source, for a score.

        Returns:
            A summary to print.
        """
        seconds = time.perf_counter() - self._start_s
        self._online.close()
        if self.stream is not None and self.stream.isatty():
            self.stream.write("\r\033[K")
        run = self.directory
        if self._online.error is not None:
            run.missing[ONLINE] = f"broken off: {self._online.error}"
        everything = store.everything()
        gone = len(store.snapshot().placements()) - len(everything)
        if gone:
            run.missing["keyframes/"] = f"{gone} of those that left memory were removed from the disk"
        maps = _maps(store, everything)
        trajectory, metric = maps[0].trajectory, maps[0].is_metric
        summary = [summary_line(counts, len(everything), seconds)]
        if len(maps) > 1:
            summary.append(maps_line(maps))
        metrics: dict[str, Any] = {"frames_seen": counts.seen, "poses": len(trajectory)}
        if truth is not None:
            words, numbers = scored(trajectory, truth, counts.seen, metric)
            metrics |= numbers
            summary.append(words)
        record = RunRecord(
            version=__version__,
            source=self.source,
            system=system,
            outcome=outcome,
            scale_source=scale_source(metric),
            **{f"frames_{name}": value for name, value in vars(counts).items()},
            keyframes=len(everything),
            keyframes_on_disk=len(everything) - len(store),
            seconds=round(seconds, 3),
            fps=round(counts.seen / seconds, 2),
            maps=tuple(each.record(number) for number, each in enumerate(maps, 1)),
            stages=tuple(times),
            missing={**run.missing, **NOT_YET},
        )
        for number, each in enumerate(maps, 1):
            write_trajectories(run, each.trajectory, each.keyframe_trajectory, self._header(each), number)
        write_record(run, record)  # stays if there is room for no more
        run.write_yaml("config.yaml", config)
        run.write_json("metrics.json", metrics)
        for number, each in enumerate(maps, 1):
            write_keyframes(run, each.keyframes, number)
            write_cloud(run, fused_cloud(each.keyframes, fusion), self._header(each), number)
        write_record(run, replace(record, missing=run.missing))
        if self._lens_words:
            summary.append(self._lens_words)
        return "\n".join([*summary, stage_table(times), f"results in {run.path}"])

    def _header(self, each: "_Map") -> str:
        return f"{self.words}\nscale: {scale_source(each.is_metric)}"


@dataclass(frozen=True, eq=False)
class _Map:
    """What a run knows of a place that nothing joined to others."""

    trajectory: Trajectory
    keyframe_trajectory: Trajectory
    keyframes: tuple[Keyframe, ...]

    @property
    def is_metric(self) -> bool:
        return any(keyframe.metric for keyframe in self.keyframes)

    def record(self, number: int) -> MapRecord:
        """What `run.json` says of it, as the first, second ... of the run."""
        files = (file_of_map(name, number) for name in (TRAJECTORY, KEYFRAMES, LISTING, CLOUD))
        return MapRecord(len(self.trajectory), len(self.keyframes), scale_source(self.is_metric), *files)


def _maps(store: KeyframeStore, everything: tuple[Keyframe, ...]) -> list[_Map]:
    """Those with a frame, that with most frames first; without any, what there is. `everything`: all its keyframes."""
    found = [
        _Map(store.trajectory(n), store.keyframe_trajectory(n), tuple(k for k in everything if k.map_id == n))
        for n in store.map_ids()
    ]
    return [each for each in found if len(each.trajectory)] or [
        _Map(store.trajectory(), store.keyframe_trajectory(), everything)
    ]


def scale_source(metric: bool) -> str:
    """Where the scale of a map comes from, in words for the files."""
    return METRIC_SCALE if metric else MONOCULAR_SCALE


def scored(estimate: Trajectory, truth: Trajectory, seen: int, metric: bool = False) -> tuple[str, dict[str, Any]]:
    """ATE after Sim(3) alignment, of a metric estimate after SE(3), in words and numbers; if it cannot be had, why."""
    try:
        report = trajectory_report(estimate, truth, frames_seen=seen)
    except SlamError as error:
        return f"no score: {error}", {}
    result = report.ate["sim3"]
    own = f"ATE in its own metres (SE(3)-aligned) {report.ate['se3'].rmse:.4f} m\n" if metric else ""
    words = (
        f"{own}ATE (Sim(3)-aligned) {result.rmse:.4f} m over a path of {report.path_length_m:.2f} m "
        f"({report.drift_percent:.2f} %), {100 * result.coverage:.1f} % of the frames have a pose"
    )
    return words, {"evaluation": report.numbers()}


def summary_line(counts: Counts, keyframes: int, seconds: float) -> str:
    """The run in one line."""
    return (
        f"{counts.seen} frames in {seconds:.1f} s ({counts.seen / seconds:.1f} frames/s): {counts.tracked} tracked, "
        f"{counts.lost} lost, {counts.dropped} dropped, {counts.skipped} skipped, {keyframes} keyframes"
    )


def maps_line(maps: Sequence[_Map]) -> str:
    """That there are several, in one line."""
    others = ", ".join(f"{file_of_map(TRAJECTORY, n)} {len(m.trajectory)}" for n, m in enumerate(maps, 1))
    return f"{len(maps)} maps that show no common place, each in a world of its own; frames: {others}"


def stage_table(times: Sequence[StageTime]) -> str:
    """Time of each stage, as lines."""
    lines = [f"{'stage':24s} {'count':>6s} {'median ms':>10s} {'p90 ms':>8s} {'total s':>8s}"]
    lines += [f"{t.name:24s} {t.count:6d} {t.median_ms:10.1f} {t.p90_ms:8.1f} {t.total_s:8.2f}" for t in times]
    return "\n".join(lines)


def status_line(progress: Progress, total: int | None, seconds: float) -> str:
    """The line that is shown while a run goes on."""
    counts, keyframes = progress.counts, progress.snapshot.keyframes
    unit = "  metric" if keyframes and keyframes[0].metric else ""
    frames = f"{counts.seen}/{total}" if total else f"{counts.seen}"
    maps = len({k.map_id for k in keyframes})
    of_maps = f" of {maps} maps" if maps > 1 else ""
    return (
        f"frame {frames}  {counts.seen / max(seconds, 1e-3):.1f} fps  {progress.status.value}  "
        f"keyframes {len(keyframes)}{of_maps}{unit}  lost {counts.lost}  dropped {counts.dropped}  "
        f"skipped {counts.skipped}" + (f"  {progress.waiting}" if progress.waiting else "")
    )
