"""The configuration of the whole system: a section for each component, read by `slam.settings`."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from operator import attrgetter
from typing import Any, Literal

from slam.backend.config import BackendConfig
from slam.backend.loops import LoopConfig
from slam.errors import ConfigError, check_range
from slam.frontend.initialiser import InitialiserConfig
from slam.frontend.keyframing import KeyframingConfig
from slam.frontend.motion_model import MotionModelConfig
from slam.frontend.relocaliser import RelocaliserConfig
from slam.mapping.fusion import FusionConfig
from slam.matching.choice import CorrespondenceConfig
from slam.matching.matcher import MatcherConfig
from slam.networks.precision import Precision
from slam.recognition.keypoints import KeypointConfig
from slam.settings import build_config, dump_config, load_config
from slam.stereo.prior import PriorConfig
from slam.stereo.stereo import DepthConfig

DEFAULT_PIXELS = 256 * 192  # of the network size without networks

__all__ = ["CorrespondenceConfig", "DepthConfig", "SlamConfig", "build_config", "dump_config", "load_config"]


@dataclass(frozen=True)
class SlamConfig:
    """All settings of a run; the defaults alone run."""

    pixels: int | None = None  # of the network size, whose aspect is the camera's; None: as the networks were trained
    profile: str = "fast"  # of the networks
    device: str = "auto"  # of networks and maps: cpu, cuda, cuda:1 ...; auto takes a GPU that works, for networks
    precision: Precision = "auto"  # of the networks: auto takes int8 where the processor is fast at it
    correspondence: CorrespondenceConfig = CorrespondenceConfig()
    depth: DepthConfig = DepthConfig()
    prior: PriorConfig = PriorConfig()
    matcher: MatcherConfig = MatcherConfig()
    initialiser: InitialiserConfig = InitialiserConfig()
    motion_model: MotionModelConfig = MotionModelConfig()
    keyframing: KeyframingConfig = KeyframingConfig()
    relocaliser: RelocaliserConfig = RelocaliserConfig()
    keypoints: KeypointConfig = KeypointConfig()
    backend: BackendConfig = BackendConfig()
    loops: LoopConfig = LoopConfig()
    self_calibrate: Literal["auto", "off", "focal", "radial"] = "auto"  # auto: radial where the lens is a guess
    final_refine: bool = True  # at the end of a run the whole map is adjusted together, and its flows are measured anew
    placed_again: int = 50  # views, spread over the frames, that are then placed anew; those between move with them
    max_keyframes: int = 500  # in the active map, under a megabyte each; others go to the disk
    fusion: FusionConfig = FusionConfig()

    def __post_init__(self) -> None:
        if self.pixels is not None and not 64 * 64 <= self.pixels <= 2048 * 2048:
            raise ConfigError(f"pixels must be from 4096 to 4194304, got {self.pixels}")
        check_range(self, 0, 100_000, "placed_again")
        least = 3 * self.backend.window
        if not least <= self.max_keyframes <= 100_000:
            raise ConfigError(f"max_keyframes must be from {least} to 100000, got {self.max_keyframes}")
        self._refuse_idle()

    @property
    def uses_networks(self) -> bool:
        """True if flow or stereo are learned."""
        return self.correspondence.is_learned or self.depth.stereo == "learned"

    def _refuse_idle(self) -> None:
        """Settings that were changed though nothing reads them: whoever changed them expected something."""
        flows, flow_is = self.correspondence.flows, "correspondence.tracking or .mapping is"
        adjust, stereo = self.backend.adjust, self.depth.stereo
        needs = {
            "profile": (self.uses_networks, f"{flow_is} learned, or depth.stereo"),
            "precision": (self.uses_networks, f"{flow_is} learned, or depth.stereo"),
            "correspondence.learned": ("learned" in flows, f"{flow_is} learned (without photometric)"),
            "correspondence.dis": (any(flow.startswith("dis") for flow in flows), f"{flow_is} dis"),
            "correspondence.photometric": (
                self.final_refine or any("photometric" in flow for flow in flows),
                f"final_refine is true, or {flow_is} photometric",
            ),
            "depth.plane_sweep": (stereo == "plane_sweep", "depth.stereo is plane_sweep"),
            "backend.neighbours": (stereo != "none", "depth.stereo is not none"),
            "backend.prior_deviation": (adjust == "joint", "backend.adjust is joint"),
            "prior": (self.uses_networks and self.prior.enabled, f"prior.enabled is true and {flow_is} learned"),
            "initialiser.turned_visible_ratio": (self.prior.enabled, "prior.enabled is true"),
            "loops": (self.loops.enabled, "loops.enabled is true"),
        }
        for name in ("held", "reach", "steps", "huber_px", "flow_sigma_px"):
            needs[f"backend.{name}"] = (adjust != "off", "backend.adjust is not off")
        for path, (is_read, reader) in needs.items():
            idle = [] if is_read else list(_changed(attrgetter(path)(self), attrgetter(path)(SlamConfig), path))
            if idle := [name for name in idle if name not in ("loops.enabled", "prior.enabled")]:
                raise ConfigError(f"{idle[0]} has no effect unless {reader}")


def _changed(value: Any, default: Any, path: str) -> Iterator[str]:
    """Paths of the settings in which two values of one type differ."""
    if is_dataclass(value):
        for field in fields(value):
            yield from _changed(getattr(value, field.name), getattr(default, field.name), f"{path}.{field.name}")
    elif value != default:
        yield path
