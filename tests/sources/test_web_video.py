"""Videos over HTTP on loopback: files end and come once, whatever the server can do; what is none is told."""

from base64 import b64decode
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from apps.run import main
from slam.errors import SourceError, UsageError
from slam.io.run import Run
from slam.sources import SourceSpec, open_source, resolved, web_video
from slam.sources.reopen import recorded_spec, reopened
from slam.sources.webcam import WebcamSource

VIDEOS = Path(__file__).parent / "videos"


Answer = Callable[[BaseHTTPRequestHandler], None]


def sends(data: bytes, kind: str = "video/mp4", with_size: bool = True, status: int = 200) -> Answer:
    """The whole of it, never a range."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        if with_size:
            request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return answer


def never_ends(kind: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.end_headers()
        while True:
            request.wfile.write(bytes(1 << 16))

    return answer


@pytest.mark.parametrize("with_size", [True, False])
@pytest.mark.parametrize("option", ["--video", "--sequence"])
def test_every_frame_comes_once_and_a_run_can_open_it_again(serve, scenes, tmp_path, with_size, option):
    """From a server without ranges, index at the end of the file (OpenCV by itself would have to seek)."""
    path = scenes.video(tmp_path / "a.mp4", 12, code="mp4v")
    url = f"{serve(sends(path.read_bytes(), with_size=with_size))}/clip.mp4?id=3"
    spec = resolved(SourceSpec(url, "video" if option == "--video" else "", hfov_deg=60))
    source = open_source(spec)
    for _ in range(2):
        numbers = [scenes.number_of(frame.image) for frame in source]
        assert np.abs(np.array(numbers) - np.arange(12)).max() <= 1 and source.count == 12
    record = recorded_spec(url, spec, source)
    assert record.path == url and len(list(reopened(record))) == 12


def test_what_was_fetched_goes_with_the_source(serve, monkeypatch, tmp_path):
    monkeypatch.setattr(
        web_video.tempfile, "mkdtemp", lambda prefix: str((tmp_path / prefix).mkdir() or tmp_path / prefix)
    )
    url = f"{serve(sends((VIDEOS / 'uneven.mp4').read_bytes()))}/a.mp4"
    source = open_source(SourceSpec(url, "video", hfov_deg=60))
    assert [file.name for file in (tmp_path / "v2d-").iterdir()] == ["a.mp4"]
    del source
    assert not (tmp_path / "v2d-").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (sends(b"gone", status=404), "the server says 404 Not Found"),
        (sends(b"<!doctype html><html>", "text/html; charset=utf-8"), "is a web page, not a video"),
        (
            never_ends("multipart/x-mixed-replace; boundary=frame"),
            r"is a live stream \(MJPEG\), which has no end; use --ca",
        ),
        (sends(b"#EXTM3U\n", "application/vnd.apple.mpegurl"), "is a playlist, not a video file: ffmpeg -i http"),
        (never_ends("video/mp2t"), "states no size and has not ended within 0.2 s"),
        (sends(bytes(range(256))), r"http://.*/clip.mp4 is no video that OpenCV can read"),
        (sends(b"PK\3\4" + bytes(90)), r"http://.*/clip.mp4 is no video but an archive .* download it, and use"),
    ],
)
def test_what_is_no_video_file_is_one_line(serve, monkeypatch, capsys, answer, message):
    monkeypatch.setattr(web_video, "ENDLESS_S", 0.2)
    url = f"{serve(answer)}/clip.mp4"
    with pytest.raises(SourceError, match=message):
        open_source(SourceSpec(url, "video"))
    assert main(["--video", url, "--quiet"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_that_is_not_there_and_other_addresses(capsys):
    with pytest.raises(SourceError, match=r"cannot fetch http://127.0.0.1:9/a.mp4: .*refused"):
        open_source(SourceSpec("http://127.0.0.1:9/a.mp4", "video"))
    with pytest.raises(UsageError, match=r"--video rtsp://camera/1 is neither a file nor http.*use --camera"):
        open_source(SourceSpec("rtsp://camera/1", "video"))
    assert main(["--video", "rtsp://camera/1", "--quiet"]) == 2


def test_a_file_given_as_a_camera_ends_and_loses_no_frame(serve, scenes, tmp_path, caplog):
    """Without parallax there is no map; every frame was seen, once, and the run ended by itself."""
    path = scenes.video(tmp_path / "a.mp4", 12, code="mp4v")
    url = f"{serve(sends(path.read_bytes()))}/stream"
    out = tmp_path / "run"
    main(["--camera", url, "--hfov", "60", "--out", str(out), "--set", "pixels=19200"])
    record = Run(out).record()
    assert (record.frames_seen, record.frames_dropped, record.source.kind) == (12, 0, "webvideo")
    assert f"{url} is a video file, not a camera: reading it as --video" in caplog.text


@pytest.mark.parametrize(
    ("kind", "with_size", "expected"),
    [
        ("video/mp4", True, True),
        ("application/octet-stream", True, True),
        ("video/mp4", False, False),
        ("multipart/x-mixed-replace; boundary=x", True, False),
        ("application/vnd.apple.mpegurl", True, False),  # HLS, also of live cameras
        ("text/html", True, False),
        ("image/jpeg", True, False),
    ],
)
def test_cameras_are_told_from_files_by_what_the_server_says(serve, kind, with_size, expected):
    assert web_video.is_video_file(f"{serve(sends(b'data', kind, with_size))}/x") is expected
    assert not web_video.is_video_file("rtsp://127.0.0.1:9/x") and not web_video.is_video_file("webcam:1")


def test_a_camera_source_refuses_a_file(serve):
    """Where the program does not look first: it would begin again and again."""
    url = f"{serve(sends((VIDEOS / 'index_first.mp4').read_bytes()))}/stream"
    with pytest.raises(SourceError, match=r"is a video file, not a camera: use --video"):
        WebcamSource(url)


def test_a_secret_of_an_address_is_written_nowhere(serve, scenes, tmp_path, capsys):
    """A token and a password open the file, and only masked they come into files and messages; so the frames cannot
    be opened again, which is said."""
    path, heard = scenes.video(tmp_path / "a.mp4", 12, code="mp4v"), []
    sending = sends(path.read_bytes())

    def answer(request: BaseHTTPRequestHandler) -> None:
        given = request.headers["Authorization"]
        if given is None:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="videos"')
            request.end_headers()
        else:
            heard.append((request.path, b64decode(given.split()[-1])))
            sending(request)

    url = f"{serve(answer)}/clip.mp4?token=hunter22&id=3".replace("://", "://me:sw%40rdfish@")
    out = tmp_path / "run"
    assert (
        main(["--video", url, "--hfov", "60", "--out", str(out), "--set", "pixels=19200", "--headless"]) == 1
    )  # still
    assert heard and set(heard) == {("/clip.mp4?token=hunter22&id=3", b"me:sw@rdfish")}
    output = capsys.readouterr()
    written = [file.read_bytes() for file in out.rglob("*") if file.is_file()]
    for text in (*written, output.out.encode(), output.err.encode()):
        assert b"hunter22" not in text and b"rdfish" not in text
    record = Run(out).record().source
    assert "/clip.mp4?token=***&id=3" in record.path and record.name == record.path and "://***@127" in record.path
    with pytest.raises(SourceError, match=r"opened with a password or a token, which is not kept"):
        reopened(record)
