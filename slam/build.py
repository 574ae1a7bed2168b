"""The system that a configuration asks for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slam.backend.adjustment import Adjustment
from slam.backend.backend import Backend
from slam.backend.densification import Densification
from slam.backend.loops import LoopCloser
from slam.config import CorrespondenceConfig, SlamConfig
from slam.errors import MapError, UsageError
from slam.frames import Keyframe, Restore, Status
from slam.frontend.keyframing import Keyframing
from slam.frontend.localiser import Localiser
from slam.frontend.motion_model import MotionModel
from slam.frontend.preparation import Preparation
from slam.frontend.relocaliser import Relocaliser
from slam.frontend.start import Start
from slam.geometry.camera import Camera
from slam.io.run_record import SystemRecord
from slam.mapping.store import KeyframeStore
from slam.matching.correspondence import Correspondence
from slam.matching.dis import DisFlow
from slam.matching.learned_flow import LearnedFlow
from slam.matching.matcher import Matcher
from slam.matching.photometric import PhotometricRefinement
from slam.networks.stereo import StereoNet
from slam.networks.storage import load_network, read_config, read_metadata, weights_path
from slam.parts import Parts
from slam.stereo.stereo import LearnedStereo, PlaneSweepStereo, Stereo
from slam.system import Slam

DEFAULT_PIXELS = 256 * 192  # of the network size without networks
SAME_CAMERA = 0.02  # relative difference of intrinsics


@dataclass(frozen=True)
class Weights:
    """Networks of a profile, and the file that they came from."""

    flow: LearnedFlow
    stereo: StereoNet
    pixels: int  # of the images that they were trained for
    file: str
    sha256: str


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
        UsageError: if settings contradict each other.
        MapError: if the earlier map was made with another camera, image size or size of cells.
    """
    learned = _load(config, weights)
    pixels = config.pixels or (learned.pixels if learned is not None else DEFAULT_PIXELS)
    tracking, mapping = build_matchers(config, learned.flow if learned is not None else None)
    store = KeyframeStore()
    parts = Parts(
        preparation=Preparation(camera, pixels),
        start=Start(tracking, mapping, config.initialiser, live),
        localiser=Localiser(
            tracking, MotionModel(config.motion_model), Relocaliser(tracking, config.relocaliser, config.keypoints)
        ),
        keyframing=Keyframing(config.keyframing),
        store=store,
        backend=build_backend(config, mapping, tracking, build_stereo(config, learned)),
    )
    record = SystemRecord(
        tracking=config.correspondence.tracking,
        mapping=config.correspondence.mapping,
        stereo=config.depth.stereo,
        threads=threads,
        live=live,
        weights=None if learned is None else learned.file,
        weights_sha256=None if learned is None else learned.sha256,
    )
    slam = Slam(parts, config, record)
    if earlier:
        _begin_in(slam, earlier)
    return slam


def build_matchers(config: SlamConfig, learned: LearnedFlow | None) -> tuple[Matcher, Matcher]:
    """Matchers of tracking, where depth is known, and of mapping, where it is sought.

    Raises:
        UsageError: if their cells are not of one size.
    """
    kinds = (config.correspondence.tracking, config.correspondence.mapping)
    tracking, mapping = (
        Matcher(build_correspondence(kind, config.correspondence, learned), config.matcher) for kind in kinds
    )
    if tracking.stride != mapping.stride:
        raise UsageError(
            f"correspondence.tracking={kinds[0]} has cells of {tracking.stride} pixels, "
            f"correspondence.mapping={kinds[1]} of {mapping.stride}: both must have the same"
        )
    return tracking, mapping


def build_correspondence(
    kind: str, config: CorrespondenceConfig, learned: LearnedFlow | None
) -> Correspondence[Any, Any]:
    """The correspondence of a name in the settings; one that is learned needs the network."""
    is_refined = kind.endswith("_photometric")
    if kind.startswith("learned"):
        assert learned is not None
        return PhotometricRefinement(learned, config.photometric) if is_refined else learned
    dis = DisFlow(config.dis)
    return PhotometricRefinement(dis, config.photometric) if is_refined else dis


def build_stereo(config: SlamConfig, learned: Weights | None) -> Stereo | None:
    """What makes dense depth; None where nothing does."""
    if config.depth.stereo == "learned":
        assert learned is not None
        return LearnedStereo(learned.flow, learned.stereo)
    return PlaneSweepStereo(config.depth.plane_sweep) if config.depth.stereo == "plane_sweep" else None


def build_backend(config: SlamConfig, mapping: Matcher, tracking: Matcher, stereo: Stereo | None) -> Backend:
    """Adjustment by the flow that seeks depth; loops by that which relies on it."""
    return Backend(
        Adjustment(mapping, config.backend),
        Densification(stereo, config.backend) if stereo is not None else None,
        LoopCloser(tracking, config.loops, config.keypoints) if config.loops.enabled else None,
        config.keypoints,
    )


def _load(config: SlamConfig, weights: Path | None) -> Weights | None:
    """The networks, where any is asked for."""
    kinds = (config.correspondence.tracking, config.correspondence.mapping)
    if config.depth.stereo == "learned" or any(kind.startswith("learned") for kind in kinds):
        file = weights_path(weights or config.profile)
        trained, (motion, stereo) = read_config(read_metadata(file)), load_network(file)
        flow = LearnedFlow(motion, config.correspondence.learned)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        return Weights(flow, stereo, trained.width * trained.height, file.name, digest)
    if weights is not None:
        raise UsageError(f"--weights {weights} is not used: neither correspondence nor depth.stereo is learned")
    return None


def _begin_in(slam: Slam, keyframes: Sequence[Keyframe]) -> None:
    """Let a system begin in an earlier map instead of making one."""
    camera, stride = slam.parts.preparation.camera, slam.parts.localiser.matcher.stride
    size, view = (camera.height, camera.width), keyframes[0].view
    if view.image.size != size or float((view.K / camera.matrix() - 1).nan_to_num(0.0).abs().max()) > SAME_CAMERA:
        raise MapError("the map was made with another camera or image size; --save-map makes one with this")
    if keyframes[0].coarse.size != (size[0] // stride, size[1] // stride):
        raise MapError("the map has cells of another size; set the same correspondence.tracking, or make it anew")
    slam.store.restore(list(keyframes))
    slam.parts.localiser.begin(keyframes[-1].id, lost=True)
    slam.store.make_room(slam.config.max_keyframes, 2 * slam.config.backend.window, keyframes[-1].id)
    slam.backend.restore(Restore(slam.store.keyframes))
    slam.status = Status.LOST
