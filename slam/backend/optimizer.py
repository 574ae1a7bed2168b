"""The backend: keyframes of a window to better poses and depths, from the flows between them.

Two jobs for each new keyframe: match it to its neighbours both ways and adjust poses and cell depths together, which
tracking waits for; then dense depth by stereo, for the map.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from slam.errors import check_range
from slam.frames import Keyframe, Update, Window
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.mapping.sensor import measured_coarse, measured_dense
from slam.mapping.transforms import carried_along
from slam.matching.matcher import Match, Matcher
from slam.solvers.bundle import BundleSolution, bundle_adjust
from slam.stereo.stereo import Stereo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackendConfig:
    """The window and its weights; pixels are of the network size."""

    adjust: Literal["joint", "poses", "off"] = "joint"  # with depth; without, cells take their depth from stereo
    window: int = 7  # keyframes adjusted together
    held: int = 2  # oldest of them whose poses are held: they carry place and scale
    reach: int = 3  # keyframes matched to each, in both directions of time
    steps: int = 4  # Gauss-Newton steps of an adjustment
    huber_px: float = 0.5
    flow_sigma_px: float = 0.3  # standard deviation of a good flow
    prior_deviation: float = 1.0  # relative standard deviation of depth that was only carried over or inpainted
    neighbours: int = 3  # views in the stereo of a keyframe

    def __post_init__(self) -> None:
        check_range(self, 2, 100, "window")
        check_range(self, 1, self.window - 1, "held")
        check_range(self, 1, 100, "reach", "steps", "neighbours")
        check_range(self, 0.01, 100, "huber_px", "flow_sigma_px", "prior_deviation")


MIN_DEVIATION = 0.005  # relative, of any depth: flow errors are not independent
HOLDING = 1e6  # weight of a prior that a depth cannot leave
THIN = 2  # cells a step of the grid on which all keyframes are adjusted together
MEASURED = 0.9  # part of the pixels with sensor depth at which stereo is not worth its time


@dataclass(frozen=True)
class Edge:
    """The flow from one keyframe to another."""

    target_uv: Tensor  # (hc, wc, 2) cells
    weight: Tensor  # (hc, wc, 2)

    def subsampled(self) -> "Edge":
        """Every THIN-th row and column, in a grid of its own."""
        return Edge((self.target_uv[::THIN, ::THIN] / THIN).contiguous(), self.weight[::THIN, ::THIN].contiguous())


class Optimizer:
    """Works on windows of keyframes, in the order given; remembers flows and priors of the keyframes it has seen."""

    def __init__(self, matcher: Matcher, stereo: Stereo | None, config: BackendConfig = BackendConfig()) -> None:
        self.matcher = matcher
        self.stereo = stereo
        self.config = config
        self.keyframes: dict[int, Keyframe] = {}  # as they are now, of the active map
        self.graph: dict[tuple[int, int], Edge] = {}  # subsampled flows between them
        self._edges: dict[tuple[int, int], Edge | None] = {}  # of the last window

    @torch.inference_mode()  # of the thread it runs on
    def process(self, window: Window) -> Update:
        """Refine the keyframes of a window."""
        clock = {"match": -time.perf_counter()}
        keyframes = self._current(window.keyframes)
        self._forget(keyframes[0].id, window.active)
        pairs, edges = self._matched(keyframes) if self.config.adjust != "off" else ([], [])
        clock["match"] += time.perf_counter()
        clock["adjust"] = -time.perf_counter()
        if pairs:
            keyframes = self._adjusted(keyframes, pairs, edges, self.config.held)
        clock["adjust"] += time.perf_counter()
        if self.stereo is not None and self.config.adjust != "joint":  # cells take their depth from it
            clock["stereo"] = -time.perf_counter()
            keyframes = self._refreshed(keyframes)
            clock["stereo"] += time.perf_counter()
        keyframes = tuple(replace(k, refined=True) for k in keyframes)
        self.keyframes |= {k.id: k for k in keyframes}
        return Update(keyframes, clock)

    @torch.inference_mode()
    def densified(self, keyframe_id: int) -> tuple[Keyframe, ...]:
        """Those of the window that ends at a keyframe whose dense depth stereo has refreshed after `process`."""
        if self.stereo is None or self.config.adjust != "joint":
            return ()
        until = [self.keyframes[n] for n in sorted(self.keyframes) if n <= keyframe_id]
        window = tuple(until[-self.config.window :])
        changed = tuple(new for new, old in zip(self._refreshed(window), window, strict=True) if new is not old)
        self.keyframes |= {k.id: k for k in changed}
        return changed

    @torch.inference_mode()
    def refined(self, edges: dict[tuple[int, int], Edge]) -> tuple[Keyframe, ...]:
        """All keyframes, poses and depths of those with flows adjusted together on the subsampled flows of the graph.

        Args:
            edges: more of them, subsampled, such as those of loops.
        """
        recent = {pair: edge.subsampled() for pair, edge in self._edges.items() if edge is not None}
        every = self.graph | recent | edges
        known = {pair: edge for pair, edge in every.items() if set(pair) <= self.keyframes.keys()}
        for part in linked(known.keys()):  # each holds its first; none has those of a loaded map that nobody saw again
            position = {n: at for at, n in enumerate(sorted(part))}
            inside = {pair: edge for pair, edge in known.items() if pair[0] in part}
            adjusted = self._adjusted(
                tuple(self.keyframes[n] for n in position),
                [(position[a], position[b]) for a, b in inside],
                list(inside.values()),
                held=1,
                thin=THIN,
            )
            self.keyframes |= {k.id: k for k in adjusted}
        return tuple(self.keyframes[n] for n in sorted(self.keyframes))

    def _current(self, window: tuple[Keyframe, ...]) -> tuple[Keyframe, ...]:
        """The window with what earlier jobs found: it may have been copied before their results were applied."""
        current: list[Keyframe] = []
        for n, keyframe in enumerate(window):
            if keyframe.id in self.keyframes:
                current.append(self.keyframes[keyframe.id])
            else:
                current.append(carried_along(keyframe, window[n - 1], current[n - 1]) if n else keyframe)
        return tuple(current)

    def _forget(self, oldest_id: int, active: frozenset[int] | None) -> None:
        """What left the map; of what left the window, subsampled flows are kept."""
        self._retire({pair: edge for pair, edge in self._edges.items() if min(pair) < oldest_id})
        if active is not None:
            self.keyframes = {n: k for n, k in self.keyframes.items() if n in active}
            self.graph = {pair: edge for pair, edge in self.graph.items() if active.issuperset(pair)}

    def _retire(self, edges: dict[tuple[int, int], Edge | None]) -> None:
        for pair, edge in edges.items():
            if edge is not None:
                self.graph[pair] = edge.subsampled()
            self._edges.pop(pair, None)

    def _matched(self, keyframes: tuple[Keyframe, ...]) -> tuple[list[tuple[int, int]], list[Edge]]:
        """Index pairs of the window and their flows."""
        pairs, edges = [], []
        for a in range(len(keyframes)):
            for b in range(max(0, a - self.config.reach), min(len(keyframes), a + self.config.reach + 1)):
                edge = self._edge(keyframes[a], keyframes[b]) if a != b else None
                if edge is not None:
                    pairs.append((a, b))
                    edges.append(edge)
        return pairs, edges

    def _edge(self, k: Keyframe, other: Keyframe) -> Edge | None:
        key = (k.id, other.id)
        if key not in self._edges:
            T_ck = se3.inverse(other.T_wc) @ k.T_wc
            match: Match = self.matcher.match(k.view, k.coarse, other.view, T_ck)
            self._edges[key] = Edge(match.target_uv, match.weight) if match.ok else None
        return self._edges[key]

    def _adjusted(
        self,
        keyframes: tuple[Keyframe, ...],
        pairs: list[tuple[int, int]],
        edges: list[Edge],
        held: int,
        thin: int = 1,
    ) -> tuple[Keyframe, ...]:
        """Poses and cell depths adjusted, but the poses of the first `held`; `edges` are of every `thin`-th cell."""
        config, stride = self.config, self.matcher.stride * thin
        T_cw = torch.stack([se3.inverse(k.T_wc) for k in keyframes])
        coarse = [k.coarse.subsampled(thin) for k in keyframes]
        inv_depth = torch.stack([c.value for c in coarse])
        sigma = config.flow_sigma_px / stride
        priors = []
        for k, c in zip(keyframes, coarse, strict=True):
            smooth = c.smoothed()
            weak = InvDepth(smooth, config.prior_deviation * smooth)
            priors.append(weak.composited(measured_coarse(k.view, self.matcher.stride).subsampled(thin)))
        prior = torch.stack([p.value for p in priors])
        prior_weight = (sigma / torch.stack([p.sigma for p in priors]).clamp_min(1e-9)) ** 2
        if config.adjust == "poses":
            prior, prior_weight = inv_depth, torch.full_like(inv_depth, HOLDING)
        fixed = torch.zeros(len(keyframes), dtype=torch.bool)
        fixed[: max(1, min(held, len(keyframes) - 2))] = True
        K = scaled_intrinsics(keyframes[0].view.K, 1 / self.matcher.stride)
        K[:2] /= thin  # row 0 and column 0 stay where they are
        solution: BundleSolution = bundle_adjust(
            torch.stack([e.target_uv for e in edges]),
            torch.stack([e.weight for e in edges]),
            torch.tensor(pairs),
            T_cw,
            inv_depth,
            (prior, prior_weight),
            fixed,
            K,
            config.steps,
            huber_px=config.huber_px / stride,
        )
        if not solution.ok:
            log.debug("window %d..%d could not be adjusted", keyframes[0].id, keyframes[-1].id)
            return keyframes
        T_wc = se3.orthonormalised(se3.inverse(solution.T_cw))
        d, information = solution.inv_depth, solution.depth_information
        if thin > 1:
            return tuple(_with_ratio(k, T_wc[n], d[n] / inv_depth[n]) for n, k in enumerate(keyframes))
        sigma_d = torch.maximum(sigma / (information + prior_weight).sqrt(), MIN_DEVIATION * d)
        return tuple(_with_coarse(k, T_wc[n], InvDepth(d[n], sigma_d[n])) for n, k in enumerate(keyframes))

    def _refreshed(self, keyframes: tuple[Keyframe, ...]) -> tuple[Keyframe, ...]:
        """Dense depth of the newest keyframe and of the one that just got neighbours on both sides: as measured, else
        by stereo."""
        assert self.stereo is not None
        out = list(keyframes)
        for n in sorted({len(keyframes) - 1, max(len(keyframes) - 3, 0)}):
            k = keyframes[n]
            measured = measured_dense(k.view)
            if measured.known.float().mean() > MEASURED:
                continue  # it came with its depth
            near = sorted((m for m in range(len(keyframes)) if m != n), key=lambda m: (abs(m - n), m))
            others = [keyframes[m] for m in near[: self.config.neighbours]]
            T_jk = [se3.inverse(o.T_wc) @ k.T_wc for o in others]
            dense = self.stereo(k, [o.view for o in others], T_jk).composited(measured)
            out[n] = replace(k, dense=dense, dense_version=k.dense_version + 1)
            if self.config.adjust != "joint":
                out[n] = replace(out[n], coarse=_pooled(dense, k.coarse, self.matcher.stride))
        return tuple(out)


def linked(pairs: Iterable[tuple[int, int]]) -> list[set[int]]:
    """The ids of the pairs, those together that chains of pairs link."""
    parts: list[set[int]] = []
    for pair in pairs:
        touched = [part for part in parts if not part.isdisjoint(pair)]
        parts = [part for part in parts if part.isdisjoint(pair)] + [set(pair).union(*touched)]
    return parts


def _with_coarse(k: Keyframe, T_wc: Tensor, coarse: InvDepth) -> Keyframe:
    """The keyframe with a new pose and coarse depth; `scale` and dense depth follow the median change of depth."""
    sure = (k.coarse.confidence * coarse.confidence).flatten()
    ratio = (k.coarse.value / coarse.value).flatten()[sure >= sure.quantile(0.5)]
    scale_change = float(ratio.median())
    return replace(k, T_wc=T_wc, coarse=coarse, dense=k.dense.rescaled(scale_change), scale=k.scale * scale_change)


def _with_ratio(k: Keyframe, T_wc: Tensor, ratio: Tensor) -> Keyframe:
    """The keyframe with a new pose, its coarse depth changed by a factor known at every THIN-th cell."""
    hc, wc = k.coarse.size
    v, u = (torch.arange(n) / THIN for n in (hc, wc))
    low_v, low_u = v.long(), u.long()
    rows = torch.lerp(ratio[low_v], ratio[(low_v + 1).clamp_max(len(ratio) - 1)], (v - low_v)[:, None])
    columns = (low_u + 1).clamp_max(ratio.shape[1] - 1)
    factor = torch.lerp(rows[:, low_u], rows[:, columns], (u - low_u)[None])
    return _with_coarse(k, T_wc, InvDepth(k.coarse.value * factor, k.coarse.sigma * factor))


def _pooled(dense: InvDepth, coarse: InvDepth, stride: int) -> InvDepth:
    """Coarse depth from the dense one, weighed by its confidence; as it was where that has none."""
    weight = torch.nn.functional.avg_pool2d(dense.confidence[None], stride)[0]
    mean = torch.nn.functional.avg_pool2d((dense.confidence * dense.value)[None], stride)[0] / weight.clamp_min(1e-6)
    return InvDepth.from_confidence(torch.where(weight > 0, mean, coarse.value), weight)
