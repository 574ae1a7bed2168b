"""The single-picture network taught one video: its head is trained on what the frames of that video agree on.

The trunk is frozen, so the features of a frame are computed once. What was measured well is repeated by the network,
and what was not gets a depth that looks like the rest of this video.

Reference: Luo et al., Consistent video depth estimation, SIGGRAPH 2020 (CVD). Different from it: the head alone is
trained, the disparity loss has no unit, and what stereo measured is told to the network.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slam.errors import check_range
from slam.frames import View
from slam.matching.learned_flow import LearnedFlow
from slam.networks.encoder import FeatureMaps
from slam.networks.prior import PriorNet, PriorOutput
from slam.refinement.constraints import Constraints
from slam.refinement.direct import rate
from slam.refinement.losses import ConsistencyWeights

PAIRS = 4  # of a step
RATE = 1e-3
DECAY = 0.98  # of the averaged weights, per step
CLIP_NORM = 1.0
TOLD_SIGMA = 0.03  # relative: what is measured so well is told with weight one
AT_ONCE = 16  # frames
SEED = 6


@dataclass(frozen=True)
class FineTuningConfig:
    """Test-time training of the head."""

    steps: int = 1000
    distillation: float = 1.0  # weight of the distance from what was measured
    consistency: float = 0.01  # weight of the pairs' disagreement

    def __post_init__(self) -> None:
        check_range(self, 0, 1_000_000, "steps")
        check_range(self, 0, 1e4, "distillation", "consistency")


@dataclass(frozen=True, eq=False)
class TrunkMaps:
    """What the head reads of N frames, half precision, on the device."""

    trunk: Tensor  # (N, C, H/8, W/8)
    trunk_4: Tensor  # (N, C, H/4, W/4)

    @staticmethod
    def of(views: Sequence[View], flow: LearnedFlow) -> "TrunkMaps":
        """Encode frames, one by one."""
        with torch.inference_mode():
            kept = [(maps.trunk.half(), maps.trunk_4.half()) for view in views for maps in flow.encode([view.image])]
            trunk, trunk_4 = (torch.cat(maps) for maps in zip(*kept, strict=True))
        return TrunkMaps(trunk.clone(), trunk_4.clone())  # ordinary tensors, for the training

    def features(self, frames: Tensor | slice) -> FeatureMaps:
        """Of some frames; what the head does not read is empty."""
        x8, x4 = self.trunk[frames].float(), self.trunk_4[frames].float()
        nothing = x8[:, :0]
        return FeatureMaps(nothing, x8, x4, nothing, nothing)


class TunedHead:
    """A copy of the network's head that learns one video; the network itself stays as it is."""

    def __init__(self, network: PriorNet, K: Tensor) -> None:
        """`K`: (3, 3) intrinsics of the frames."""
        self.network = copy.deepcopy(network).requires_grad_(True)
        self.average = {name: weight.detach().clone() for name, weight in self.network.state_dict().items()}
        self.K = K
        self.done = 0  # steps
        self.log_scale = 0.0  # added to the network's log inverse depth: the map's unit

    def outputs(self, maps: TrunkMaps) -> PriorOutput:
        """Depth of all frames by the averaged weights, in the map's unit."""
        current = {name: weight.detach().clone() for name, weight in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        with torch.no_grad():
            found = [self._output(maps, slice(n, n + AT_ONCE)) for n in range(0, len(maps.trunk), AT_ONCE)]
        self.network.load_state_dict(current)
        return PriorOutput(*(torch.cat([getattr(o, n) for o in found]) for n in ("log_inv_depth", "log_sigma")))

    def _output(self, maps: TrunkMaps, frames: Tensor | slice) -> PriorOutput:
        features = maps.features(frames)
        output = self.network(features, self.K.to(features.trunk.device).expand(len(features.trunk), 3, 3))
        return PriorOutput(output.log_inv_depth + self.log_scale, output.log_sigma)

    def fit(
        self,
        maps: TrunkMaps,
        measured: Tensor,
        relative_sigma: Tensor,
        constraints: Constraints,
        weights: ConsistencyWeights = ConsistencyWeights(),
        config: FineTuningConfig = FineTuningConfig(),
        tell: Callable[[int, dict[str, float]], None] = lambda step, parts: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train until `config.steps` are done, counted from the first, or `stop` says so; arguments as `optimised`."""
        generator = torch.Generator().manual_seed(SEED + self.done)
        parameters = list(self.network.parameters())
        optimiser = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
        trust = TOLD_SIGMA / relative_sigma.clamp_min(TOLD_SIGMA) * constraints.static
        while self.done < config.steps and len(constraints) and not stop():
            optimiser.param_groups[0]["lr"] = rate(RATE, self.done, config.steps)
            edges = torch.randperm(len(constraints), generator=generator)[:PAIRS]
            frames, index = constraints.flows.index[edges].unique(return_inverse=True)
            output = self._output(maps, frames)
            told = ((output.log_inv_depth - measured[frames]).abs() * trust[frames]).mean()
            i, j = index.unbind(1)
            pair, parts = constraints.loss(edges, output.log_inv_depth[i], output.log_inv_depth[j], weights)
            loss = config.distillation * told + config.consistency * pair
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            self.done += 1
            if torch.isfinite(norm):
                optimiser.step()
                self._average()
            tell(self.done, {**{name: float(part) for name, part in parts.items()}, "measured": float(told.detach())})

    def state(self) -> dict[str, Tensor]:
        """What is needed to go on, but for the optimiser's moments."""
        numbers = {"done": torch.tensor(self.done), "log_scale": torch.tensor(self.log_scale, dtype=torch.float64)}
        current = {f"now.{name}": weight.detach().cpu() for name, weight in self.network.state_dict().items()}
        return numbers | current | {f"mean.{name}": weight.cpu() for name, weight in self.average.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        self.done, self.log_scale = int(state["done"]), float(state["log_scale"])
        weights = {name: state[f"now.{name}"].view_as(weight) for name, weight in self.average.items()}
        self.network.load_state_dict(weights)
        for name, weight in self.average.items():
            weight.copy_(state[f"mean.{name}"].view_as(weight))

    def _average(self) -> None:
        decay = min(DECAY, self.done / (self.done + 10))
        with torch.no_grad():
            for name, weight in self.network.state_dict().items():
                self.average[name].lerp_(weight, 1 - decay)
