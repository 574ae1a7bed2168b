"""A camera on the network: images over HTTP on loopback."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MjpegServer:
    """Images over HTTP on one port: in a loop, each connection going on where the last one was, or as a camera sees
    them, whose time runs on while nobody listens, until the last."""

    def __init__(self, images: list[bytes], fps: float, real_time: bool = False) -> None:
        self.images, self.fps, self.real_time = images, fps, real_time
        self.sent: list[tuple[int, int]] = []  # number of each image, and when: nanoseconds since the epoch
        self.start_s: float | None = None  # with the first connection
        self.silent = threading.Event()  # connected, but nothing comes
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def start(self) -> None:
        self.ended = ended = threading.Event()
        stream = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    for number in stream.numbers(ended):
                        if not stream.silent.is_set():
                            image, now_ns = stream.images[number], time.time_ns()
                            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                            self.wfile.write(b"Content-Length: %d\r\n\r\n%s\r\n" % (len(image), image))
                            stream.sent.append((number, now_ns))
                except OSError:
                    return  # the other side has gone

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def numbers(self, ended: threading.Event) -> Iterator[int]:
        """Of the images for one connection, each at its time; a camera leaves out those whose time has passed."""
        if not self.real_time:
            while not ended.wait(1 / self.fps):
                yield len(self.sent) % len(self.images)
            return
        if self.start_s is None:
            self.start_s = time.monotonic()
        number = -1
        while True:
            number = max(number + 1, int((time.monotonic() - self.start_s) * self.fps))
            due_s = self.start_s + number / self.fps
            if number >= len(self.images) or ended.wait(max(0.0, due_s - time.monotonic())):
                return
            yield number

    def stop(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
