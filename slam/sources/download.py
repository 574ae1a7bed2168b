"""Downloads that resume where they stopped."""

import http.client
import logging
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

import pooch
from tqdm import tqdm

from slam.errors import SourceError
from slam.reading import reason

log = logging.getLogger(__name__)

ATTEMPTS = 5  # in a row without a new byte
TIMEOUT_S = 30.0
PAUSE_S = 2.0  # before another attempt
CHUNK_BYTES = 1 << 18


def download(url: str, file: Path, sha256: str | None = None, progress: bool = True, pause_s: float = PAUSE_S) -> Path:
    """Fetch a URL into `file`; what an interrupted call got stays in `file.part`, and the next call goes on there.

    A file that exists already is kept if its hash is right or none is known.

    Args:
        sha256: expected hash in hex.
        progress: draw a bar on stderr.
        pause_s: wait between attempts.

    Raises:
        SourceError: if the server refuses, the connection fails for good, the disk is full, or the hash differs.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise SourceError(f"cannot download {url}: only http and https")
    pooch.get_logger().setLevel("WARNING")
    downloader = _ResumingDownloader(file.with_name(file.name + ".part"), progress, pause_s)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, f"sha256:{sha256}" if sha256 else None, file.name, file.parent, downloader=downloader)
    except ValueError as error:  # pooch's word for another hash; it keeps nothing
        raise SourceError(f"{url} has not the expected SHA-256 {sha256}; nothing was kept") from error
    except OSError as error:
        raise SourceError(f"cannot store {url} in {file.parent}: {reason(error)}") from error
    return file


class _ResumingDownloader:
    """Fetches into a `.part` file that outlives failures; has the signature that pooch asks for."""

    def __init__(self, part: Path, progress: bool, pause_s: float) -> None:
        self.part = part
        self.tag = part.with_name(part.name + ".tag")  # which version of the file the part is of
        self.progress = progress
        self.pause_s = pause_s

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        attempts = 0
        while True:
            before = self._size()
            try:
                if self._fetch_rest(url):
                    break
                problem = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise SourceError(f"cannot download {url}: the server says {error.code} {error.reason}") from error
                problem = f"the server says {error.code} {error.reason}"
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            attempts = 1 if self._size() > before else attempts + 1
            if attempts >= ATTEMPTS:
                raise SourceError(
                    f"the download of {url} stopped after {self._size() / 1e6:.1f} MB: {problem}; "
                    "run the same command again to resume"
                )
            log.info("download of %s: %s; trying again", url, problem)
            time.sleep(self.pause_s)
        os.replace(self.part, output_file)
        self.tag.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fetch_rest(self, url: str) -> bool:
        """Append what is missing; True if the file is whole."""
        offset = self._size()
        headers = {"User-Agent": "v2d-slam", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.tag.exists():
                headers["If-Range"] = self.tag.read_text(encoding="latin-1")
        try:
            response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not offset:
                raise
            if _total(error.headers.get("Content-Range")) == offset:
                return True  # all was there already
            self.part.unlink()  # a part of something else
            return False
        with response:
            if response.status != 206:  # the server sends the whole file: it cannot resume, or has a newer version
                offset = 0
                length = response.headers.get("Content-Length")
                total = int(length) if length else None
            else:
                total = _total(response.headers.get("Content-Range"))
                if not (response.headers.get("Content-Range") or "").startswith(f"bytes {offset}-"):
                    self.part.unlink()
                    return False
            self._remember(response.headers)
            self._append(response, offset, total)
        return total is None or self._size() == total

    def _remember(self, headers: http.client.HTTPMessage) -> None:
        etag = headers.get("ETag") or ""
        tag = headers.get("Last-Modified") if not etag or etag.startswith("W/") else etag  # a weak tag cannot resume
        if tag:
            self.tag.write_text(tag, encoding="latin-1")
        else:
            self.tag.unlink(missing_ok=True)

    def _append(self, response: IO[bytes], offset: int, total: int | None) -> None:
        name = self.part.name.removesuffix(".part")
        bar = tqdm(
            desc=name, total=total, initial=offset, unit="B", unit_scale=True, disable=not self.progress, leave=False
        )
        with self.part.open("ab" if offset else "wb") as file, bar:
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))


def _total(content_range: str | None) -> int | None:
    """The size behind the slash of a Content-Range."""
    match = re.search(r"/(\d+)$", content_range or "")
    return int(match.group(1)) if match else None
