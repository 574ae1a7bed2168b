"""Is there a graphics driver? Without one, or without a display, Open3D ends the whole process: ask before."""

import ctypes
import os
import sys

from slam.errors import ViewerError

VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO = 1


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
    remedy = "v2d-view RUN --screenshot FILE draws without one"
    if not name:
        raise ViewerError(f"no display (DISPLAY is not set); {remedy}")
    if not answers(name):
        raise ViewerError(f"the display {name} does not answer; {remedy}")


def answers(display: str) -> bool:
    """True if an X server of this name takes a connection."""
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False
    x11.XOpenDisplay.restype = ctypes.c_void_p
    connection = x11.XOpenDisplay(display.encode())
    if connection is None:
        return False
    x11.XCloseDisplay(ctypes.c_void_p(connection))
    return True


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
