"""Whole runs on a camera: recordings served in real time, against the same read from the disk, as a table.

    python tools/bench_live.py DATA/desk_gentle --runs 3

The images (JPEG of quality 95) are served as a network camera serves them, as MJPEG over HTTP on loopback, by a process
of its own, each at its time: at the mean rate of the recording, or at --fps. A live frame bears the time of its
arrival; which image it shows is found by its pixels, so that poses are compared with the truth of the right moment.
Each run is a process of its own, live and from the disk in turn; a row for each, and their medians.

Unseen: images that tracking never got (counted as dropped, by the system). Windows: keyframes that the backend had no
time for. Track: time of a frame on the tracking thread, median and 95th percentile after the start-up. Arrival to pose,
sending to arrival: likewise, the first with the wait until the frame is taken. ATE is Sim(3)-aligned, over the frames
with a live pose; of the run from the disk over the same frames.
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch, as v2d-slam does
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")  # fatal: the end of the stream is none

import cv2
import numpy as np
from bench_speed import FrameTimes  # its neighbour

from apps.common import guarded
from slam.build import build_slam
from slam.config import SlamConfig, load_config
from slam.errors import EvaluationError, SourceError, UsageError
from slam.evaluation.trajectory import ate
from slam.experiment import run_and_score
from slam.frames import Counts, Progress, Trajectory
from slam.geometry.camera import Camera
from slam.io.images import JPEG_QUALITY
from slam.processes import in_new_process, own_python
from slam.sources import Source, SourceSpec, open_source
from slam.sources.groundtruth import read_groundtruth
from slam.sources.sequence import CameraChoice
from slam.sources.webcam import WebcamSource
from slam.threads import limit_threads

SERVER = Path(__file__).resolve().parents[1] / "tests" / "sources" / "mjpeg_server.py"
SERVING = "import json; sys.path.insert(0, sys.argv[1]); from bench_live import serve; serve(*json.loads(sys.argv[2]))"
STEP_PX = 8  # every so many pixels of an image tell it from others
SEARCHED_NS = 1_500_000_000  # an image is this long under way at most
COLUMNS = (
    "recording, run | fps | served | tracked | lost | unseen (dropped) | windows | keyframes | track ms, p95 "
    "| arrival to pose ms, p95 | sending to arrival ms, p95 | ATE live | ATE disk | ratio"
)


@dataclass(frozen=True, eq=False)
class Recording:
    """What is served."""

    camera: Camera
    time_ns: np.ndarray  # (N,) int64: when each image was taken
    pixels: np.ndarray  # (N, P) see `pixels_of`
    truth: Trajectory

    @property
    def fps(self) -> float:
        """Its mean rate."""
        return 1e9 * (len(self.time_ns) - 1) / float(self.time_ns[-1] - self.time_ns[0])


@dataclass(frozen=True, eq=False)
class LiveRun:
    """What a live run has left."""

    trajectory: Trajectory  # stamped when frames arrived
    time_ns: np.ndarray  # (M,) of all frames that tracking got: when they arrived
    pixels: np.ndarray  # (M, P) see `pixels_of`
    delay_ms: np.ndarray  # (M,) from the arrival of a frame to its pose
    times: dict[str, list[float]]  # see `FrameTimes.numbers`
    counts: Counts
    windows_skipped: int
    keyframes: int


@dataclass(frozen=True)
class Row:
    """Numbers of a live run and of the one from the disk; times in ms, median and 95th percentile."""

    tracked: float  # share of the images served
    lost: float  # frames
    unseen: float
    dropped: float
    windows_skipped: float
    keyframes: float
    track_ms: float
    track_p95_ms: float
    pose_ms: float
    pose_p95_ms: float
    arrival_ms: float
    arrival_p95_ms: float
    ate_live: float  # metres; NaN without enough poses
    ate_disk: float
    ratio: float

    def __str__(self) -> str:
        return (
            f"{100 * self.tracked:.1f} % | {self.lost:.0f} | {self.unseen:.0f} ({self.dropped:.0f}) "
            f"| {self.windows_skipped:.0f} | {self.keyframes:.0f} | {self.track_ms:.1f}, {self.track_p95_ms:.1f} "
            f"| {self.pose_ms:.1f}, {self.pose_p95_ms:.1f} | {self.arrival_ms:.1f}, {self.arrival_p95_ms:.1f} "
            f"| {self.ate_live:.4f} | {self.ate_disk:.4f} | {self.ratio:.2f} |"
        )


def opened(folder: Path, max_frames: int | None) -> Source:
    """The recording."""
    return open_source(SourceSpec(str(folder), max_frames=max_frames, with_depth=False))


def pixels_of(image: np.ndarray) -> np.ndarray:
    """(P,) uint8: few green pixels of an image (H, W, 3), which hardly change by JPEG."""
    return image[::STEP_PX, ::STEP_PX, 1].ravel()


def read_recording(folder: Path, max_frames: int | None) -> Recording:
    """All that is compared with."""
    source = opened(folder, max_frames)
    found = [(frame.time_ns, pixels_of(frame.image)) for frame in source]
    if len(found) < 2:
        raise UsageError(f"{folder} must have at least 2 images to be served")
    time_ns, pixels = (np.array(column) for column in zip(*found))
    return Recording(source.camera, time_ns, pixels, read_groundtruth(folder))


def serve(folder: str, max_frames: int | None, fps: float) -> None:
    """Serve a recording: its URL is printed, and when a line comes in, what was sent and when."""
    limit_threads()
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    frames = opened(Path(folder), max_frames)
    images = [cv2.imencode(".jpg", frame.image[..., ::-1], quality)[1].tobytes() for frame in frames]
    server = runpy.run_path(str(SERVER))["MjpegServer"](images, fps, real_time=True)
    print(json.dumps(server.url), flush=True)
    sys.stdin.readline()
    print(json.dumps(server.sent), flush=True)


@contextmanager
def served(folder: Path, max_frames: int | None, fps: float) -> Iterator[tuple[str, Callable[[], list[list[int]]]]]:
    """`serve` in a process of its own: the URL, and what tells it that the run is over and gives what was sent."""
    given = json.dumps([str(folder), max_frames, fps])
    command = own_python(SERVING, Path(__file__).parent, given)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None

        def ended() -> list[list[int]]:
            process.stdin.write("over\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        try:
            yield json.loads(process.stdout.readline()), ended
        finally:
            process.terminate()


def live_run(url: str, camera: Camera, settings: list[str]) -> LiveRun:
    """Track and map what is served, to its end."""
    limit_threads()
    slam = build_slam(load_config(SlamConfig, None, settings), camera, live=True)
    clock = FrameTimes(slam)
    stamps, pixels, delay_ms = [], [], []

    def hear(progress: Progress) -> None:
        assert progress.frame is not None
        delay_ms.append((time.time_ns() - progress.frame.time_ns) / 1e6)
        stamps.append(progress.frame.time_ns)
        pixels.append(pixels_of(progress.frame.image))

    source = WebcamSource(url, choice=CameraChoice(known=camera), reconnect_s=0)
    try:
        slam.run(source, hear)
    except SourceError:
        if not stamps:
            raise  # else the end of the recording, which a camera has not: `one_pair` looks
    finally:
        source.close()
    trajectory, keyframes = slam.store.trajectory(), len(slam.store.everything())
    slam.store.close()
    arrays = np.array(stamps), np.array(pixels), np.array(delay_ms)
    return LiveRun(trajectory, *arrays, clock.numbers(), slam.counts, slam.backend.windows_skipped, keyframes)


def disk_run(folder: Path, max_frames: int | None, settings: list[str]) -> Trajectory:
    """Track and map a recording as fast as it goes."""
    slam = run_and_score(folder, settings, threads=True, source=opened(folder, max_frames)).slam
    slam.store.close()
    return slam.store.trajectory()


def shown(live: LiveRun, pixels: np.ndarray, sent: list[tuple[int, int]]) -> np.ndarray:
    """Which image each live frame shows: of those sent since the image before and not long ago, that most like it.

    Args:
        pixels: (N, P) of all images.
        sent: number of each image sent, and when.

    Returns:
        (M,) increasing numbers.

    Raises:
        SourceError: if there is none for a frame.
    """
    numbers, sent_ns = np.array(sent).T
    found: list[int] = []
    for time_ns, seen in zip(live.time_ns, live.pixels):
        under_way = (sent_ns <= time_ns) & (sent_ns > time_ns - SEARCHED_NS)
        possible = numbers[under_way & (numbers > (found[-1] if found else -1))]
        if not len(possible):
            raise SourceError("a frame came that was not sent; is something else served?")
        errors = ((pixels[possible].astype(np.float32) - seen) ** 2).mean(1)
        found.append(int(possible[errors.argmin()]))  # the first of equal ones: none is taken from the frames to come
    return np.array(found)


def retimed(live: LiveRun, numbers: np.ndarray, time_ns: np.ndarray) -> Trajectory:
    """The live poses, stamped as their images were taken."""
    frames = np.searchsorted(live.time_ns, live.trajectory.time_ns)
    return Trajectory(time_ns[numbers[frames]], live.trajectory.T_wc)


def ate_of(trajectory: Trajectory, truth: Trajectory) -> float:
    """Metres; NaN where there is nothing to score."""
    try:
        return ate(trajectory, truth, "sim3").rmse
    except EvaluationError:
        return float("nan")


def row(recording: Recording, live: LiveRun, sent: list[list[int]], disk: Trajectory) -> Row:
    """Numbers of a live run and of the one from the disk."""
    numbers = shown(live, recording.pixels, sent)
    arrival_ms = [(time_ns - dict(sent)[number]) / 1e6 for number, time_ns in zip(numbers.tolist(), live.time_ns)]
    trajectory = retimed(live, numbers, recording.time_ns)
    both = np.isin(disk.time_ns, trajectory.time_ns)
    errors = [ate_of(t, recording.truth) for t in (trajectory, Trajectory(disk.time_ns[both], disk.T_wc[both]))]
    return Row(
        len(trajectory) / len(recording.time_ns),
        live.counts.lost,
        len(recording.time_ns) - live.counts.seen,
        live.counts.dropped,
        live.windows_skipped,
        live.keyframes,
        *live.times["track_ms"],
        *np.quantile(live.delay_ms, (0.5, 0.95)).tolist(),
        *np.quantile(arrival_ms, (0.5, 0.95)).tolist(),
        *errors,
        errors[0] / errors[1],
    )


def one_pair(folder: Path, recording: Recording, fps: float, options: argparse.Namespace) -> Row:
    """A live run, and one from the disk."""
    with served(folder, options.max_frames, fps) as (url, ended):
        live = in_new_process(live_run, url, recording.camera, options.set)
        sent = ended()
    if sent[-1][0] < len(recording.time_ns) - 1 - fps:
        raise SourceError(f"the stream of {folder} broke off after {len(sent)} images")
    return row(recording, live, sent, in_new_process(disk_run, folder, options.max_frames, options.set))


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    print(f"settings: {' '.join(options.set) or 'default'}\n\n| {COLUMNS} |")
    print("| --- " * len(COLUMNS.split(" | ")) + "|", flush=True)
    for folder in options.folders:
        recording = read_recording(folder, options.max_frames)
        fps = options.fps or recording.fps
        head = f"{fps:.1f} | {len(recording.time_ns)}"
        rows: list[Row] = []
        for n in range(options.runs):
            rows.append(one_pair(folder, recording, fps, options))
            print(f"| {folder.name}, {n + 1} | {head} | {rows[-1]}", flush=True)
        if len(rows) > 1:
            middle = Row(*(median(values) for values in zip(*(vars(r).values() for r in rows))))
            print(f"| {folder.name}, median | {head} | {middle}", flush=True)
    return 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--fps", type=float, help="images per second (default: as recorded)")
    parser.add_argument("--runs", type=int, default=3, help="of each kind (default %(default)d)")
    parser.add_argument("--max-frames", type=int, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V")
    return guarded("bench_live", lambda: run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
