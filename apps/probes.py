"""What v2d-doctor looks at. Libraries are tried in child processes: a broken one can abort or hang its process."""

import glob
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from slam import __version__
from slam.errors import listed
from slam.io.files import PACKAGE
from slam.io.folders import is_leftover
from slam.processes import own_python
from slam.reading import reason

CHILD_TIMEOUT_S = 90  # a first import reads hundreds of megabytes from a cold disk
SELF_TEST_S = 2.0
SHIFT_UV = (3.0, 2.0)  # pixels between the two views of the self test
SELF_TEST_PX = 0.25  # error allowed; the flow reaches a few hundredths
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
NEEDED = {"numpy": "numpy", "torch": "torch", "cv2": "opencv-python-headless", "numba": "numba"}
OPTIONAL = {  # module: package, use, what to ask pip for
    "open3d": ("open3d", "the viewer and meshes", "open3d"),
    "pyrealsense2": ("pyrealsense2", "RealSense cameras", "pyrealsense2"),
    "viser": ("viser", "--viewer web and v2d-view --web", "'v2d-slam[web]'"),
    "rosbags": ("rosbags", "ROS bags and MCAP", "'v2d-slam[ros]'"),
    "rerun": ("rerun-sdk", "v2d-export --to rerun", "'v2d-slam[rerun]'"),
    "ray": ("ray", "v2d-batch --ray", "'v2d-slam[ray]'"),
    "lzfse": ("lzfse", "the depth of Record3D", "'v2d-slam[record3d]'"),
}
THREADING_LAYER = """
import numba, numpy
@numba.njit(parallel=True)
def total(values):
    result = 0.0
    for i in numba.prange(len(values)):
        result += values[i]
    return result
assert total(numpy.ones(100)) == 100
print(numba.threading_layer(), numba.get_num_threads())
"""
GPU = """
import json, torch
from slam.device import device_words, trouble
gpu = torch.device("cuda")
print(json.dumps([device_words(gpu), trouble(gpu)] if torch.cuda.is_available() else ["", None]))
"""
REALSENSE = """
import json, pyrealsense2 as rs
facts = (rs.camera_info.name, rs.camera_info.serial_number, rs.camera_info.usb_type_descriptor)
print(json.dumps([[d.get_info(f) if d.supports(f) else "" for f in facts] for d in rs.context().query_devices()]))
"""
SELF_TEST = "import json; from apps.probes import self_test; print(json.dumps(self_test()))"
WARM_UP = "import json; from apps.probes import warm_up; print(json.dumps(warm_up()))"
WARM_UP_TIMEOUT_S = 300  # compiling takes 10 s, several times that on a slow or busy computer


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    found: bool
    what: str
    remedy: str = ""  # what to do, where something is missing
    needed: bool = False  # by the headless job

    @property
    def failed(self) -> bool:
        """True if the headless job cannot run because of this."""
        return self.needed and not self.found

    def line(self) -> str:
        """For people to read."""
        mark = "ok" if self.found else "FAILED" if self.needed else "missing"
        return f"{mark:8s}{self.name:20s}{self.what}{f'; {self.remedy}' if self.remedy else ''}"


def all_findings() -> Iterator[Finding]:
    """Everything, one after the other."""
    yield Finding("v2d-slam", True, f"{__version__}, Python {platform.python_version()} on {platform.platform()}")
    for module, package in NEEDED.items():
        yield library(module, package, needed=True)
    for module, (package, use, wanted) in OPTIONAL.items():
        yield library(module, package, use=use, wanted=wanted)
    yield opencv_packages(sorted(d.metadata["Name"] or "" for d in metadata.distributions()))
    yield cpu(_text(Path("/proc/cpuinfo")))
    yield numba_threads()
    yield gpu()
    yield display(dict(os.environ), sys.platform)
    yield webcams("/dev/video*", Path("/sys/class/video4linux"))
    yield realsense()
    yield from data_roots()
    yield from weights(PACKAGE / "networks" / "weights")
    yield matching()
    yield small_run()


def child(code: str, timeout_s: float = CHILD_TIMEOUT_S) -> tuple[bool, str]:
    """Run Python code in a process of its own: whether it went well, and its last line or what it died of."""
    try:
        done = subprocess.run(own_python(code), capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False, f"hangs (no answer within {timeout_s:g} s)"
    except OSError as error:
        return False, f"cannot start Python: {reason(error)}"
    if done.returncode < 0:
        return False, f"crashes (signal {-done.returncode})"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else ""


def library(module: str, package: str, use: str = "", needed: bool = False, wanted: str = "") -> Finding:
    """Whether a library can be imported, and why not.

    Args:
        wanted: what to ask pip for, if not the package.
    """
    worked, words = child(f"import {module}; print(getattr({module}, '__version__', ''))")
    if worked:
        return Finding(module, True, words or _installed(package) or "installed", needed=needed)
    version = _installed(package)
    purpose = f" (for {use})" if use else ""
    if version is None:
        return Finding(module, False, f"not installed{purpose}", f"pip install {wanted or package}", needed)
    remedy = "a system library is absent: " if "cannot open shared object" in words else ""
    if remedy:
        remedy += "on Debian or Ubuntu apt-get install libgomp1 libusb-1.0-0 libgl1 libegl1 libx11-6"
    return Finding(
        module, False, f"{version} does not import{purpose}: {words}", remedy or f"reinstall {package}", needed
    )


def opencv_packages(installed: list[str]) -> Finding:
    """The four OpenCV wheels overwrite each other's files."""
    found = sorted({name.lower() for name in installed if name.lower().startswith("opencv-")})
    if len(found) <= 1:
        return Finding("opencv packages", True, ", ".join(found) or "none (OpenCV from elsewhere)")
    remedy = f"pip uninstall {' '.join(found)}, then pip install opencv-python-headless"
    return Finding("opencv packages", False, f"{', '.join(found)} overwrite each other's files", remedy)


def cpu(cpuinfo: str) -> Finding:
    """Cores this process may use, and the instructions that make networks fast."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = {word for line in cpuinfo.splitlines() if line.startswith("flags") for word in line.split()}
    known = ", ".join(name for name in INSTRUCTIONS if name in flags) or "none of AVX2, AVX-512, AMX"
    words = f"{cores} of {os.cpu_count()} cores, {known if flags else 'instruction sets not known here'}"
    variables = [f"{n}={os.environ[n]}" for n in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY") if n in os.environ]
    return Finding("cpu", True, ", ".join([words, *variables]))


def numba_threads() -> Finding:
    """The threading layer that numba can use for parallel kernels."""
    worked, words = child(THREADING_LAYER)
    if worked:
        layer, _, threads = words.partition(" ")
        return Finding("numba threads", True, f"{layer}, {threads} threads")
    return Finding("numba threads", False, words, "pip install tbb, or apt-get install libgomp1")


def gpu() -> Finding:
    """The GPU that torch sees, and whether it computes; the self test and the small map then run on it."""
    worked, words = child(GPU)
    name, problem = json.loads(words) if worked else ("", words)
    if name and problem is None:
        return Finding("gpu", True, name)
    what = f"{name} does not work: {problem}" if name else problem or "torch sees none"
    return Finding("gpu", False, what, "not needed: v2d-slam runs on the CPU")


def display(environment: dict[str, str], system: str) -> Finding:
    """Where a window would open."""
    if system in ("darwin", "win32"):
        return Finding("display", True, "the desktop")
    for name in ("WAYLAND_DISPLAY", "DISPLAY"):
        if environment.get(name):
            return Finding("display", True, f"{name}={environment[name]}")
    return Finding("display", False, "neither DISPLAY nor WAYLAND_DISPLAY is set", "runs work, windows do not")


def webcams(pattern: str, names: Path) -> Finding:
    """Video devices of Linux, with their names and whether this user may open them."""
    devices = sorted(glob.glob(pattern))
    if not devices:
        return Finding(
            "cameras", False, f"no {pattern}", "plug one in" if sys.platform == "linux" else "listed on Linux"
        )
    words = [f"{device} ({_text(names / Path(device).name / 'name').strip() or 'no name'})" for device in devices]
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        remedy = "sudo usermod -aG video $USER, then log in again"
        return Finding("cameras", False, f"{', '.join(closed)} may not be opened by this user", remedy)
    return Finding("cameras", True, ", ".join(words))


def realsense() -> Finding:
    """RealSense cameras that answer; none is started."""
    if _installed("pyrealsense2") is None:
        return Finding("realsense", False, "pyrealsense2 is not installed", "pip install pyrealsense2")
    worked, words = child(REALSENSE, 30)
    if not worked:
        return Finding("realsense", False, words, "see the line of pyrealsense2")
    return realsense_cameras(json.loads(words))


def realsense_cameras(cameras: list[tuple[str, str, str]]) -> Finding:
    """What there is, by name, serial number and kind of USB."""
    if not cameras:
        return Finding("realsense", False, "none plugged in", "recordings (.db3, .bag) can be read")
    known = [f"{name} {serial}{f' on USB {usb}' if usb else ''}" for name, serial, usb in cameras]
    slow = any(usb.startswith("2") for *_, usb in cameras)
    return Finding("realsense", True, ", ".join(known), "USB 2 is slow: use a USB 3 port and cable" if slow else "")


def data_roots() -> Iterator[Finding]:
    """The folders where known sequences are looked for."""
    variable = os.environ.get("V2D_DATA")
    for root in [*([Path(variable)] if variable else []), Path("datasets"), Path("data")]:
        name = f"data {root}"
        try:
            found = sorted(entry.name for entry in root.iterdir() if not is_leftover(entry.name))
        except OSError as error:
            yield Finding(name, False, reason(error), "v2d-slam --sequence NAME --download, or set V2D_DATA")
            continue
        yield Finding(name, bool(found), f"holds {listed(found)}" if found else "is empty")


def weights(folder: Path) -> Iterator[Finding]:
    """The network weights that came with the package."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        advice = "install v2d-slam again; without them only configs/classical.yaml runs"
        yield Finding("weights", False, f"none in {folder}", advice, needed=True)
    for file in files:
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:12]
        yield Finding(f"weights {file.stem}", True, f"{len(content) / 1e6:.1f} MB, sha256 {digest}...")


def matching() -> Finding:
    """The self test, in a process of its own."""
    worked, words = child(SELF_TEST)
    if not worked:
        return Finding("self test", False, words, "reinstall v2d-slam, or report this line", needed=True)
    result = json.loads(words)
    line = (
        f"{result['flow']} flow at {result['width']}x{result['height']} on {result['device']}: "
        f"{result['ms']:.1f} ms per frame, "
        f"error {result['error_px']:.3f} px, {100 * result['matched']:.0f} % matched"
    )
    good = result["error_px"] <= SELF_TEST_PX and result["matched"] > 0.5
    return Finding("self test", good, line, "" if good else "the correspondence is wrong: report this", needed=True)


def self_test() -> dict[str, Any]:
    """Match two synthetic views, one shifted by SHIFT_UV, with the default flow for about SELF_TEST_S.

    Returns:
        flow, width, height, device; `ms` per frame (median; features of one view and a match), `error_px` (median
        distance from the true shift), `matched` (share of the cells with a weight).
    """
    import torch

    from slam.build import build_slam
    from slam.config import SlamConfig
    from slam.frames import Image
    from slam.geometry.camera import Camera, pixel_grid

    torch.set_num_threads(1)
    width, height, margin = 256, 192, 8
    noise = torch.rand((1, 3, height // 6, width // 6), generator=torch.Generator().manual_seed(0))
    size = (height + 2 * margin, width + 2 * margin)
    texture = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)
    left, top = (margin - int(shift) for shift in SHIFT_UV)  # content moves right and down
    pixels = (255 * texture[0, 0]).round().to(torch.uint8)[..., None].repeat(1, 1, 3).numpy()
    images = [Image(pixels[y : y + height, x : x + width].copy()) for y, x in ((margin, margin), (top, left))]
    config = SlamConfig()
    slam = build_slam(config, Camera(width, height, 200.0, 200.0, 127.5, 95.5), threads=False)
    flow, stride = slam.localiser.matcher.correspondence, slam.localiser.matcher.stride
    start_uv = pixel_grid(height // stride, width // stride, texture.to(slam.parts.start.device))[None]
    times_ms: list[float] = []
    with torch.inference_mode():
        flow.encode(images[:1])
        end_s = time.perf_counter() + SELF_TEST_S
        while len(times_ms) < 3 or time.perf_counter() < end_s:
            start_s = time.perf_counter()
            features = flow.encode([images[0], Image(images[1].rgb)])  # another object: its features are not kept
            state, uv = flow.start(features[:1], features[1:]), start_uv
            for _ in range(flow.max_updates):
                state, residual, weight = flow.update(state, uv)
                uv = uv + residual
                if flow.finished(state):
                    break
            found = (uv - start_uv).cpu()  # waits for the device
            times_ms.append(1000 * (time.perf_counter() - start_s))
    error_px = (stride * found - torch.tensor(SHIFT_UV)).norm(dim=-1)
    matched = weight[..., :2].cpu().amin(-1) > 0.1
    return {
        "flow": config.correspondence.tracking,
        "device": slam.record.device,
        "width": width,
        "height": height,
        "ms": statistics.median(times_ms),
        "error_px": float(error_px[matched].median()) if matched.any() else 1e3,
        "matched": float(matched.float().mean()),
    }


def small_run() -> Finding:
    """A small map of a rendered room, in a process of its own; it leaves the compiled kernels for later runs."""
    worked, words = child(WARM_UP, WARM_UP_TIMEOUT_S)
    if not worked:
        remedy = "reinstall v2d-slam, or report this line"
        return Finding("small map", False, words, remedy, needed=True)
    result = json.loads(words)
    kept = "kept for later runs" if result["kept"] else "and again in every run: no folder keeps them"
    compiled = f"compiled in {result['compile_s']:.1f} s, {kept}" if result["compile_s"] else "ready"
    line = f"{result['points']} points from {result['keyframes']} keyframes, kernels {compiled}"
    remedy = "" if result["kept"] else "set NUMBA_CACHE_DIR to a folder that can be written"
    if not result["points"]:
        return Finding("small map", False, line, "mapping does not work: report this", needed=True)
    return Finding("small map", True, line, remedy, needed=True)


def warm_up() -> dict[str, Any]:
    """Track and map a few rendered frames, which compiles all kernels of the default that no earlier run compiled.

    Returns:
        `compile_s` spent on that, 0 where all were there; whether they are `kept`; `keyframes` and `points` of the map.
    """
    import torch
    from numba.core import event

    from slam.build import build_slam
    from slam.config import SlamConfig
    from slam.kernels.compile import is_compiled
    from slam.kernels.pose_steps import pose_steps
    from slam.mapping.fusion import fused_cloud
    from slam.sources.demo import DemoConfig, DemoSource

    torch.set_num_threads(1)
    config = SlamConfig(pixels=160 * 120)
    source = DemoSource(DemoConfig(kind="office", variant="orbit", frames=25, width=160, height=120, fps=5.0))
    with event.install_timer("numba:compile", lambda _: None) as timer:
        slam = build_slam(config, source.camera, threads=False)
        slam.run(source)
        cloud = fused_cloud(slam.store.keyframes, config.fusion)
    keyframes = len(slam.store)
    return {
        "compile_s": timer.duration if timer.done else 0.0,
        "kept": is_compiled(pose_steps),
        "keyframes": keyframes,
        "points": len(cloud.points),
    }


def _installed(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _text(path: Path) -> str:
    """A system file's text, empty where there is none."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
