"""Cameras that push images over HTTP: in the forms that they have, each image of a bounded size."""

import base64
import itertools
import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import pytest

from slam.errors import SourceError
from slam.sources import mjpeg
from slam.sources.webcam import WebcamSource

Sends = Callable[[BaseHTTPRequestHandler], None]
BLOCK = b"\xff\xd8" + bytes(1 << 20)


def jpeg(number: int, width: int = 64, height: int = 48) -> bytes:
    image = np.full((height, width, 3), 20 * number, np.uint8)
    return bytes(cv2.imencode(".jpg", image)[1])


@pytest.fixture
def serve(serve: Callable[[Sends], str]) -> Callable[..., str]:
    """Starts cameras; gives their addresses."""

    def start(send: Sends, kind: str = "multipart/x-mixed-replace; boundary=frame") -> str:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Type", kind)
            request.end_headers()
            send(request)

        return f"{serve(answer)}/video"

    return start


def parts(*, with_size: bool, delimiter: bytes = b"--frame", feed: bytes = b"\r\n") -> Sends:
    """Ten images."""

    def send(camera: BaseHTTPRequestHandler) -> None:
        for number in range(10):
            data = jpeg(number)
            size = b"Content-Length: %d" % len(data) + feed if with_size else b""
            camera.wfile.write(delimiter + feed + b"Content-Type: image/jpeg" + feed + size + feed + data + feed)
        camera.wfile.write(delimiter + b"--" + feed)

    return send


@pytest.mark.parametrize(
    ("send", "kind"),
    [
        (parts(with_size=True), "multipart/x-mixed-replace; boundary=frame"),
        (parts(with_size=False), "multipart/x-mixed-replace; boundary=frame"),
        (parts(with_size=False, feed=b"\n"), 'multipart/x-mixed-replace;boundary="frame"'),
        (parts(with_size=False, delimiter=b"--frame"), "multipart/x-mixed-replace; boundary=--frame"),
        (parts(with_size=True, delimiter=b"----frame"), "multipart/x-mixed-replace; boundary=--frame"),
        (parts(with_size=True), "multipart/x-mixed-replace"),
    ],
)
def test_every_image_comes_once_and_whole(serve, send, kind):
    answer = mjpeg.image_stream(serve(send, kind), 5.0)
    assert list(mjpeg.image_parts(answer, "camera")) == [jpeg(number) for number in range(10)]


def test_a_camera_of_another_kind_is_left_to_others(serve):
    assert mjpeg.image_stream(serve(lambda camera: None, "video/mp2t"), 5.0) is None


def without_end(camera: BaseHTTPRequestHandler) -> None:
    camera.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n")
    while True:
        camera.wfile.write(BLOCK)


def of_gigabytes(camera: BaseHTTPRequestHandler) -> None:
    camera.wfile.write(b"--frame\r\nContent-Length: 5000000000\r\n\r\n")
    while True:
        camera.wfile.write(BLOCK)


def without_images(camera: BaseHTTPRequestHandler) -> None:
    for number in itertools.count():
        camera.wfile.write(b"line %d\r\n" % number)


def of_one_line(camera: BaseHTTPRequestHandler) -> None:
    while True:
        camera.wfile.write(b"x" * 100_000)


def too_large(camera: BaseHTTPRequestHandler) -> None:
    data = bytearray(jpeg(1))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (16000).to_bytes(2, "big") * 2
    while True:
        camera.wfile.write(b"--frame\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data))


@pytest.mark.parametrize(
    ("send", "message"),
    [
        (without_end, "an image of .* has no end within 32 MiB"),
        (of_gigabytes, "an image of .* is said to have 5000000000 bytes, which is none of a camera"),
        (without_images, "are no images: no headers in 64 lines"),
        (of_one_line, "are no images: a header without an end"),
        (too_large, "the images of .* are not read: it is 16000x16000: images of more than 67 million pixels"),
    ],
)
def test_what_would_take_all_memory_is_refused(serve, send, message):
    tracemalloc.start()
    with pytest.raises(SourceError, match=message):
        WebcamSource(serve(send), reconnect_s=0)
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_a_damaged_image_is_left_out(serve):
    def send(camera: BaseHTTPRequestHandler) -> None:
        for data in (jpeg(1), b"no image", jpeg(2)[:200], jpeg(3)):
            camera.wfile.write(b"--frame\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data))

    source = WebcamSource(serve(send), reconnect_s=0)
    frames = []
    with pytest.raises(SourceError, match="no more images"):
        frames += [frame.image.mean() for frame in source]  # the first tells the size
    source.close()
    assert source.camera.width == 64 and all(abs(value - 60) < 2 for value in frames)


def test_a_password_is_given_to_a_camera_that_asks(serve):
    asked = []

    def start() -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.headers.get("Authorization"))
                if asked[-1] is None:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    return self.end_headers()
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                return parts(with_size=True)(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"127.0.0.1:{server.server_port}"

    answer = mjpeg.image_stream(f"http://me:p%40ss@{start()}/video", 5.0)
    assert len(list(mjpeg.image_parts(answer, "camera"))) == 10
    assert asked == [None, f"Basic {base64.b64encode(b'me:p@ss').decode()}"]
