"""The configuration of the whole system: a section for each component, read by `slam.settings`."""

from dataclasses import dataclass
from typing import Literal

from slam.backend.config import BackendConfig
from slam.backend.loops import LoopConfig
from slam.errors import ConfigError
from slam.frontend.initialiser import InitialiserConfig
from slam.frontend.keyframing import KeyframingConfig
from slam.frontend.motion_model import MotionModelConfig
from slam.frontend.relocaliser import RelocaliserConfig
from slam.mapping.fusion import FusionConfig
from slam.matching.dis import DisConfig
from slam.matching.learned_flow import LearnedFlowConfig
from slam.matching.matcher import MatcherConfig
from slam.matching.photometric import RefinementConfig
from slam.recognition.keypoints import KeypointConfig
from slam.settings import build_config, dump_config, load_config
from slam.stereo.plane_sweep import PlaneSweepConfig

__all__ = ["CorrespondenceConfig", "DepthConfig", "SlamConfig", "build_config", "dump_config", "load_config"]


Flow = Literal["learned", "learned_photometric", "dis", "dis_photometric"]


@dataclass(frozen=True)
class CorrespondenceConfig:
    """Where the flow between two views comes from; `_photometric`: refined on the images afterwards."""

    tracking: Flow = "learned_photometric"  # of a frame against the reference keyframe, whose depth is known
    mapping: Flow = "dis"  # at the start and between keyframes, where depth is sought
    learned: LearnedFlowConfig = LearnedFlowConfig()
    dis: DisConfig = DisConfig()
    photometric: RefinementConfig = RefinementConfig()


@dataclass(frozen=True)
class DepthConfig:
    """Where the dense depth of keyframes comes from."""

    stereo: Literal["learned", "plane_sweep", "none"] = "learned"
    plane_sweep: PlaneSweepConfig = PlaneSweepConfig()


@dataclass(frozen=True)
class SlamConfig:
    """All settings of a run; the defaults alone run."""

    pixels: int = 256 * 192  # of the network size, whose aspect is the camera's
    profile: str = "fast"  # of the networks
    correspondence: CorrespondenceConfig = CorrespondenceConfig()
    depth: DepthConfig = DepthConfig()
    matcher: MatcherConfig = MatcherConfig()
    initialiser: InitialiserConfig = InitialiserConfig()
    motion_model: MotionModelConfig = MotionModelConfig()
    keyframing: KeyframingConfig = KeyframingConfig()
    relocaliser: RelocaliserConfig = RelocaliserConfig()
    keypoints: KeypointConfig = KeypointConfig()
    backend: BackendConfig = BackendConfig()
    loops: LoopConfig = LoopConfig()
    final_refine: bool = True  # adjust the whole map together at the end of a run
    max_keyframes: int = 500  # in the active map, under a megabyte each; others go to the disk
    fusion: FusionConfig = FusionConfig()

    def __post_init__(self) -> None:
        if not 64 * 64 <= self.pixels <= 2048 * 2048:
            raise ConfigError(f"pixels must be from 4096 to 4194304, got {self.pixels}")
        least = 3 * self.backend.window
        if not least <= self.max_keyframes <= 100_000:
            raise ConfigError(f"max_keyframes must be from {least} to 100000, got {self.max_keyframes}")
