"""A long run: a rendered closed path of 27 s walked round and round; do memory and time per frame stay flat?

    python tools/soak.py --frames 20000 --keyframes 150 --out results/soak

    python tools/soak.py --frames 72000 --drop-outs --out results/soak      # an hour

Every lap has fresh sensor noise and running time stamps; nothing is dropped. With --drop-outs a camera of 20 images a
second shows it, which does not wait, and whose connection breaks or falls silent every half a minute or so, for up to
five seconds. Every 100 frames a line goes into
OUT/soak.csv: resident memory, keyframes, loops, and time per frame between two results of the threaded system (the
wall's, and the processor's on all threads, which other programs do not disturb). At the end, or after Ctrl-C, the
slopes since the map is full are printed and drawn into OUT/soak.png. Linux only (/proc).
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does

import matplotlib
import numpy as np
from scipy.stats import theilslopes

from apps.common import guarded, stop_on_signals
from slam.build import build_slam
from slam.config import SlamConfig, load_config
from slam.errors import OutputError, SourceError, UsageError
from slam.evaluation.trajectory import ate
from slam.frames import Frame, Progress, Trajectory
from slam.sources.demo import DemoConfig, DemoSource
from slam.sources.live import CameraImage, CameraImages, LiveSource, Patience
from slam.system import Slam
from slam.threads import limit_threads

EVERY = 100  # frames between two lines
LAP = 800  # frames
NOISE = 0.01 * 255  # standard deviation of the sensor's noise, gray levels
STAGES = ("match", "adjust", "stereo", "loops")  # of the backend
CAMERA_FPS = 20.0
DROP_OUT_EVERY_S = 30.0  # on the average
AWAY_S = (0.2, 5.0)
STALL_S = 1.0
PATIENCE = Patience(open_s=10.0, stall_s=STALL_S, reconnect_s=60.0)
FLAT_MB = 10.0  # per 10,000 frames; the log of frames takes 2 of them
FLAT_PART = 0.05  # of the processor time per frame, per 10,000 frames


class Laps:
    """A rendered loop, played until enough frames have come."""

    live = False

    def __init__(self, kind: str, frames: int) -> None:
        demo = DemoSource(DemoConfig(kind=kind, variant="loop", frames=LAP, noise=0.0))
        self.camera, self.skipped = demo.camera, 0
        self.count: int | None = frames
        self._frames = frames
        self._images = [frame.image for frame in demo]
        self._lap = demo.groundtruth()
        self._period_ns = int(self._lap.time_ns[-1] - self._lap.time_ns[0]) * LAP // (LAP - 1)

    def __iter__(self) -> Iterator[Frame]:
        generator = np.random.default_rng(0)
        for n in range(self._frames):
            time_ns = int(self._lap.time_ns[n % LAP]) + n // LAP * self._period_ns
            yield Frame(n, time_ns, self.image(n, generator), self.camera)

    def image(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """The n-th image, with fresh noise."""
        image = self._images[n % LAP]
        noisy = image + NOISE * generator.standard_normal(image.shape, np.float32)
        return np.rint(noisy).clip(0, 255).astype(np.uint8)

    @property
    def T_wc(self) -> np.ndarray:
        """(LAP, 4, 4) true poses of a lap."""
        return self._lap.T_wc

    def groundtruth(self) -> Trajectory:
        """True poses of all frames, metres."""
        n = np.arange(self._frames)
        return Trajectory(self._lap.time_ns[n % LAP] + n // LAP * self._period_ns, self._lap.T_wc[n % LAP])

    def close(self) -> None:
        """Nothing is open."""


class DropOuts:
    """The camera of --drop-outs: what each of its connections gives, and which image came when."""

    def __init__(self, laps: Laps) -> None:
        self.laps = laps
        self.broken = self.silent = 0
        self._generator = np.random.default_rng(1)
        self._start_s = time.monotonic()
        self._back_s = 0.0
        self._shown: list[tuple[int, int]] = []  # stamp of an image, and its number

    def source(self, frames: int) -> LiveSource:
        """A camera that is asked for again when it breaks."""
        camera = self.laps.camera
        return LiveSource("the camera", self.connect, lambda width, height: camera, PATIENCE, frames)

    def connect(self) -> CameraImages:
        """The images of a connection, each at its time; raises SourceError while the camera has gone."""
        if time.monotonic() < self._back_s:
            raise SourceError("the camera has gone")
        end_s = time.monotonic() + self._generator.exponential(DROP_OUT_EVERY_S)
        while time.monotonic() < end_s:
            number = int((time.monotonic() - self._start_s) * CAMERA_FPS) + 1
            time.sleep(max(0.0, self._start_s + number / CAMERA_FPS - time.monotonic()))
            time_ns = time.time_ns()
            self._shown.append((time_ns, number))
            yield CameraImage(time_ns, self.laps.image(number, self._generator))
        away_s = self._generator.uniform(*AWAY_S)
        self._back_s = time.monotonic() + away_s
        if self._generator.random() < 0.5:
            self.broken += 1
            return
        self.silent += 1
        while time.monotonic() < self._back_s + STALL_S:
            time.sleep(0.05)
            yield None

    def groundtruth(self) -> Trajectory:
        """True poses of the images that came, metres."""
        time_ns, numbers = np.array(self._shown, np.int64).T
        return Trajectory(time_ns, self.laps.T_wc[numbers % LAP])


@dataclass(frozen=True)
class Sample:
    """What is known of the last EVERY frames; times in ms."""

    frame: int
    seconds: float  # since the start
    rss_mb: float
    keyframes: int  # in the active map
    on_disk: int
    loops: int
    lost: int  # frames since the start
    median: float  # per frame
    p90: float
    cpu: float  # per frame, all threads
    match: float  # per job of the backend
    adjust: float
    stereo: float
    loop_closing: float


class Meter:
    """Takes a sample every EVERY frames; `publish` is given to the run."""

    def __init__(self, slam: Slam, path: Path) -> None:
        self.samples: list[Sample] = []
        self._slam = slam
        try:
            self._file = path.open("w", newline="")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}") from error
        self._rows = csv.writer(self._file)
        self._rows.writerow(Sample.__annotations__)
        self._start_s = self._last_s = time.perf_counter()
        self._cpu_s = time.process_time()
        self._frame_ms: list[float] = []
        self._stages = {name: (0, 0.0) for name in STAGES}

    def publish(self, progress: Progress) -> None:
        """Count a frame."""
        now_s = time.perf_counter()
        self._frame_ms.append(1e3 * (now_s - self._last_s))
        if len(self._frame_ms) == EVERY:
            self._take(progress, now_s - self._start_s)
            self._frame_ms.clear()
            self._cpu_s = time.process_time()
        self._last_s = time.perf_counter()  # the sample's own time is no frame's

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take(self, progress: Progress, seconds: float) -> None:
        keyframes = progress.snapshot.keyframes
        sample = Sample(
            progress.counts.seen,
            round(seconds, 1),
            round(resident_mb(), 1),
            len(keyframes),
            keyframes[-1].id + 1 - len(keyframes) if keyframes else 0,
            len(self._slam.parts.backend.loops),
            progress.counts.lost,
            round(float(np.median(self._frame_ms)), 2),
            round(float(np.quantile(self._frame_ms, 0.9)), 2),
            round(1e3 * (time.process_time() - self._cpu_s) / EVERY, 2),
            *(round(ms, 1) for ms in self._per_job()),
        )
        self.samples.append(sample)
        self._rows.writerow(vars(sample).values())
        self._file.flush()  # good at any moment

    def _per_job(self) -> list[float]:
        """Mean ms of each stage of the backend since the last sample; 0 without a job."""
        now = {t.name: (t.count, t.total_s) for t in self._slam.times.table()}
        means = []
        for name in STAGES:
            count, total_s = now.get(f"backend: {name}", (0, 0.0))
            before, before_s = self._stages[name]
            means.append(1e3 * (total_s - before_s) / max(count - before, 1))
            self._stages[name] = count, total_s
        return means


def resident_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def verdict(samples: list[Sample], keyframes: int) -> str:
    """Slopes since the map is full, by the median of all pairs (Theil-Sen: a busy minute does not count)."""
    full = [s for s in samples if s.keyframes >= keyframes]
    if len(full) < 10:
        part = samples[len(samples) // 2 :]
        mb = theilslopes([s.rss_mb for s in part], [s.frame / 1e4 for s in part])[0] if len(part) > 1 else float("nan")
        words = f"too short: the map was full (at {keyframes} keyframes) for {len(full) * EVERY} frames only"
        return f"{words}; memory grew by {mb:+.0f} MB per 10,000 frames in the second half"
    frame = np.array([s.frame for s in full]) / 1e4
    lines = [f"since the map is full, frames {full[0].frame} to {full[-1].frame}, per 10,000 frames:"]
    for name, unit in (("rss_mb", "MB"), ("cpu", "ms"), ("median", "ms"), ("p90", "ms")):
        values = np.array([getattr(s, name) for s in full])
        slope, _, low, high = theilslopes(values, frame)
        typical = float(np.median(values))
        limit = {"rss_mb": FLAT_MB, "cpu": FLAT_PART * typical}.get(name)  # the wall's time is other programs' too
        word = "" if limit is None else ", flat" if slope < limit else ", GROWS"
        lines.append(f"  {name:7s} {slope:+7.2f} {unit} ({low:+.2f} to {high:+.2f}) of {typical:.1f}{word}")
    return "\n".join(lines)


def score(slam: Slam, truth: Trajectory) -> str:
    """ATE of the whole trajectory, and of its first and last laps under the same alignment."""
    trajectory = slam.store.trajectory()
    result = ate(trajectory, truth, "sim3", frames_seen=slam.counts.seen)
    lap = (result.time_ns - truth.time_ns[0]) // (truth.time_ns[LAP] - truth.time_ns[0]) if len(truth) > LAP else 0
    rmse = [float(np.sqrt(np.mean(result.errors[lap == n] ** 2))) for n in (0, np.max(lap))]
    worst = int(np.searchsorted(truth.time_ns, result.time_ns[result.errors.argmax()]))
    return (
        f"ATE (Sim(3)-aligned) {result.rmse:.4f} m, worst {result.max:.4f} m at frame {worst}; "
        f"first lap {rmse[0]:.4f} m, last {rmse[1]:.4f} m; "
        f"{100 * result.coverage:.2f} % of {slam.counts.seen} frames have a pose"
    )


def plot(samples: list[Sample], path: Path) -> None:
    """Memory and keyframes above, time per frame below."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    frame = [s.frame for s in samples]
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6), layout="constrained")
    above.plot(frame, [s.rss_mb for s in samples], label="resident memory, MB")
    above.plot(frame, [s.keyframes for s in samples], label="keyframes in memory")
    above.plot(frame, [s.on_disk for s in samples], label="keyframes on disk")
    below.plot(frame, [s.p90 for s in samples], label="90th percentile", color="tab:orange", alpha=0.6)
    below.plot(frame, [s.median for s in samples], label="median")
    below.plot(frame, [s.cpu for s in samples], label="processor time, all threads")
    below.set(xlabel="frame", ylabel="ms per frame")
    for panel in (above, below):
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def run(options: argparse.Namespace) -> int:
    """The run and its report."""
    if options.frames < EVERY:
        raise UsageError(f"--frames must be at least {EVERY}, got {options.frames}")
    limit_threads()
    config = load_config(SlamConfig, None, [f"max_keyframes={options.keyframes}", *options.set])
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {options.out}: {error.strerror}") from error
    laps = Laps(options.kind, options.frames)
    camera = DropOuts(laps) if options.drop_outs else None
    source = laps if camera is None else camera.source(options.frames)
    slam = build_slam(config, source.camera, live=source.live)
    meter = Meter(slam, options.out / "soak.csv")
    with stop_on_signals() as stop:
        slam.run(source, meter.publish, stopped=stop.is_set)
    meter.close()
    print(f"{slam.counts.seen} frames in {meter.samples[-1].seconds:.0f} s, {slam.counts.lost} lost")
    print(verdict(meter.samples, options.keyframes))
    if camera is not None:
        print(
            f"{camera.broken} connections broke, {camera.silent} fell silent; {slam.counts.dropped} frames were not "
            f"taken in time; {len({k.map_id for k in slam.store.keyframes})} maps"
        )
    print(score(slam, laps.groundtruth() if camera is None else camera.groundtruth()))
    for t in slam.times.table():
        print(f"  {t.name:20s} {t.count:6d} times, median {t.median_ms:7.1f} ms, 90 % {t.p90_ms:7.1f} ms")
    plot(meter.samples, options.out / "soak.png")
    slam.store.close()
    return 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--drop-outs", action="store_true", help="a camera that breaks off now and then, in real time")
    parser.add_argument("--keyframes", type=int, default=150, help="in the active map (default %(default)d)")
    parser.add_argument("--kind", default="living", help="the room (default %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="override one setting")
    parser.add_argument("--out", type=Path, required=True, help="folder of soak.csv and soak.png")
    options = parser.parse_args()
    return guarded("soak", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
