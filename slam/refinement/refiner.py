"""Refinement of one stretch of a video, step by step; what takes long is kept, so that an interrupted one goes on.

The steps: spread the map's depth to all frames; measure each frame again; measure flow between pairs; find what moves;
average what was measured; teach the network (mode train); optimise; and compare with the start on held-out pairs.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.config import DEFAULT_PIXELS
from slam.errors import SourceError, check_range
from slam.evaluation.consistency import reprojection_px
from slam.frames import Keyframe
from slam.geometry.camera import scaled_intrinsics
from slam.inv_depth import UNMEASURED_SIGMA, InvDepth
from slam.io.tensor_file import read_header, read_tensors, write_tensors
from slam.matching.correspondence import Correspondence
from slam.matching.learned_flow import LearnedFlow
from slam.matching.movers import Evidence, depth_evidence, flow_evidence, static_probability
from slam.networks.prior import STRIDE, PriorNet, enlarged
from slam.refinement.acceptance import HeldOut, held_out_errors, is_better
from slam.refinement.clip import Clip, spread_depth
from slam.refinement.constraints import AT_ONCE, Constraints, averaged
from slam.refinement.direct import DirectConfig, optimised
from slam.refinement.filtering import temporally_filtered
from slam.refinement.fine_tuning import FineTuningConfig, TrunkMaps, TunedHead
from slam.refinement.flows import Flows, measured_flows
from slam.refinement.losses import ConsistencyWeights
from slam.refinement.measurement import Measured, at_cells, measured_depth
from slam.refinement.pairs import held_out_pairs, hierarchical_pairs
from slam.refinement.scale import MIN_KNOWN, calibrated_scale
from slam.settings import dump_config
from slam.stereo.stereo import Stereo
from slam.threads import Helpers

log = logging.getLogger(__name__)

MAX_RESIDUAL_PX = 2.0  # median distance of a pair's flow from that of its poses: beyond it the poses are wrong
SURE_SIGMA = 0.1  # relative: where a measurement counts as much as what the network has learned
FILLED_SIGMA = 0.15  # relative, least of what only the network says
MAX_SCALE_SPREAD = 0.3  # of the logarithms of the frames' scales, from which the network has learned nothing of use


@dataclass(frozen=True)
class RefineConfig:
    """How a video is refined; the switches are for ablations."""

    mode: Literal["fast", "train"] = "fast"
    weights: ConsistencyWeights = ConsistencyWeights()
    direct: DirectConfig = DirectConfig()
    fine_tuning: FineTuningConfig = FineTuningConfig()
    measure: bool = True  # the depth of each frame again; else the map's
    mask: bool = True  # of what moves
    largest_gap: int | None = None  # frames between those of a pair; None: as far as the stretch is long

    def __post_init__(self) -> None:
        if self.largest_gap is not None:
            check_range(self, 1, 1e6, "largest_gap")


@dataclass(frozen=True, eq=False)
class Tools:
    """What measures; one for all stretches of a video."""

    correspondence: Correspondence  # with cells as large as the prior network's
    stereo: Stereo | None
    flow: LearnedFlow | None  # whose trunk the prior network reads
    prior: PriorNet | None
    device: torch.device
    helpers: Helpers = field(default_factory=Helpers)
    label: str = ""  # of the weights and the stereo: with others, what was measured is measured again
    pixels: int = DEFAULT_PIXELS  # width times height of the run's images, as asked for


@dataclass(frozen=True, eq=False)
class Refined:
    """A stretch of a video before and after."""

    clip: Clip
    before: list[InvDepth]  # of the map, inpainted, at network size
    after: list[InvDepth]
    static: Tensor  # (N, h, w) at cells
    held_out: tuple[HeldOut, HeldOut]  # before and after
    accepted: bool


class Refiner:
    """Refines one stretch; its folder keeps what was measured."""

    def __init__(
        self,
        clip: Clip,
        keyframes: Sequence[Keyframe],
        tools: Tools,
        config: RefineConfig,
        folder: Path,
        tell: Callable[[str], None] = lambda words: None,
        stop: Callable[[], bool] = lambda: False,
        hurry: Callable[[], bool] = lambda: False,
    ) -> None:
        """`tell` is told what is done; `stop` ends the work with the best there is, `hurry` the training."""
        self.clip, self.tools, self.config, self.folder = clip, tools, config, folder
        self.tell, self.stop, self.hurry = tell, stop, hurry
        self._maps: TrunkMaps | None = None
        self.before = spread_depth(clip, keyframes)
        self.start = at_cells(self.before, STRIDE).log_inv_depth
        poses = hashlib.sha256(clip.T_wc.numpy().tobytes()).hexdigest()
        frames = [len(clip), clip.views[0].time_ns, clip.views[-1].time_ns, *clip.views[0].image.size]
        self.key = json.dumps([*frames, poses, tools.label, type(tools.correspondence).__name__, dump_config(config)])

    def run(self, head: TunedHead | None = None) -> Refined:
        """All steps; `head` is trained on in mode train."""
        earlier, taught = self._kept("result"), self._kept("head")
        if head is not None and taught is not None:
            head.restore(taught)
        if earlier is not None:
            return self._restored(earlier)
        measured = self._measured()
        judges = self._flows("held_out", held_out_pairs(len(self.clip)), measured, never)
        constraints = self._constraints(measured)
        held_out = self._connected(judges, constraints.static)
        mean, sigma = averaged(measured.log_inv_depth, measured.relative_sigma, constraints)
        if head is not None and not self.stop():
            mean, sigma = self._with_head(head, mean, sigma, constraints)
        final = self._optimised(mean, sigma, constraints)
        start = self._on_device(self.start)
        before, after = (held_out_errors(log_inv_depth.exp(), held_out) for log_inv_depth in (start, final))
        accepted, static = is_better(after, before), constraints.static.cpu()
        maps = self._at_pixels(measured, final.cpu(), sigma.cpu(), static) if accepted else self.before
        if not self.stop():
            self._finish(maps if accepted else (), static, (before, after))
        return Refined(self.clip, self.before, maps, static, (before, after), accepted)

    def _finish(self, maps: Sequence[InvDepth], static: Tensor, held_out: tuple[HeldOut, HeldOut]) -> None:
        """Keep the result alone, and what was taught; no maps of a result that is not used."""
        both = {"value": [d.value for d in maps], "sigma": [d.sigma for d in maps]}
        stacked = {name: torch.stack(each) for name, each in both.items() if each}
        numbers = torch.tensor([[h.reprojection_px, h.log_ratio, h.pairs] for h in held_out], dtype=torch.float64)
        self._keep("result", stacked | {"static": static, "held_out": numbers})
        for path in self.folder.iterdir():
            if path.stem not in ("result", "head"):
                path.unlink()

    def _restored(self, kept: Mapping[str, Tensor]) -> Refined:
        """What `_finish` kept."""
        before, after = (HeldOut(px, ratio, int(pairs)) for px, ratio, pairs in kept["held_out"].tolist())
        accepted, maps = "value" in kept, self.before
        if accepted:
            maps = [InvDepth(value, sigma) for value, sigma in zip(kept["value"], kept["sigma"], strict=True)]
        return Refined(self.clip, self.before, maps, kept["static"], (before, after), accepted)

    def _on_device(self, x: Tensor) -> Tensor:
        return x.to(self.tools.device)

    def _measured(self) -> Measured:
        """Depth of each frame, measured again or as kept from before; on the device at cells."""
        found = self._kept("measured")
        if found is None:
            stereo = self.tools.stereo if self.config.measure else None
            total = len(self.clip)
            measured = measured_depth(
                self.clip,
                self.before,
                stereo,
                STRIDE,
                self.tools.device,
                self.tools.helpers if self.tools.device.type == "cpu" else Helpers(),
                lambda done: self.tell(f"depth measured in {done} of {total} frames"),
                self.stop,
            )
            if self.tools.flow is not None:
                self.tools.flow.forget()
            found = vars(measured)
            if not self.stop():
                self._keep("measured", found)
        maps = Measured(**found)
        return Measured(maps.log_dense, *(self._on_device(x) for x in (maps.log_inv_depth, maps.relative_sigma)))

    def _flows(
        self, name: str, pairs: Sequence[tuple[int, int]], measured: Measured, stop: Callable[[], bool]
    ) -> Flows:
        """Flow of pairs, measured or as kept; on the device."""
        flows = Flows.load(self.folder / f"{name}.safetensors", self.key)
        if flows is None:
            self.tell(f"measuring the flow of {len(pairs)} pairs")
            inv_depth = measured.log_inv_depth.cpu().exp()
            flows = measured_flows(self.clip, inv_depth, pairs, self.tools.correspondence, self.tools.helpers, stop)
            if not self.stop():
                flows.save(self.folder / f"{name}.safetensors", self.key)
        return flows.to(self.tools.device)

    def _connected(self, flows: Flows, static: Tensor) -> Constraints:
        """Flows with the motion of their pairs."""
        T_ji = self._on_device(self.clip.motion(*flows.index.unbind(1)).float())
        K = self._on_device(scaled_intrinsics(self.clip.K, 1 / STRIDE).float())
        return Constraints(flows, T_ji, K, static, STRIDE)

    def _constraints(self, measured: Measured) -> Constraints:
        """What the frames demand of each other, by the pairs that confirm their poses, without what moves."""
        gap = self.config.largest_gap
        pairs = [(i, j) for i, j in hierarchical_pairs(len(self.clip)) if gap is None or j - i <= gap]
        flows = self._flows("flows", pairs, measured, self.stop)
        constraints = _believed(self._connected(flows, torch.ones_like(measured.log_inv_depth)), measured)
        return self._masked(constraints, measured) if self.config.mask and len(constraints) else constraints

    def _masked(self, constraints: Constraints, measured: Measured) -> Constraints:
        """With the probability that cells do not move."""
        flows, parts = constraints.flows, []
        for n in range(0, len(constraints), AT_ONCE):
            edges = torch.arange(n, min(n + AT_ONCE, len(constraints)))
            i = flows.index[edges, 0]
            inv_depth, sigma = measured.log_inv_depth[i].exp(), measured.relative_sigma[i]
            confidence = flows.confidence[edges].float() * flows.mutual[edges][..., None]
            parts.append(
                flow_evidence(inv_depth, sigma, flows.uv(edges), confidence, constraints.T_ji[edges], constraints.K)
            )
        evidence = Evidence(*(torch.cat([getattr(p, n) for p in parts]) for n in ("log_odds", "speaks")))
        depth = self._depth_evidence(measured)
        cells = static_probability(evidence, flows.index[:, 0], len(self.clip), depth)
        if cells.suspect.any():
            log.warning(
                "in %d of %d frames nearly everything seems to move: their poses may be wrong",
                *(int(cells.suspect.sum()), len(self.clip)),
            )
        return replace(constraints, static=cells.probability)

    def _depth_evidence(self, measured: Measured) -> Evidence | None:
        """What the network says of the depth of single pictures; None without one."""
        if self.tools.flow is None or self.tools.prior is None:
            return None
        alone = TunedHead(self.tools.prior, self.clip.K).outputs(self._trunk_maps()).log_inv_depth
        if self.config.mode == "fast":
            self._maps = None  # nobody else reads them
        maps = (x.split(AT_ONCE) for x in (measured.log_inv_depth.exp(), measured.relative_sigma, alone.exp()))
        parts = [depth_evidence(*part) for part in zip(*maps, strict=True)]
        return Evidence(*(torch.cat([getattr(part, name) for part in parts]) for name in ("log_odds", "speaks")))

    def _trunk_maps(self) -> TrunkMaps:
        """Features of all frames, computed once."""
        if self._maps is None:
            assert self.tools.flow is not None
            self.tell(f"encoding {len(self.clip)} frames")
            self._maps = TrunkMaps.of(self.clip.views, self.tools.flow)
        return self._maps

    def _with_head(
        self, head: TunedHead, mean: Tensor, sigma: Tensor, constraints: Constraints
    ) -> tuple[Tensor, Tensor]:
        """Log inverse depth and relative sigma, by the network where the measurements are unsure."""
        maps = self._trunk_maps()
        if head.done == 0:
            head.log_scale += self._log_scale(head, maps, mean, sigma)
        steps = self.config.fine_tuning.steps
        head.fit(
            *(maps, mean, sigma, constraints, self.config.weights, self.config.fine_tuning),
            tell=lambda step, parts: self.tell(f"training, step {step} of {steps}: {_words(parts)}"),
            stop=self.hurry,
        )
        self._keep("head", head.state())
        found = head.outputs(maps)
        trust = constraints.static / (1 + (sigma / SURE_SIGMA).square())
        filled = found.log_sigma.exp().clamp_min(FILLED_SIGMA)
        return torch.lerp(found.log_inv_depth, mean, trust), torch.lerp(filled, sigma, trust)

    def _log_scale(self, head: TunedHead, maps: TrunkMaps, mean: Tensor, sigma: Tensor) -> float:
        """Logarithm of the unit of the map in that of the network."""
        depth = (-head.outputs(maps).log_inv_depth).exp()
        sure = torch.where(sigma < SURE_SIGMA, (-mean).exp(), torch.zeros_like(mean))
        enough = float((sure > 0).float().mean((1, 2)).max()) >= MIN_KNOWN
        found = calibrated_scale(depth, sure if enough else (-mean).exp())
        log.log(
            logging.WARNING if found.spread > MAX_SCALE_SPREAD else logging.DEBUG,
            "the network sees depths %.3g times those of the map, in single frames a factor of %.2f more or less",
            *(found.scale, 1 + found.spread),
        )
        return math.log(found.scale)

    def _optimised(self, mean: Tensor, sigma: Tensor, constraints: Constraints) -> Tensor:
        """Log inverse depth on which the frames agree."""
        H, W = self.clip.views[0].image.size
        gray = torch.stack([torch.from_numpy(view.image.gray) for view in self.clip.views]).view(-1, 1, H, W)
        cells = F.avg_pool2d(gray.float() / 255, STRIDE)[:, 0]
        steps = self.config.direct.steps
        return optimised(
            *(mean, sigma, self._on_device(cells), constraints, self.config.weights, self.config.direct),
            tell=lambda step, parts: self.tell(f"optimising, step {step} of {steps}: {_words(parts)}"),
            stop=self.stop,
        )

    def _at_pixels(self, measured: Measured, final: Tensor, sigma: Tensor, static: Tensor) -> list[InvDepth]:
        """The refined depth at network size: the measured one, corrected smoothly, and filtered over time."""
        size = measured.log_dense.shape[1:]

        def full_size(cells: Tensor) -> Tensor:
            return enlarged(cells[None, None], STRIDE, size)[0, 0]

        change = final - measured.log_inv_depth.cpu()
        log_inv_depth = torch.stack([d + full_size(c) for d, c in zip(measured.log_dense, change, strict=True)])
        still = torch.stack([full_size(cells) > 0.5 for cells in static])
        log_inv_depth = temporally_filtered(log_inv_depth, still, self.clip)
        relative = torch.where(static > 0.5, sigma, torch.full_like(sigma, UNMEASURED_SIGMA))
        maps = []
        for logs, cells in zip(log_inv_depth, relative, strict=True):
            value = logs.exp()
            maps.append(InvDepth(value, full_size(cells) * value))
        return maps

    def _kept(self, name: str) -> dict[str, Tensor] | None:
        """Tensors that were kept by this name, of the same frames and settings."""
        path = self.folder / f"{name}.safetensors"
        try:
            return read_tensors(path) if path.is_file() and read_header(path)[0].get("key") == self.key else None
        except (ValueError, OSError) as error:
            raise SourceError(f"{path} is damaged ({error}); delete {self.folder}") from error

    def _keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        write_tensors(self.folder / f"{name}.safetensors", tensors, {"key": self.key})


def never() -> bool:
    """What few pairs need no deadline."""
    return False


def _believed(constraints: Constraints, measured: Measured) -> Constraints:
    """Without the pairs whose flow contradicts their poses."""
    keep = torch.zeros(len(constraints), dtype=torch.bool)
    for n in range(0, len(constraints), AT_ONCE):
        edges = torch.arange(n, min(n + AT_ONCE, len(constraints)))
        i = constraints.flows.index[edges, 0]
        flows, T_ji = constraints.flows, constraints.T_ji[edges]
        inv_depth, measurable = (
            measured.log_inv_depth[i].exp(),
            flows.mutual[edges] & (flows.confidence[edges] > 0).all(-1),
        )
        error, cells = reprojection_px(inv_depth, flows.uv(edges), measurable, T_ji, constraints.K, STRIDE)
        keep[edges] = ((error < MAX_RESIDUAL_PX) & (cells > 0)).cpu()
    if not keep.any() and len(keep):
        log.warning("no pair of frames confirms the poses: nothing can be refined")
    chosen = keep.to(constraints.T_ji.device)
    flows = constraints.flows.chosen(keep)
    return replace(constraints, flows=flows, T_ji=constraints.T_ji[chosen])


def _words(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in parts.items())
