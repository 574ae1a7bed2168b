"""A finished run as one figure: map and path from above, keyframes with their depth."""

import io
from typing import TYPE_CHECKING

import numpy as np

from slam.errors import SourceError
from slam.io.run import KeyframeRecord, Run
from slam.viewer.panel_images import depth_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 20_000  # of the map


def drawn(run: Run, columns: int) -> "Figure":
    """The figure; it draws itself, whatever pyplot is set to.

    Args:
        columns: keyframes at most, spread over the run.

    Raises:
        ImportError: if there is no matplotlib.
        SourceError: if the run has no keyframes, or a file of it is missing or damaged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class RunFigure(Figure):
        """Shown by a notebook, also without pyplot."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    records = run.keyframe_records()
    if not records:
        raise SourceError(f"the run {run.path} has no keyframes: there is nothing to show")
    chosen = np.unique(np.linspace(0, len(records) - 1, max(1, min(columns, len(records)))).round().astype(int))
    figure = RunFigure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.4))[0]
    draw_plan(left.subplots(), run, records)
    for column, n in zip(right.subplots(2, len(chosen), squeeze=False).T, chosen):
        draw_keyframe(column, run, records[n])
    return figure


def draw_plan(plan: "Axes", run: Run, records: list[KeyframeRecord]) -> None:
    """Map and path from above."""
    trajectory, cloud = run.trajectory(), run.cloud()
    some = slice(None, None, max(1, len(cloud) // MOST_POINTS))
    colors = None if cloud.colors is None else cloud.colors[some] / 255
    plan.scatter(cloud.points[some, 0], cloud.points[some, 2], s=1, c=colors, linewidths=0)
    path, stations = trajectory.T_wc[:, :3, 3], np.array([record.T_wc for record in records])[:, :3, 3]
    plan.plot(path[:, 0], path[:, 2], color="red", linewidth=1.5, label=f"path, {len(path)} frames")
    plan.plot(stations[:, 0], stations[:, 2], ".", color="deepskyblue", label=f"{len(records)} keyframes")
    plan.set(aspect="equal", xlabel="x", ylabel="z", title="from above, as the first camera looks")
    plan.legend(loc="best", fontsize="small")


def draw_keyframe(axes: np.ndarray, run: Run, record: KeyframeRecord) -> None:
    """Its image, and below it its depth."""
    depth = run.depth(record)
    inv_depth = np.where(depth > 0, 1 / np.maximum(depth, 1e-9), 0)
    for axis, image in zip(axes, (run.image(record), depth_image(inv_depth))):
        axis.imshow(image)
        axis.set_axis_off()
    axes[0].set_title(f"keyframe {record.id}", fontsize="small")
