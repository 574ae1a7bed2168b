"""Images of a trajectory's error. matplotlib is imported where it draws, and needs no display."""

from pathlib import Path

import numpy as np

from slam.errors import OutputError
from slam.evaluation.trajectory import AteResult


def plot_trajectory(result: AteResult, path: Path, title: str = "") -> None:
    """Write an image: both ways along the two axes on which the truth moves most, and the error over time.

    Raises:
        OutputError: if the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    way, error = figure.subplots(1, 2)
    a, b = sorted(np.argsort(np.ptp(result.truth_p_w, axis=0))[-2:])
    way.plot(result.truth_p_w[:, a], result.truth_p_w[:, b], color="0.5", label="ground truth")
    way.plot(result.estimate_p_w[:, a], result.estimate_p_w[:, b], color="C0", label="estimate")
    way.set(xlabel=f"{'xyz'[a]} (m)", ylabel=f"{'xyz'[b]} (m)", aspect="equal", title=title)
    way.legend()
    error.plot((result.time_ns - result.time_ns[0]) * 1e-9, result.errors, color="C3")
    error.axhline(result.rmse, color="0.5", linestyle="--", label=f"rmse {result.rmse:.4f} m")
    error.set(xlabel="time (s)", ylabel="position error (m)", ylim=(0, None), title=f"aligned by {result.alignment}")
    error.legend()
    try:
        figure.savefig(path, dpi=120)
    except OSError as cause:
        raise OutputError(f"cannot write {path}: {cause.strerror or cause}") from cause
