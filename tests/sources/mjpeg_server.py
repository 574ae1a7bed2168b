"""A camera on the network: images over HTTP on loopback."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MjpegServer:
    """Images over HTTP on one port: in a loop, each connection going on where the last one was, or as a camera sees
    them, whose time runs on while nobody listens, until the last."""

    def __init__(self, images: list[bytes], fps: float, real_time: bool = False) -> None:
        self.images, self.fps, self.real_time = images, fps, real_time
        self.sent = 0
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
                    while not ended.wait(1 / stream.fps) and (image := stream.image()) is not None:
                        if not stream.silent.is_set():
                            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n")
                            self.wfile.write(b"Content-Length: %d\r\n\r\n%s\r\n" % (len(image), image))
                            stream.sent += 1
                except OSError:
                    return  # the other side has gone

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def image(self) -> bytes | None:
        """The next one; None at the end."""
        if not self.real_time:
            return self.images[self.sent % len(self.images)]
        if self.start_s is None:
            self.start_s = time.monotonic()
        index = int((time.monotonic() - self.start_s) * self.fps)
        return self.images[index] if index < len(self.images) else None

    def stop(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
