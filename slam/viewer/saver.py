"""Points and screenshots, written beside a run while somebody looks at it."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slam.errors import OutputError
from slam.io.images import write_color
from slam.io.ply import write_ply
from slam.mapping.fusion import FusionConfig, fused_cloud
from slam.threads import Worker
from slam.viewer.view_state import ViewState

log = logging.getLogger(__name__)


class Saver:
    """Writes `view_001` and so on into a folder, on a thread of its own; what it answers is for the status text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._worker: Worker[Callable[[], str], str] = Worker(lambda save: save(), "saver")

    def save_cloud(self, shown: ViewState, min_confidence: float) -> str:
        """Fuse the points of the keyframes drawn into a PLY file."""
        config = FusionConfig(min_confidence=min_confidence)
        return self._save("ply", lambda path: write_ply(path, fused_cloud(shown.drawn, config)))

    def save_image(self, pixels: np.ndarray) -> str:
        """Write (H, W, 3) uint8 RGB as PNG."""
        return self._save("png", lambda path: write_color(path, pixels))

    def results(self) -> list[str]:
        """What has become of files since the last call."""
        return self._worker.results()

    def close(self) -> None:
        """Write what is being saved, and end the thread."""
        self._worker.close()

    def _save(self, suffix: str, writer: Callable[[Path], None]) -> str:
        is_taken = self._worker.try_submit(lambda: saved(self._folder, suffix, writer))
        return "saving..." if is_taken else "still saving: try again"


def saved(folder: Path, suffix: str, writer: Callable[[Path], None]) -> str:
    """Write `view_001` or the next name that is free; what to say about it: a refusal is no end."""
    number = 1
    while (path := folder / f"view_{number:03d}.{suffix}").exists():
        number += 1
    try:
        writer(path)
    except OutputError as error:
        log.error("%s", error)
        return str(error)
    log.info("wrote %s", path)
    return f"saved {path.name}"
