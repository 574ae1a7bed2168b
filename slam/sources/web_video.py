"""Videos on the web: fetched whole, then read as files, so that no frame is lost and none comes twice."""

import logging
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from slam.errors import SourceError, UsageError
from slam.sources.download import download
from slam.sources.sequence import ALL_FRAMES, OWN_CAMERA, CameraChoice, FrameWindow
from slam.sources.video import VideoSource
from slam.sources.web import FAILURES, is_web, opened, words

log = logging.getLogger(__name__)

TIMEOUT_S = 20.0  # without an answer, or another byte
ENDLESS_S = 60.0  # what states no size and has not ended after so long is a live stream
ENDLESS_BYTES = 4 << 30  # or after so much
CHUNK_BYTES = 1 << 18


class WebVideoSource(VideoSource):
    """Frames of a video file on the web, fetched into a temporary folder that goes with the source."""

    def __init__(
        self,
        url: str,
        window: FrameWindow = ALL_FRAMES,
        choice: CameraChoice = OWN_CAMERA,
        fps: float | None = None,
    ) -> None:
        """Fetch the file, and read its first frame.

        Raises:
            UsageError: if it is no address of the web.
            SourceError: if it cannot be fetched, is no video, or has no end.
            CalibrationError: if the calibration is unreadable or for other images.
        """
        if not is_web(url):
            raise UsageError(f"--video {url} is neither a file nor http(s)://; for a live stream use --camera")
        folder = Path(tempfile.mkdtemp(prefix="v2d-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)  # also at the end of the program
        super().__init__(_fetched(url, folder), window, choice, fps, name=url)


def is_video_file(url: str) -> bool:
    """True if there is a file under an address of the web, which has an end, and not a camera, which has none."""
    if not is_web(url):
        return False
    try:
        with _answer(url) as answer:
            kind = str(answer.headers.get_content_type())
            is_video = kind.startswith("video/") or kind in ("application/octet-stream", "application/mp4")
            return is_video and not _is_playlist(kind) and answer.headers.get("Content-Length") is not None
    except SourceError:
        return False


def _fetched(url: str, folder: Path) -> Path:
    """The file under an address; raises SourceError."""
    file = folder / (Path(urlsplit(url).path).name or "video")
    with _answer(url) as answer:
        kind, has_size = str(answer.headers.get_content_type()), answer.headers.get("Content-Length") is not None
        if kind == "multipart/x-mixed-replace":
            raise SourceError(f"{url} is a live stream (MJPEG), which has no end; use --camera {url}")
        if kind in ("text/html", "application/xhtml+xml"):
            raise SourceError(f"{url} is a web page, not a video: give the address of the video file itself")
        if _is_playlist(kind):
            raise SourceError(f"{url} is a playlist, not a video file: ffmpeg -i {url} -c copy video.mp4 fetches it")
        if not has_size:
            _keep(answer, url, file)
            return file
    log.info("fetching %s", url)
    return download(url, file, progress=False)


def _keep(answer: IO[bytes], url: str, file: Path) -> None:
    """Store an answer that does not say how long it is."""
    begin_s = time.monotonic()
    log.info("fetching %s, of unknown size", url)
    try:
        with file.open("wb") as kept:
            while chunk := answer.read(CHUNK_BYTES):
                kept.write(chunk)
                if time.monotonic() - begin_s > ENDLESS_S or kept.tell() > ENDLESS_BYTES:
                    raise SourceError(
                        f"{url} states no size and has not ended within {ENDLESS_S:g} s or {ENDLESS_BYTES >> 30} GiB: "
                        "for a live stream use --camera, a large file fetch first"
                    )
    except FAILURES as error:
        raise SourceError(f"cannot fetch {url}: {words(error)}") from error


def _answer(url: str) -> Any:
    """The answer of the server, its data not read yet; raises SourceError."""
    try:
        return opened(url, TIMEOUT_S)
    except FAILURES as error:
        raise SourceError(f"cannot fetch {url}: {words(error)}") from error


def _is_playlist(kind: str) -> bool:
    """True of HLS and DASH, which FFmpeg plays as streams."""
    return "mpegurl" in kind or "dash+xml" in kind
