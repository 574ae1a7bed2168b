"""Faults of input, for `faults.py`: files that never end or become huge, damaged weights and maps, absurd lenses."""

import http.server
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from fault_scene import Ended, Scene, check, fault

from slam.io.tensor_file import read_header, read_tensors, write_tensors
from slam.networks.storage import weights_path

MAX_MB = 1000.0
SOON_S = 90.0  # for a refusal on a busy computer: most of it are imports
SIDE = 30000  # pixels, of a bomb
BLOCK = b"\xff\xd8" + bytes(1 << 20)


def refused(ended: Ended, code: int, pattern: str) -> None:
    """One line, soon, without a gigabyte."""
    ended.refused(code, pattern)
    check(ended.peak_mb < MAX_MB, f"{ended.peak_mb:.0f} MB")
    check(ended.seconds < SOON_S, f"{ended.seconds:.0f} s")


def copied(scene: Scene) -> Path:
    """The recording, of which everything may be changed."""
    return Path(shutil.copytree(scene.recording, scene.folder / "copy"))


def images_of(recording: Path) -> list[Path]:
    """Its colour images."""
    return sorted((recording / "rgb").iterdir())


def bomb(path: Path) -> None:
    """A sound PNG of black pixels: a few megabytes that become gigabytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compressobj(9)
    data = b"".join([*(rows.compress(bytes(1 + 3 * SIDE)) for _ in range(SIDE)), rows.flush()])
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


@fault
def pipes_instead_of_files(scene: Scene) -> None:
    """A pipe where a file is asked for is refused at once, by every option; one among images is left out."""
    os.mkfifo(scene.folder / "pipe")
    options = {"--calib": 1, "--config": 2, "--load-map": 1, "--weights": 1, "--mask": 1}
    for option, code in options.items():
        refused(scene.track(option, "pipe").end(SOON_S), code, "it is a pipe, not a file|no (weights|file|mask)")
    for option in ("--video", "--sequence"):
        refused(scene.track(source=(option, "pipe")).end(SOON_S), 1, "pipe is no file: it is a pipe or a device")
    copy = copied(scene)
    image = images_of(copy)[10]
    image.unlink()
    os.mkfifo(image)
    scene.track(source=("--sequence", copy)).end().check(0, r"1 of \d+ images .* are missing|it is a pipe")
    scene.check_complete()


@fault
def endless_device_in_a_list(scene: Scene) -> None:
    """/dev/zero in rgb.txt is no image."""
    copy = copied(scene)
    (copy / "rgb.txt").write_text("".join(f"{n}.5 /dev/zero\n" for n in range(20)))
    refused(scene.track(source=("--sequence", copy)).end(SOON_S), 1, "/dev/zero: it is a device, not a file")


@fault
def image_that_becomes_gigabytes(scene: Scene) -> None:
    """A PNG of 30000x30000 pixels is not decoded: alone it is refused, among others left out."""
    (scene.folder / "bombs").mkdir()
    bomb(scene.folder / "bombs/1.png")
    shutil.copy(scene.folder / "bombs/1.png", scene.folder / "bombs/2.png")
    ended = scene.track(source=("--images", scene.folder / "bombs")).end(SOON_S)
    ended.check(1, "it is 30000x30000: images of more than 67 million pixels are not read; make it smaller")
    check(ended.peak_mb < MAX_MB, f"{ended.peak_mb:.0f} MB")
    copy = copied(scene)
    shutil.copy(scene.folder / "bombs/1.png", images_of(copy)[10])
    ended = scene.track(source=("--sequence", copy)).end()
    ended.check(0, "skipped a frame: .* it is 30000x30000")
    check(ended.peak_mb < MAX_MB, f"{ended.peak_mb:.0f} MB")
    scene.check_complete()


@fault
def texts_of_megabytes(scene: Scene) -> None:
    """A calibration or settings of 100 MB, and such whose aliases unfold to more than there is memory."""
    (scene.folder / "long.yaml").write_bytes(b"a: [1, 2, 3]\n" * 8_000_000)
    levels = "".join(f"z{n + 1}: &z{n + 1} [{', '.join(9 * [f'*z{n}'])}]\n" for n in range(9))
    (scene.folder / "bomb.yaml").write_text(f"z0: &z0 [x]\n{levels}seed: *z9\ncalibration: *z9\n")
    for name, pattern in (("long", r"it is larger than \d+ MiB"), ("bomb", "its aliases unfold without end")):
        for option, code in (("--calib", 1), ("--config", 2)):
            refused(scene.track(option, f"{name}.yaml").end(SOON_S), code, pattern)


@contextmanager
def camera(send: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A camera on this computer that pushes images, and its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                send(self)
            except OSError:
                return  # the other side has gone

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/video"
    finally:
        server.shutdown()
        server.server_close()


@fault
def camera_whose_images_never_end(scene: Scene) -> None:
    """An image without an end, and one of 16000x16000 pixels, from a camera on the network."""

    def without_end(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n")
        while True:
            request.wfile.write(BLOCK)

    def huge(request: http.server.BaseHTTPRequestHandler) -> None:
        frame = b"\xff\xc0\0\x11\x08" + 2 * (16000).to_bytes(2, "big") + b"\x03\1\x11\0\2\x11\1\3\x11\1"
        data = b"\xff\xd8" + frame + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0" + bytes(1000) + b"\xff\xd9"
        while True:
            request.wfile.write(b"--frame\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data))

    for send, pattern in ((without_end, "has no end within 32 MiB"), (huge, "it is 16000x16000")):
        with camera(send) as url:
            refused(scene.track("--reconnect", "0", source=("--camera", url)).end(SOON_S), 1, pattern)


@fault
def weights_that_are_none(scene: Scene) -> None:
    """Weights with one NaN, or with a flipped bit, are refused at the start."""
    path = scene.folder / "a.safetensors"
    metadata, _ = read_header(weights_path("fast"))
    tensors = read_tensors(weights_path("fast"))
    name = next(name for name, tensor in tensors.items() if tensor.numel() > 1000)
    spoilt = tensors[name].clone()
    spoilt.view(-1)[500] = torch.nan
    write_tensors(path, {**tensors, name: spoilt}, metadata)
    refused(scene.track("--weights", path).end(SOON_S), 1, f"the weights {name} are not finite")
    write_tensors(path, tensors, metadata)
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    refused(scene.track("--weights", path).end(SOON_S), 1, "its checksum is wrong")


@fault
def map_with_a_keyframe_that_is_none(scene: Scene) -> None:
    """In a saved map, a later keyframe with K or T_wc of zeros, an id twice, or a sigma below 0, is refused by its
    place."""
    scene.track("--save-map", "room.map").end().check(0)
    path = scene.folder / "room.map"
    metadata, _ = read_header(path)
    sound = read_tensors(path)
    changes = {"K": 0.0, "T_wc": 0.0, "ids": int(sound["ids"][0, 0]), "dense_sigma": -1.0}
    for name, value in changes.items():
        spoilt = sound[name].clone()
        spoilt[1] = value
        write_tensors(path, {**sound, name: spoilt}, metadata)
        ended = scene.track("--load-map", path, "--out", scene.folder / name).end(SOON_S)
        refused(ended, 1, "room.map is damaged: keyframe 1 of")


@fault
def lenses_that_cannot_be(scene: Scene) -> None:
    """Finite numbers that no lens has, and a depth scale that no sensor has, are refused before the run."""
    width, height = 640, 480
    lines = {
        "0.001 0.001 319.5 239.5": "a focal length of 0.001 px",
        "1e6 1e6 319.5 239.5": r"a focal length of 1e\+06 px",
        "500 500 5000 239.5": r"the principal point \(5000, 239.5\)",
        "500 500 319.5 239.5 -2.5 0 0 0": "this distortion folds the image back",
        "500 500 319.5 239.5 1000 0 0 0": "times its distance from the middle",
        "500 500 319.5 239.5 0 0 0.5 0": "the tangential distortion moves the border",
    }
    copy = copied(scene)
    (copy / "calibration.yaml").unlink(missing_ok=True)
    for line, pattern in lines.items():
        numbers = ", ".join(line.split())
        (scene.folder / "a.yaml").write_text(f"width: {width}\nheight: {height}\ncalibration: [{numbers}]\n")
        refused(scene.track("--calib", "a.yaml", source=("--sequence", copy)).end(SOON_S), 1, pattern)
    (scene.folder / "a.yaml").write_text(f"width: {width}\nheight: {height}\ncalibration: [500, 500, 319.5, 239.5]\n")
    stamps = [line.split()[0] for line in (copy / "rgb.txt").read_text().splitlines() if not line.startswith("#")]
    (copy / "depth").mkdir(exist_ok=True)
    (copy / "depth.txt").write_text("".join(f"{stamp} depth/{stamp}.png\n" for stamp in stamps))
    for stamp in stamps:
        cv2.imwrite(str(copy / f"depth/{stamp}.png"), np.full((height, width), 2000, np.uint16))
    for scale in ("1e-3", "1e9"):
        given = ("--calib", "a.yaml", "--use-depth", "on", "--depth-scale", scale)
        ended = scene.track(*given, source=("--sequence", copy)).end(SOON_S)
        refused(ended, 2, "--depth-scale is the value of one metre, from 1")
    check(not scene.run.exists(), "a run directory was made")
