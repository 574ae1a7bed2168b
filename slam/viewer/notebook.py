"""A run in a notebook: a figure of it, and the page of `slam/viewer/web.py` in a frame."""

import html
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from slam.errors import ViewerError
from slam.io.run import Run
from slam.threads import Worker
from slam.viewer.run import FinishedRun, Playback
from slam.viewer.run_figure import drawn
from slam.viewer.view_state import Feed
from slam.viewer.web_address import Address, import_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from slam.viewer.web import WebPage


def run_figure(run: str | Path, columns: int = 3) -> "Figure":
    """The map and the path of the camera from above, and keyframes with their depth (near is bright).

    Args:
        run: directory of a finished run.
        columns: keyframes at most, spread over the run.

    Returns:
        A matplotlib figure; a notebook shows it where a cell ends with it, `savefig` writes it.

    Raises:
        SourceError: if it is no run, has no keyframes, or a file of it is missing or damaged.
        ViewerError: if matplotlib cannot be loaded.
    """
    try:
        return drawn(Run(run), columns)
    except ImportError as error:
        raise ViewerError(f"cannot load matplotlib: {error}; pip install matplotlib") from error


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
