"""A kidnapped camera on recordings with ground truth: frames are cut out, and the image comes back elsewhere.

    python tools/bench_kidnap.py DATA/desk_gentle --frames 300 --at 100 250

For each cut, with stamps that tell of it and without: how far, by the truth, the returning camera is from the nearest
view before; after how many frames it is found; and the ATE (Sim(3)) of both runs over the frames that the cut one
sees; how many frames have a pose in one trajectory, and how many maps there are in the end. A camera that comes back
where there is no map begins one, which is joined to the first where it sees that. Runs are on one thread, so they
repeat.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from apps.common import guarded
from slam.errors import UsageError
from slam.evaluation.trajectory import ate
from slam.experiment import Experiment, run_and_score
from slam.frames import Estimate, Frame, Progress, Status, Trajectory
from slam.sources import Source, SourceSpec, open_source


class Cut:
    """A recording without some of its frames; with `hidden` the stamps close up, so that nothing tells of it."""

    live = False

    def __init__(self, source: Source, gone: range, hidden: bool = False) -> None:
        self.camera, self.skipped = source.camera, 0
        self.count: int | None = None
        self._source, self._gone, self._hidden = source, gone, hidden
        self.shift_ns = 0  # of the stamps after the cut

    def __iter__(self) -> Iterator[Frame]:
        before_ns, step_ns = 0, 0
        for frame in self._source:
            if frame.id < self._gone.start:
                step_ns, before_ns = frame.time_ns - before_ns, frame.time_ns
            elif frame.id == self._gone.stop and self._hidden:
                self.shift_ns = before_ns + step_ns - frame.time_ns
            if frame.id not in self._gone:
                yield replace(frame, time_ns=frame.time_ns + (self.shift_ns if frame.id >= self._gone.stop else 0))

    def close(self) -> None:
        """Close the recording."""
        self._source.close()


@dataclass(frozen=True, eq=False)
class Walked:
    """A run: the frames' times, and from the first map on what was said of each."""

    experiment: Experiment
    times_ns: list[int]
    said: list[Estimate]

    @property
    def trajectory(self) -> Trajectory:
        """Final poses."""
        return self.experiment.slam.store.trajectory()


def followed(folder: Path, source: Source) -> Walked:
    """Run the system over frames of a recording."""
    times_ns: list[int] = []
    said: list[Estimate] = []

    def hear(progress: Progress) -> None:
        assert progress.frame is not None
        times_ns.append(progress.frame.time_ns)
        if progress.snapshot.estimate is not None:
            said.append(progress.snapshot.estimate)

    return Walked(run_and_score(folder, source=source, publish=hear), times_ns, said)


def nearest(truth: Trajectory, times_ns: np.ndarray, gone: range) -> tuple[float, float]:
    """Distance (m) and angle (degrees) from the first view after a cut to the one before that is most like it."""
    T_wc = truth.T_wc[np.searchsorted(truth.time_ns, times_ns).clip(0, len(truth) - 1)]
    known, back = T_wc[: gone.start], T_wc[gone.stop]
    distance = np.linalg.norm(known[:, :3, 3] - back[:3, 3], axis=1)
    cosine = (np.einsum("nij,ij->n", known[:, :3, :3], back[:3, :3]) - 1) / 2
    angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
    best = int((distance / 0.15 + angle / 10).argmin())
    return float(distance[best]), float(angle[best])


def report(folder: Path, gone: range, hidden: bool, uncut: Walked) -> str:
    """One line of the table."""
    source = Cut(open_source(SourceSpec(path=str(folder))), gone, hidden)
    cut = followed(folder, source)
    truth, full = uncut.experiment.truth, uncut.trajectory
    start_ns, stop_ns = uncut.times_ns[gone.start], uncut.times_ns[gone.stop]
    back = [n for n, e in enumerate(cut.said) if e.frame_id >= gone.stop]
    tracked = [n for n in back if cut.said[n].status is Status.TRACKING]
    words = f"| {folder.name} | {gone.start} to {gone.stop} | {'no' if hidden else 'yes'} "
    distance, angle = nearest(truth, np.array(uncut.times_ns), gone)
    words += f"| {distance:.2f} m, {angle:.0f} deg "
    if not tracked:
        return words + "| never |" + " |" * 6
    trajectory = cut.trajectory
    late = trajectory.time_ns >= stop_ns + source.shift_ns
    trajectory = Trajectory(trajectory.time_ns - late * source.shift_ns, trajectory.T_wc)
    seen = (full.time_ns < start_ns) | (full.time_ns >= stop_ns)
    errors = [ate(t, truth, "sim3").rmse for t in (trajectory, Trajectory(full.time_ns[seen], full.T_wc[seen]))]
    lost = len(back) - len(tracked)
    return words + (
        f"| {tracked[0] - back[0]} frames | {lost} of {len(back)} "
        f"| {100 * len(trajectory) / len(cut.times_ns):.1f} % | {len(cut.experiment.slam.store.map_ids())} "
        f"| {errors[0]:.4f} | {errors[1]:.4f} | {errors[0] / errors[1]:.2f} |"
    )


def run(options: argparse.Namespace) -> int:
    """Print the table."""
    uncut = followed(options.folder, open_source(SourceSpec(path=str(options.folder))))
    columns = "recording, cut, stamps tell, nearest known view, found after, lost after it, frames with a pose, maps"
    print("| " + columns.replace(", ", " | ") + " | ATE cut | uncut | ratio |")
    print("| --- " * 11 + "|")
    for at in options.at:
        if not 0 < at < at + options.frames < len(uncut.times_ns):
            raise UsageError(
                f"--at {at}: frames {at} to {at + options.frames} are not within {len(uncut.times_ns)} frames"
            )
        for hidden in (False, True):
            print(report(options.folder, range(at, at + options.frames), hidden, uncut), flush=True)
    return 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=300, help="cut out (default %(default)d)")
    parser.add_argument("--at", type=int, nargs="+", required=True, help="first frame of each cut")
    return guarded("bench_kidnap", lambda: run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
