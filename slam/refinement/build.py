"""What measures in a run, put together again to refine it."""

import os
from pathlib import Path

from slam.config import DEFAULT_PIXELS, SlamConfig
from slam.device import chosen_device
from slam.matching.dis import DisFlow
from slam.matching.learned_flow import LearnedFlow
from slam.networks.precision import prepare
from slam.networks.storage import load_networks
from slam.refinement.refiner import Tools
from slam.refinement.video import LENGTH, MARGIN
from slam.stereo.stereo import build_stereo
from slam.threads import Helpers


def build_tools(settings: SlamConfig, mode: str, device: str = "auto", weights: Path | None = None) -> Tools:
    """Flow, stereo and networks of a run's settings; the networks also for a run without any, in mode train.

    Args:
        device: auto, cpu, cuda ...
        weights: a file of networks instead of the profile's.

    Raises:
        WeightsError: if the weights cannot be used.
        UsageError: if the device is not there.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not settings.uses_networks and mode == "fast":
        stereo, pixels = build_stereo(settings.depth, None, None), settings.pixels or DEFAULT_PIXELS
        return Tools(
            DisFlow(), stereo, None, None, chosen_device("cpu"), Helpers(workers), settings.depth.stereo, pixels
        )
    where = chosen_device(device)
    networks = load_networks(weights or settings.profile)
    for network in (networks.motion, networks.stereo):
        prepare(network, settings.precision, where)
    flow = LearnedFlow(networks.motion, settings.correspondence.learned, LENGTH + 2 * MARGIN)
    stereo = build_stereo(settings.depth, flow, networks.stereo)
    pixels = settings.pixels or (networks.pixels if settings.uses_networks else DEFAULT_PIXELS)  # as in the run
    label = f"{settings.depth.stereo} {networks.sha256()}"
    return Tools(DisFlow(), stereo, flow, networks.prior.to(where), where, Helpers(workers), label, pixels)
