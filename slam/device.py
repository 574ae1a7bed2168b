"""Which device networks and maps live on; poses and all other state stay on the host."""

import logging
import re

import torch
import torch.nn.functional as F

from slam.errors import UsageError

log = logging.getLogger(__name__)

NAMES = re.compile(r"cpu|cuda(:\d+)?")


def chosen_device(name: str) -> torch.device:
    """The device of a name: `cpu`, `cuda` or `cuda:1`; `auto`: a GPU that works, with a WARNING if it does not, else
    the CPU.

    Raises:
        UsageError: if a device that was asked for cannot be used here.
    """
    if name == "auto":
        return _automatic()
    if not NAMES.fullmatch(name):
        raise UsageError(f"--device {name} is not known; it is auto, cpu, cuda, or cuda:1 for the second GPU")
    problem = trouble(torch.device(name))
    if problem is not None:
        raise UsageError(f"--device {name} cannot be used here ({problem}); cpu always can")
    return torch.device(name)


def device_words(device: torch.device) -> str:
    """The device, and the name of a GPU, for people to read."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def trouble(device: torch.device) -> str | None:
    """Why a device cannot compute a small convolution; None if it can.

    A GPU that this torch was not built for is there, and fails only then.
    """
    try:
        image, weight = torch.ones(1, 8, 8, 8, device=device), torch.ones(8, 8, 3, 3, device=device)
        is_right = bool((F.conv2d(image, weight) == 72).all())
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0]
    return None if is_right else "its convolutions are wrong"


def _automatic() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    gpu = torch.device("cuda")
    problem = trouble(gpu)
    if problem is None:
        return gpu
    log.warning("%s does not work and is not used: %s", device_words(gpu), problem)
    return torch.device("cpu")
