"""What the live window or page costs: frames per second without and with it, and a redraw with many keyframes.

xvfb-run -s "-screen 0 1280x800x24" python tools/bench_viewer.py FOLDER [--repeats 3] [--keyframes 300]
python tools/bench_viewer.py FOLDER --viewers none web watched    # watched: the page, read by one who draws nothing,
                                                                  # as a browser on another computer

Runs alternate, so that what else the computer does disturbs both alike.
"""

import argparse
import contextlib
import math
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from apps.viewing import load_window
from slam.frames import Image, Keyframe, View
from slam.inv_depth import InvDepth
from slam.io.run import Run
from slam.processes import own_program
from slam.viewer.view_state import ViewState

SIZE = (192, 256)  # rows, columns of a keyframe
REDRAWS = 12


def fps(folder: Path, viewer: str, frames: int | None) -> float:
    """Frames per second of one run."""
    with tempfile.TemporaryDirectory() as temporary, socket.create_server(("127.0.0.1", 0)) as free:
        out, port = Path(temporary) / "run", free.getsockname()[1]
        free.close()
        option = {"web": f"web:{port}", "watched": f"web:{port}"}.get(viewer, viewer)
        command = own_program("apps.run", "--sequence", folder, "--out", out, "--viewer", option)
        command += ["--quiet"] if frames is None else ["--quiet", "--max-frames", str(frames)]
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if viewer == "watched":
            print(f"read {watch(port, program) / 1e6:.1f} MB", flush=True)
        if program.wait():
            raise SystemExit(f"{' '.join(command)} failed")
        return Run(out).record().fps


def watch(port: int, program: subprocess.Popen[bytes]) -> int:
    """Read all that the page sends until it ends; bytes."""
    import msgspec
    import viser
    from viser._messages import ViewerCameraMessage
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    looks = ViewerCameraMessage((1, 0, 0, 0), (0, 0, 0), 1.0, 0.01, 1000.0, 800, 1280, (0, 0, 1), (0, -1, 0))
    protocol: Any = f"viser-v{viser.__version__}"
    read, address = 0, f"ws://127.0.0.1:{port}"
    while program.poll() is None and not read:
        with (
            contextlib.suppress(ConnectionRefusedError, ConnectionClosed),
            connect(address, subprotocols=[protocol], max_size=None, compression=None) as page,
        ):
            page.send(msgspec.msgpack.encode({"type": "ViewerCameraMessage", **vars(looks)}))
            while True:
                read += len(page.recv())
        time.sleep(0.1)
    return read


class Ring:
    """A feed of keyframes in a ring, each seeing a wall of its own colour; their poses change at every look."""

    is_live, title, folder = True, "v2d-slam bench", Path(".")

    def __init__(self, count: int) -> None:
        v, u = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
        inv_depth = 0.5 + 0.05 * torch.sin(u / 9) * torch.sin(v / 9)
        K = torch.tensor([[200.0, 0, 127.5], [0, 200.0, 95.5], [0, 0, 1]], dtype=torch.float64)
        self.keyframes = []
        for n in range(count):
            angle = 2 * math.pi * n / count
            T_wc = torch.eye(4, dtype=torch.float64)
            T_wc[0, 0] = T_wc[2, 2] = math.cos(angle)
            T_wc[0, 2], T_wc[2, 0] = math.sin(angle), -math.sin(angle)
            T_wc[:3, 3] = torch.tensor([3 * math.sin(angle), 0, 3 * math.cos(angle)])
            image = Image(np.full((*SIZE, 3), [127 + 127 * math.sin(angle + k) for k in range(3)], np.uint8))
            view = View(n, n, image, K)
            dense = InvDepth(inv_depth, 0.01 * inv_depth)
            self.keyframes.append(
                Keyframe(n, view, T_wc, dense, InvDepth.unknown((0, 0)), refined=True, parent_id=n - 1)
            )
        self.turned = 0
        self.stepped_s: list[float] = []

    def shown(self) -> ViewState:
        """All keyframes, a little further on than before."""
        self.turned += 1
        a = 1e-3 * self.turned
        turn = torch.eye(4, dtype=torch.float64)
        turn[0, 0] = turn[2, 2] = math.cos(a)
        turn[0, 2], turn[2, 0] = math.sin(a), -math.sin(a)
        keyframes = tuple(Keyframe(**{**vars(k), "T_wc": turn @ k.T_wc}) for k in self.keyframes)
        path = np.stack([k.T_wc[:3, 3].numpy() for k in keyframes])
        return ViewState(
            keyframes, len(keyframes), path, keyframes[-1].T_wc.numpy(), keyframes[-1].view.image.rgb, "bench"
        )

    def play(self) -> None:
        """Nothing to pause."""

    def step(self) -> None:
        """Remember when a key has arrived."""
        self.stepped_s.append(time.monotonic())


def redraws(count: int) -> list[tuple[str, float]]:
    """Milliseconds of the window's thread and of the renderer for a redraw, when all points are there."""
    feed = Ring(count)
    window = load_window()(feed)
    refresh, update_s, draw_s, began_s = window.refresh, [], [], time.monotonic()

    def measured() -> None:
        draw_s.append(window.renderer.seconds())
        start_s = time.perf_counter()
        refresh()
        update_s.append(time.perf_counter() - start_s)
        if not window.clouds.is_busy and not settled:
            settled.append(len(update_s))
            settled_s.append(time.monotonic() - began_s)

    settled: list[int] = []
    settled_s: list[float] = []
    window.refresh = measured
    window.show(lambda: bool(settled) and len(update_s) >= settled[0] + REDRAWS)
    first = settled[0]
    points = sum(len(one.cloud) for one in window.clouds.points.values())
    return [
        ("points drawn, thousands", points / 1000),
        ("until all points are there, s", settled_s[0]),
        ("redraw, window's thread, ms", 1000 * median(update_s[first:])),
        ("redraw, renderer's processor time, ms", 1000 * median(np.diff(draw_s[first:]))),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a recording; none: only redraws")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-frames", type=int, metavar="N")
    parser.add_argument("--keyframes", type=int, default=300)
    parser.add_argument(
        "--viewers", nargs="+", choices=("none", "open3d", "web", "watched"), default=["none", "open3d"]
    )
    options = parser.parse_args()
    if options.folder is not None:
        rates: dict[str, list[float]] = {viewer: [] for viewer in options.viewers}
        for _ in range(options.repeats):
            for viewer, found in rates.items():
                found.append(fps(options.folder, viewer, options.max_frames))
        for viewer, found in rates.items():
            print(f"{viewer:8s} {median(found):6.1f} frames/s   {sorted(found)}", flush=True)
    rows: list[tuple[str, Any]] = redraws(options.keyframes) if "open3d" in options.viewers else []
    for name, value in rows:
        print(f"{options.keyframes} keyframes, {name:40s} {value:8.1f}")


if __name__ == "__main__":
    main()
