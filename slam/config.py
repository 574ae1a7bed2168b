"""The configuration of the whole system: a section for each component, read by `slam.settings`."""

from dataclasses import dataclass
from typing import Literal

from slam.backend.loops import LoopConfig
from slam.backend.optimizer import BackendConfig
from slam.errors import ConfigError
from slam.frontend.initialiser import InitialiserConfig
from slam.frontend.keyframing import KeyframingConfig
from slam.frontend.motion_model import MotionModelConfig
from slam.frontend.relocaliser import RelocaliserConfig
from slam.mapping.fusion import FusionConfig
from slam.matching.dis import DisConfig
from slam.matching.matcher import MatcherConfig
from slam.matching.photometric import RefinementConfig
from slam.settings import build_config, dump_config, load_config
from slam.stereo.plane_sweep import PlaneSweepConfig

__all__ = ["DepthConfig", "MotionConfig", "SlamConfig", "build_config", "dump_config", "load_config"]


@dataclass(frozen=True)
class MotionConfig:
    """Where the flow comes from."""

    flow: Literal["dis", "learned"] = "learned"
    dis: DisConfig = DisConfig()
    align: Literal["learned", "always", "never"] = "learned"  # which flow is aligned on the images afterwards
    alignment: RefinementConfig = RefinementConfig()


@dataclass(frozen=True)
class DepthConfig:
    """Where the dense depth of keyframes comes from."""

    stereo: Literal["learned", "classical", "none"] = "learned"
    sweep: PlaneSweepConfig = PlaneSweepConfig()


@dataclass(frozen=True)
class SlamConfig:
    """All settings of a run; the defaults alone run."""

    pixels: int = 256 * 192  # of the network size, whose aspect is the camera's
    profile: str = "fast"  # of the networks
    motion: MotionConfig = MotionConfig()
    depth: DepthConfig = DepthConfig()
    matcher: MatcherConfig = MatcherConfig()
    initialiser: InitialiserConfig = InitialiserConfig()
    motion_model: MotionModelConfig = MotionModelConfig()
    keyframing: KeyframingConfig = KeyframingConfig()
    relocaliser: RelocaliserConfig = RelocaliserConfig()
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
