"""A run in a notebook: a figure of it, and the page of `slam/viewer/web.py` in a frame."""

import html
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slam.errors import SourceError
from slam.io.run import Run
from slam.threads import Worker
from slam.viewer.panel_images import depth_image
from slam.viewer.run import FinishedRun, Playback
from slam.viewer.view_state import Feed
from slam.viewer.web_address import Address, import_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from slam.viewer.web import WebPage

MOST_POINTS = 20_000  # of the map in a figure


def run_figure(run: str | Path, columns: int = 4) -> "Figure":
    """The map and the path of the camera from above, and keyframes with their depth (near is bright).

    Args:
        run: directory of a finished run.
        columns: keyframes at most, spread over the run.

    Returns:
        A matplotlib figure; a notebook shows it where a cell ends with it, `savefig` writes it.

    Raises:
        SourceError: if it is no run, has no keyframes, or a file of it is missing or damaged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = Run(run)
    records, trajectory, cloud = found.keyframe_records(), found.trajectory(), found.cloud()
    if not records:
        raise SourceError(f"the run {run} has no keyframes: there is nothing to show")
    chosen = np.unique(np.linspace(0, len(records) - 1, max(1, min(columns, len(records)))).round().astype(int))
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1.4))[0]
    plan = left.subplots()
    points = cloud.points[:: max(1, len(cloud) // MOST_POINTS)]
    colors = None if cloud.colors is None else cloud.colors[:: max(1, len(cloud) // MOST_POINTS)] / 255
    plan.scatter(points[:, 0], points[:, 2], s=1, c=colors, linewidths=0)
    path, stations = trajectory.T_wc[:, :3, 3], np.array([record.T_wc for record in records])[:, :3, 3]
    plan.plot(path[:, 0], path[:, 2], color="red", linewidth=1.5, label=f"path, {len(path)} frames")
    plan.plot(stations[:, 0], stations[:, 2], ".", color="deepskyblue", label=f"{len(records)} keyframes")
    plan.set(aspect="equal", xlabel="x", ylabel="z", title="from above, as the first camera looks")
    plan.legend(loc="best", fontsize="small")
    axes = right.subplots(2, len(chosen), squeeze=False)
    for column, n in zip(axes.T, chosen):
        depth = found.depth(records[n])
        inv_depth = np.where(depth > 0, 1 / np.maximum(depth, 1e-9), 0)
        for axis, image in zip(column, (found.image(records[n]), depth_image(inv_depth))):
            axis.imshow(image)
            axis.set_axis_off()
        column[0].set_title(f"keyframe {records[n].id}", fontsize="small")
    return figure


class WebView:
    """A page that is served until it is closed; a notebook shows it where a cell ends with it."""

    def __init__(self, feed: Feed, address: Address = Address(), height: int = 600) -> None:
        """Serve the page.

        Args:
            feed: what it shows.
            height: of the frame in the notebook, pixels.

        Raises:
            ViewerError: if viser is not installed, or the page cannot be served at that address.
        """
        page: WebPage = import_page()(feed, address)
        self.url = page.url
        self.height = height
        self._stop = threading.Event()
        self._worker: Worker[WebPage, None] = Worker(lambda page: page.show(self._stop.is_set), "page")
        self._worker.submit(page)

    def close(self) -> None:
        """End the page. Raises what it died of, if it did."""
        self._stop.set()
        self._worker.close()

    def iframe(self) -> str:
        """HTML that shows the page within another one."""
        return f'<iframe src="{html.escape(self.url)}" width="100%" height="{self.height}" frameborder="0"></iframe>'

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.iframe()


def web_view(run: str | Path, port: int | None = None, height: int = 600) -> WebView:
    """A finished run on a page of its own, in a notebook's cell or any browser of this computer.

    Args:
        run: directory of the run.
        port: None for any that is free.
        height: of the frame in the notebook, pixels.

    Raises:
        SourceError: if it is no run, has no keyframes, or a file of it is missing or damaged.
        ViewerError: if viser is not installed, or the port is taken.
    """
    return WebView(Playback(FinishedRun(Path(run))), Address(port=port), height)
