"""Downloads that resume where they stopped."""

import http.client
import logging
import os
import re
import time
import urllib.error
from email.message import Message
from pathlib import Path
from typing import IO

import pooch
from tqdm import tqdm

from slam.errors import SourceError, without_secrets
from slam.reading import read_text, reason
from slam.sources.web import is_web, opened, words

log = logging.getLogger(__name__)

ATTEMPTS = 5  # in a row without a new byte
TIMEOUT_S = 30.0
PAUSE_S = 2.0  # before another attempt
CHUNK_BYTES = 1 << 18
MAX_TAG_BYTES = 1 << 16


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
    if not is_web(url):
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
        self.tag = part.with_name(part.name + ".tag")  # the URL and the version of the file that the part is of
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
                    raise SourceError(f"cannot download {url}: {words(error)}") from error
                problem = words(error)
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                problem = words(error)
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
        """Append what is missing; True if the file is whole.

        A part is gone on with only if it is known which version of the file under this address it is of.
        """
        tag = self._tag_of_part(url)
        offset = self._size() if tag else 0
        headers = {"Range": f"bytes={offset}-", "If-Range": tag} if offset else {}
        try:
            response = opened(url, TIMEOUT_S, headers)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not offset:
                raise
            if _total(error.headers.get("Content-Range")) == offset and _tag(error.headers) in (tag, ""):
                return True  # all was there already
            self._forget()  # a part of something else
            return False
        with response:
            if response.status != 206:  # the server sends the whole file: it cannot resume, or has a newer version
                offset = 0
                length = response.headers.get("Content-Length") or ""
                total = int(length) if length.isdecimal() else None
            else:
                content_range = response.headers.get("Content-Range") or ""
                total = _total(content_range)
                if not content_range.startswith(f"bytes {offset}-") or _tag(response.headers) not in (tag, ""):
                    self._forget()
                    return False
            if not offset:
                self._remember(url, _tag(response.headers))
            self._append(response, offset, total)
        return total is None or self._size() == total

    def _tag_of_part(self, url: str) -> str:
        """Which version of a URL the part is of; empty if that is not known."""
        if not self.tag.exists():
            return ""
        known_url, _, tag = read_text(self.tag, "tag of a download", limit=MAX_TAG_BYTES).strip().partition("\n")
        return tag if known_url == without_secrets(url) else ""

    def _remember(self, url: str, tag: str) -> None:
        if tag:
            self.tag.write_text(f"{without_secrets(url)}\n{tag}\n", encoding="utf-8")
        else:
            self.tag.unlink(missing_ok=True)

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
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


def _tag(headers: Message) -> str:
    """What tells the versions of a file apart; empty if the server does not say, or by a weak tag, which cannot."""
    etag = headers.get("ETag") or ""
    tag = headers.get("Last-Modified") or "" if not etag or etag.startswith("W/") else etag
    return tag if tag.isprintable() else ""


def _total(content_range: str | None) -> int | None:
    """The size behind the slash of a Content-Range."""
    match = re.search(r"/(\d{1,18})$", content_range or "")
    return int(match.group(1)) if match else None
