"""The system that a configuration asks for."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from slam.backend.backend import build_backend
from slam.backend.self_calibration import SelfCalibration
from slam.config import DEFAULT_PIXELS, SlamConfig
from slam.device import chosen_device, device_words
from slam.errors import MapError, UsageError
from slam.frames import Keyframe, Restore, Status
from slam.frontend.keyframing import Keyframing
from slam.frontend.localiser import Localiser
from slam.frontend.motion_model import MotionModel
from slam.frontend.preparation import Preparation, optics_of
from slam.frontend.relocaliser import Relocaliser
from slam.frontend.start import Start
from slam.geometry.camera import Camera
from slam.io.run_record import SystemRecord
from slam.kernels.compile import is_compiled
from slam.kernels.pose_steps import pose_steps
from slam.mapping.store import KeyframeStore
from slam.matching.choice import build_aligning, build_matchers
from slam.matching.learned_flow import LearnedFlow
from slam.networks.precision import prepare
from slam.networks.storage import load_networks
from slam.parts import Parts
from slam.stereo.prior import build_prior
from slam.stereo.stereo import build_stereo
from slam.system import Slam
from slam.threads import Helpers
from slam.warm_up import warm_up

log = logging.getLogger(__name__)

SAME_CAMERA = 0.02  # relative difference of intrinsics


def build_slam(
    config: SlamConfig,
    camera: Camera,
    weights: Path | None = None,
    *,
    threads: bool = True,
    live: bool = False,
    earlier: Sequence[Keyframe] = (),
) -> Slam:
    """The system that a configuration asks for.

    Args:
        camera: of the frames as they will be delivered.
        weights: a file of networks instead of the profile's.
        threads: False: everything on one thread, so that the same frames give the same bytes.
        live: the frames come from a camera, which does not wait.
        earlier: keyframes of an earlier map to begin in; the camera is lost until a frame shows a place of it.

    Raises:
        WeightsError: if networks are asked for and their weights cannot be used.
        UsageError: if settings contradict each other, or ask for a device that is not there.
        MapError: if the earlier map was made with another camera, image size or size of cells.
    """
    if weights is not None and not config.uses_networks:
        raise UsageError(f"--weights {weights} is not used: neither correspondence nor depth.stereo is learned")
    if not is_compiled(pose_steps):
        log.info("compiling the inner loops for this processor, once: half a minute, spread over the first frames")
    device = chosen_device("cpu" if config.device == "auto" and not config.uses_networks else config.device)
    networks = load_networks(weights or config.profile) if config.uses_networks else None
    if networks is not None:
        prepare(networks.motion, config.precision, device)
        prepare(networks.stereo, config.precision, device)
        prepare(networks.prior, config.precision, device)
    pixels = config.pixels or (networks.pixels if networks is not None else DEFAULT_PIXELS)
    flow = LearnedFlow(networks.motion, config.correspondence.learned) if networks is not None else None
    tracking, mapping = build_matchers(config.correspondence, config.matcher, flow, device)
    stereo = build_stereo(config.depth, flow, networks.stereo if networks is not None else None)
    prior = build_prior(config.prior, flow, networks.prior if networks is not None else None, tracking.stride)
    parts = Parts(
        preparation=Preparation(camera, pixels),
        start=Start(*(tracking, mapping, config.initialiser, live, device, prior, camera.is_guess), config.keypoints),
        localiser=Localiser(
            tracking, MotionModel(config.motion_model), Relocaliser(tracking, config.relocaliser, config.keypoints)
        ),
        keyframing=Keyframing(config.keyframing),
        store=KeyframeStore(),
        backend=build_backend(
            *(config.backend, config.loops, config.keypoints, mapping, tracking, stereo),
            Helpers.spare() if threads else Helpers(),
            _self_calibration(config, camera, pixels),
        ),
        aligning=build_aligning(config.correspondence, config.matcher, device),
        prior=prior,
    )
    record = SystemRecord(
        tracking=config.correspondence.tracking,
        mapping=config.correspondence.mapping,
        stereo=config.depth.stereo,
        threads=threads,
        live=live,
        device=device_words(device),
        weights=None if networks is None or networks.file is None else networks.file.name,
        weights_sha256=None if networks is None else networks.sha256(),
    )
    slam = Slam(parts, config, record)
    if live:
        warm_up(parts)
    if earlier:
        _begin_in(slam, [keyframe.to(device) for keyframe in earlier])
    return slam


def _self_calibration(config: SlamConfig, camera: Camera, pixels: int) -> SelfCalibration | None:
    """What asks the map for the camera; None if nobody wants to know."""
    mode = config.self_calibrate
    if mode == "auto":
        mode = "radial" if camera.is_guess else "off"
    if mode == "off":
        return None
    return SelfCalibration(camera, lambda other: optics_of(other, pixels), mode)


def _begin_in(slam: Slam, keyframes: Sequence[Keyframe]) -> None:
    """Let a system begin in an earlier map instead of making one."""
    source, camera = slam.parts.preparation.source, slam.parts.preparation.camera
    stride = slam.parts.localiser.matcher.stride
    size, K = (camera.height, camera.width), torch.stack([keyframe.view.K for keyframe in keyframes])
    off = (K / camera.matrix() - 1).nan_to_num(0.0).abs().max()  # zeros are zero in both
    if keyframes[0].view.image.size != size or float(off) > SAME_CAMERA:
        hint = "; give the calibration.yaml of the run that made it by --calib" if source.is_guess else ""
        raise MapError(f"the map was made with another camera or image size{hint}; --save-map makes one with this")
    if keyframes[0].coarse.size != (size[0] // stride, size[1] // stride):
        raise MapError("the map has cells of another size; set the same correspondence.tracking, or make it anew")
    slam.store.restore(list(keyframes))
    slam.parts.localiser.begin(keyframes[-1].id, lost=True)
    slam.parts.start.anew()
    slam.store.make_room(slam.config.max_keyframes, 2 * slam.config.backend.window, keyframes[-1].id)
    slam.backend.restore(Restore(slam.store.keyframes))
    slam.status = Status.LOST
