"""Is there a graphics driver? Without one, or without a display, Open3D ends the whole process: ask before."""

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from slam.errors import ViewerError

VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO = 1
NICE = 10  # of the renderer's threads beside tracking


class _InstanceCreateInfo(ctypes.Structure):
    """VkInstanceCreateInfo (Vulkan specification, chapter 4.2); neither layers nor extensions are asked for."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


def check_driver() -> None:
    """Make sure that Vulkan has a device, hardware or software. Only Linux is asked: elsewhere it always has.

    Raises:
        ViewerError: saying what to install.
    """
    if sys.platform == "linux" and count_devices() < 1:
        raise ViewerError(
            "no Vulkan driver, nothing can be drawn; install one (apt-get install libvulkan1 mesa-vulkan-drivers)"
        )


def check_display() -> None:
    """Make sure that a window can be opened; asked only on Linux, too.

    Raises:
        ViewerError: if there is no display, or nothing answers there.
    """
    if sys.platform != "linux" or os.environ.get("WAYLAND_DISPLAY"):
        return
    name = os.environ.get("DISPLAY")
    remedy = "a browser shows it too (v2d-slam --viewer web, v2d-view --web), --screenshot FILE draws without one"
    if not name:
        raise ViewerError(f"no display (DISPLAY is not set); {remedy}")
    if not answers(name):
        raise ViewerError(f"the display {name} does not answer; {remedy}")


_LostHandler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_lost_handlers: list[Any] = []  # kept: Xlib holds only their addresses


def on_display_lost(job: Callable[[], None]) -> None:
    """Have Xlib do a job when its server goes away; it ends the process when the job returns."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return  # no X here

    def handler(_: Any) -> int:
        job()
        return 0

    _lost_handlers.append(_LostHandler(handler))
    x11.XSetIOErrorHandler(_lost_handlers[-1])


def answers(display: str) -> bool:
    """True if an X server of this name takes a connection.

    The connection stays: a server that loses its last one may start anew, and refuse the window meanwhile.
    """
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False
    x11.XOpenDisplay.restype = ctypes.c_void_p
    return x11.XOpenDisplay(display.encode()) is not None


def count_devices() -> int:
    """Vulkan devices, 0 where the library or every driver is missing."""
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return 0
    info, instance = _InstanceCreateInfo(type=VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO), ctypes.c_void_p()
    if vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance)) != 0:
        return 0
    count = ctypes.c_uint32(0)
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    vulkan.vkDestroyInstance(instance, None)
    return count.value


def threads() -> set[int]:
    """The threads of this process that Python has not started; none are told outside Linux."""
    if sys.platform != "linux":
        return set()
    own = {thread.native_id for thread in threading.enumerate()}
    return {int(name) for name in os.listdir("/proc/self/task")} - own


class RenderThreads:
    """The threads that draw; with a software driver they are what a redraw costs."""

    def __init__(self, ids: set[int]) -> None:
        """By their native ids."""
        self._ids = ids if sys.platform == "linux" else set()  # elsewhere nobody tells what they use

    def seconds(self) -> float:
        """Processor time that they have used; 0 where it cannot be told."""
        return sum(_cpu_s(i) for i in self._ids)

    def stand_back(self) -> None:
        """Let everything else go first."""
        for i in self._ids:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or may not: a courtesy
                os.setpriority(os.PRIO_PROCESS, i, NICE)


def _cpu_s(thread_id: int) -> float:
    try:
        return time.clock_gettime((~thread_id << 3) | 6)  # Linux: the clock of one thread, CPUCLOCK_SCHED
    except OSError:  # it has ended
        return 0.0
