"""A camera on the network: images over HTTP on loopback."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MjpegServer:
    """Images over HTTP on one port, in a loop, each next one going on where the last connection was."""

    def __init__(self, images: list[bytes], fps: float) -> None:
        self.images, self.fps = images, fps
        self.sent = 0
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
                    while not ended.wait(1 / stream.fps):
                        if not stream.silent.is_set():
                            self.wfile.write(stream.part())
                except OSError:
                    return  # the other side has gone

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def part(self) -> bytes:
        image = self.images[self.sent % len(self.images)]
        self.sent += 1
        return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(image), image)

    def stop(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
