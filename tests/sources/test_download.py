"""Downloads resume, archives are unpacked with suspicion; all on this computer's loopback address."""

import gzip
import hashlib
import http.server
import io
import os
import random
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slam.errors import SourceError
from slam.sources.archives import extract
from slam.sources.download import download
from slam.sources.web_video import WebVideoSource

DATA = bytes(range(256)) * 4000  # about 1 MB


class Server(http.server.ThreadingHTTPServer):
    """Serves `data`, by ranges; breaks off the first `cuts` answers after `cut_bytes`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.tag, self.ranges, self.heeds_if_range = DATA, '"one"', True, True
        self.cuts, self.cut_bytes, self.failures = 0, 300_000, 0
        self.asked: list[str | None] = []  # the Range header of each request
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path != "/data.bin":
            return self.send_error(404)
        if server.failures:
            server.failures -= 1
            return self.send_error(503)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        is_new = server.heeds_if_range and self.headers.get("If-Range", server.tag) != server.tag
        if not server.ranges or is_new:
            start = 0
        if start >= len(server.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        body = server.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        self.send_header("Content-Length", str(len(body)))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            body = body[: server.cut_bytes]
        server.sent += len(body)
        self.wfile.write(body)
        return None


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(server: Server, file: Path, **options: object) -> Path:
    return download(server.url, file, progress=False, pause_s=0.0, **options)  # type: ignore[arg-type]


def test_whole_file(tmp_path, server):
    file = fetch(server, tmp_path / "sub/data.bin", sha256=hashlib.sha256(DATA).hexdigest())
    assert file.read_bytes() == DATA and [p.name for p in file.parent.iterdir()] == ["data.bin"]
    fetch(server, file)  # is there already
    assert len(server.asked) == 1


def test_broken_connection_resumes_within_the_call(tmp_path, server):
    server.cuts = 2
    assert fetch(server, tmp_path / "data.bin").read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-", "bytes=600000-"]
    assert server.sent == len(DATA)  # not one byte twice


def test_interrupted_download_resumes_in_the_next_call(tmp_path, server):
    """The part stays when a call gives up, and only the rest is fetched by the next."""
    server.cuts, server.failures = 1, 0
    broken = server.data
    download_part = tmp_path / "data.bin.part"

    class Stop(Exception):
        pass

    def stop(_seconds: float) -> None:
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr("slam.sources.download.time.sleep", stop)  # as if Ctrl-C came while waiting
        fetch(server, tmp_path / "data.bin")
    assert download_part.read_bytes() == broken[:300_000]
    assert fetch(server, tmp_path / "data.bin").read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-"] and server.sent == len(DATA)
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def leave_part(server: Server, file: Path, data: bytes, tag: str = '"one"') -> None:
    """As an interrupted download of a version of the file does."""
    file.with_name(f"{file.name}.part").write_bytes(data)
    file.with_name(f"{file.name}.part.tag").write_text(f"{server.url}\n{tag}\n")


def test_changed_file_starts_over(tmp_path, server):
    """A part of the old version must not be completed by the new one."""
    leave_part(server, tmp_path / "data.bin", b"old" * 1000, '"zero"')
    assert fetch(server, tmp_path / "data.bin").read_bytes() == DATA


def test_a_part_of_unknown_origin_is_not_gone_on_with(tmp_path, server):
    """Of no tag; of another address under the same name; a server that ignores If-Range, or sends a middle it was not
    asked for by its new tag."""
    (tmp_path / "a.part").write_bytes(b"old" * 1000)
    assert fetch(server, tmp_path / "a").read_bytes() == DATA and server.asked == [None]
    leave_part(server, tmp_path / "b", b"old" * 1000)
    (tmp_path / "b.part.tag").write_text(f'{server.url}/other\n"one"\n')
    assert fetch(server, tmp_path / "b").read_bytes() == DATA and server.asked[1:] == [None]
    leave_part(server, tmp_path / "c", b"old" * 1000, '"zero"')
    server.heeds_if_range = False
    assert fetch(server, tmp_path / "c").read_bytes() == DATA and server.asked[2:] == ["bytes=3000-", None]
    server.tag = ""
    server.cuts = 1
    assert fetch(server, tmp_path / "d").read_bytes() == DATA and server.asked[4:] == [None, None]


def test_server_without_ranges_starts_over(tmp_path, server):
    server.ranges, server.cuts = False, 1
    assert fetch(server, tmp_path / "data.bin").read_bytes() == DATA


def test_complete_part_is_taken_and_too_long_one_replaced(tmp_path, server):
    leave_part(server, tmp_path / "data.bin", DATA)
    assert fetch(server, tmp_path / "data.bin").read_bytes() == DATA and server.sent == 0
    leave_part(server, tmp_path / "b.bin", DATA + b"x")
    assert fetch(server, tmp_path / "b.bin").read_bytes() == DATA


def test_busy_server_is_asked_again_and_given_up(tmp_path, server):
    server.failures = 3
    assert fetch(server, tmp_path / "data.bin").read_bytes() == DATA
    server.failures = 99
    with pytest.raises(SourceError, match=r"stopped after 0.0 MB: the server says 503 .*run the same command again"):
        fetch(server, tmp_path / "b.bin")


def test_refusals(tmp_path, server):
    with pytest.raises(SourceError, match=r"cannot download .*nowhere: the server says 404"):
        download(server.url.replace("data.bin", "nowhere"), tmp_path / "a", progress=False)
    with pytest.raises(SourceError, match="has not the expected SHA-256 0000"):
        fetch(server, tmp_path / "a", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SourceError, match="only http and https"):
        download("file:///etc/passwd", tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot store"):
        fetch(server, tmp_path / "file" / "a")


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/a.mp4", "file:///etc/passwd", "data:text/plain,x"])
def test_redirects_stay_on_the_web(tmp_path, server, to):
    """For a download and for a video; one within the web is followed."""
    away = server.url.replace("data.bin", f"to/{to}")
    for fetch_it in (lambda: download(away, tmp_path / "a", progress=False, pause_s=0.0), lambda: WebVideoSource(away)):
        with pytest.raises(SourceError, match=r"which is not followed: it is not http or https|is not allowed"):
            fetch_it()
    within = server.url.replace("data.bin", f"to/{server.url}")
    assert download(within, tmp_path / "b", progress=False).read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_no_server(tmp_path, server):
    url = server.url
    server.server_close()
    with pytest.raises(SourceError, match=r"stopped after 0.0 MB: .*refused"):
        download(url, tmp_path / "a", progress=False, pause_s=0.0)


def make_tar(path: Path, members: list[tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            content = b"text" if member.isfile() else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o4755
    return info


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_tar_with_one_folder_becomes_that_folder(tmp_path):
    archive = make_tar(tmp_path / "a.tgz", [member("top", tarfile.DIRTYPE), member("top/x/a.txt"), member("top/b.txt")])
    folder = extract(archive, tmp_path / "new/scene")
    assert files_below(folder) == ["b.txt", "x/a.txt"] and (folder / "b.txt").read_bytes() == b"text"
    assert not os.stat(folder / "b.txt").st_mode & stat.S_ISUID
    assert [p.name for p in folder.parent.iterdir()] == ["scene"]
    with pytest.raises(SourceError, match="scene exists already"):
        extract(archive, folder)


def test_zip_of_zips(tmp_path):
    """As 7-Scenes comes: a scene with one archive for each sequence."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("seq-01/frame-000000.pose.txt", "pose")
    with zipfile.ZipFile(tmp_path / "chess.zip", "w") as file:
        file.writestr("chess/seq-01.zip", inner.getvalue())
        file.writestr("chess/readme.txt", "x")
    folder = extract(tmp_path / "chess.zip", tmp_path / "chess")
    assert files_below(folder) == ["readme.txt", "seq-01/frame-000000.pose.txt"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("../evil.txt"), "a path that leads out"),
        (member("a/../../evil.txt"), "a path that leads out"),
        (member("/tmp/evil.txt"), "a path that leads out"),
        (member("..\\evil.txt"), "a path that leads out"),
        (member("C:/evil.txt"), "a path that leads out"),
        (member("link", tarfile.SYMTYPE, "../.."), "a link or device"),
        (member("link", tarfile.LNKTYPE, "ok.txt"), "a link or device"),
        (member("null", tarfile.CHRTYPE), "a link or device"),
        (member("pipe", tarfile.FIFOTYPE), "a link or device"),
    ],
)
def test_evil_tars_leave_nothing(tmp_path, bad: tarfile.TarInfo, message: str):
    place = tmp_path / "place"
    place.mkdir()
    archive = make_tar(tmp_path / "a.tgz", [member("ok.txt"), bad])
    with pytest.raises(SourceError, match=f"a.tgz holds {message}"):
        extract(archive, place / "scene")
    assert list(place.iterdir()) == [] and sorted(p.name for p in tmp_path.iterdir()) == ["a.tgz", "place"]


def test_evil_zips_leave_nothing(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for name, message in (("../evil.txt", "leads out"), ("/evil.txt", "leads out"), (link, "a link or device")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
            file.writestr(name, "../..")
        with pytest.raises(SourceError, match=message):
            extract(tmp_path / "a.zip", tmp_path / "scene")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def noise_tar(path: Path, mode: str) -> tuple[Path, bytes]:
    """A tar of ten files of noise, and its bytes."""
    with tarfile.open(path, mode) as tar:
        for n in range(10):
            info = tarfile.TarInfo(f"{n}.bin")
            info.size = 5000
            tar.addfile(info, io.BytesIO(random.Random(n).randbytes(5000)))
    return path, path.read_bytes()


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_checked_to_the_last_byte(tmp_path, mode):
    """Where no hash is known, the checksum at the end of the compressed data tells: tar itself stops before it."""
    archive, whole = noise_tar(tmp_path / "a.tar", mode)
    spoilt = {"checksum": whole[:-8] + bytes(b ^ 1 for b in whole[-8:-4]) + whole[-4:], "end": whole[:-6]}
    if mode == "w:bz2":
        spoilt["checksum"] = whole[:-5] + bytes(b ^ 1 for b in whole[-5:])
    for data in spoilt.values():
        archive.write_bytes(data)
        with pytest.raises(SourceError, match=r"a\.tar is damaged: .*; download it again"):
            extract(archive, tmp_path / "scene")
    archive.write_bytes(whole)
    assert len(files_below(extract(archive, tmp_path / "scene"))) == 10


def test_a_tar_without_its_end_is_refused(tmp_path):
    """Cut between two files; a damaged header in the middle, at which a reader stops without a word."""
    archive, whole = noise_tar(tmp_path / "a.tar", "w:")
    step = 512 + 5120
    for data in (
        whole[: 5 * step],
        whole[: 5 * step + 100],
        whole[: 5 * step] + b"\xff" * 512 + whole[5 * step + 512 :],
    ):
        archive.write_bytes(data)
        with pytest.raises(SourceError, match=r"a\.tar is damaged: its list of files has no end"):
            extract(archive, tmp_path / "scene")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_a_name_of_gigabytes_is_a_bomb(tmp_path):
    """A long name is read as a whole before the file that it is of."""
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 3 << 30
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=1) as file:
        file.write(tarfile.TarInfo("a.txt").tobuf() + name.tobuf() + bytes(8 << 20))
    with pytest.raises(SourceError, match=r"a\.tgz is damaged: a name of 3221225472 bytes"):
        extract(tmp_path / "a.tgz", tmp_path / "scene")


def test_damaged_archives(tmp_path):
    whole = make_tar(tmp_path / "a.tgz", [member(f"{n}.txt") for n in range(2000)]).read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.zip").write_text("no archive")
    for name, message in (("a.tgz", "is damaged"), ("b.zip", "is neither a tar nor a zip")):
        with pytest.raises(SourceError, match=f"{name} {message}.*download it again"):
            extract(tmp_path / name, tmp_path / "scene")
    with pytest.raises(SourceError, match=r"cannot unpack .*No such file"):
        extract(tmp_path / "c.zip", tmp_path / "scene")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tgz", "b.zip"]
