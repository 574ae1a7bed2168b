"""The trajectory of a run as TUM, KITTI and EuRoC write it. Poses are T_wc, camera axes x right, y down, z forward."""

import logging
from pathlib import Path

import numpy as np
import torch

from slam.errors import SourceError
from slam.export.options import ExportOptions
from slam.frames import Trajectory
from slam.geometry import se3
from slam.io.files import write_text
from slam.io.quaternion import quat_xyzw_from_matrix
from slam.io.run import KEYFRAMES, ONLINE, TRAJECTORY, Run
from slam.io.trajectory import format_time_ns, read_tum, write_tum
from slam.sources.reopen import used_times

log = logging.getLogger(__name__)

EUROC_COLUMNS = "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z []"


def final_trajectory(run: Run) -> Trajectory:
    """The poses of all frames; of a run that was killed those as first estimated, with a WARNING.

    Raises:
        SourceError: if there are none.
    """
    if run.file(TRAJECTORY).is_file() or not (run.path / ONLINE).is_file():
        return run.trajectory()
    log.warning("%s was killed: its poses are those first estimated, no others were written", run.path)
    return run.trajectory(online=True)


def write_tum_files(folder: Path, run: Run, options: ExportOptions) -> str:
    """`trajectory.txt` and, where there are keyframes, `keyframes.txt`."""
    trajectory, words = final_trajectory(run), "\n".join(options.conventions)
    write_tum(folder / TRAJECTORY, trajectory, words)
    if run.file(KEYFRAMES).is_file():
        write_tum(folder / KEYFRAMES, read_tum(run.file(KEYFRAMES)), words)
    return f"{len(trajectory)} poses"


def write_euroc(folder: Path, run: Run, options: ExportOptions) -> str:
    """`data.csv`, the poses of the camera (no IMU is known) in the columns of EuRoC's ground truth."""
    trajectory = final_trajectory(run)
    quat_wxyz = np.roll(quat_xyzw_from_matrix(trajectory.T_wc[:, :3, :3]), 1, axis=-1)
    values = np.concatenate([trajectory.T_wc[:, :3, 3], quat_wxyz], -1)
    lines = [EUROC_COLUMNS, *(f"# {line}" for line in options.conventions), "# S is the camera, R the world"]
    lines += [f"{t},{','.join(f'{x:.9f}' for x in row)}" for t, row in zip(trajectory.time_ns.tolist(), values)]
    write_text(folder / "data.csv", "\n".join(lines) + "\n")
    return f"{len(trajectory)} poses"


def write_kitti(folder: Path, run: Run, options: ExportOptions) -> str:
    """`poses.txt`, a line of 12 numbers for every frame of the run, `times.txt`, and `frames.txt`, which says for each
    line whether the frame has a pose of its own: the others are interpolated, before the first and after the last one
    they repeat it."""
    trajectory = final_trajectory(run)
    times_ns = used_times(run.record().source)
    T_wc, is_own = at_every_frame(trajectory, times_ns)
    if not is_own.any():
        raise SourceError(f"{run.record().source.name} has none of the frames of {run.path}: it has changed since")
    without = len(is_own) - int(is_own.sum())
    if without:
        log.warning(
            "%d of %d frames have no pose: their lines for KITTI are interpolated, or at the ends repeat the nearest; "
            "frames.txt says which",
            without,
            len(is_own),
        )
    write_text(folder / "poses.txt", "".join(" ".join(f"{x:.9e}" for x in T[:3].ravel()) + "\n" for T in T_wc))
    write_text(folder / "times.txt", "".join(f"{(t - times_ns[0]) * 1e-9:.6e}\n" for t in times_ns.tolist()))
    lines = [f"# {line}" for line in options.conventions]
    lines += ["# a line for each of poses.txt: time stamp in seconds, 1 if the frame has a pose of its own"]
    lines += [f"{format_time_ns(t)} {int(own)}" for t, own in zip(times_ns.tolist(), is_own)]
    write_text(folder / "frames.txt", "\n".join(lines) + "\n")
    return f"{len(is_own)} lines, {without} of frames without a pose"


def at_every_frame(trajectory: Trajectory, times_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pose for every frame: its own, or between its neighbours in time along the screw that joins them.

    Args:
        trajectory: N poses, N >= 1.
        times_ns: (M,) int64 of all frames.

    Returns:
        T_wc (M, 4, 4), and (M,) bool: the frame has a pose of its own.
    """
    is_own = np.isin(times_ns, trajectory.time_ns)
    after = np.searchsorted(trajectory.time_ns, times_ns, "left").clip(0, len(trajectory) - 1)
    before = (np.searchsorted(trajectory.time_ns, times_ns, "right") - 1).clip(0, len(trajectory) - 1)
    start_ns, end_ns = trajectory.time_ns[before], trajectory.time_ns[after]
    share = ((times_ns - start_ns) / np.maximum(end_ns - start_ns, 1)).clip(0, 1)
    share[before == after] = 0
    T_wa, T_wb = torch.from_numpy(trajectory.T_wc[before]), torch.from_numpy(trajectory.T_wc[after])
    twist = se3.log(se3.inverse(T_wa) @ T_wb)
    T_wc = (T_wa @ se3.exp(torch.from_numpy(share)[:, None] * twist)).numpy()
    return np.where(is_own[:, None, None], trajectory.T_wc[after], T_wc), is_own
