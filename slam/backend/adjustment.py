"""Bundle adjustment of keyframes: poses and coarse depths from the flows between them.

The newest window is matched both ways and adjusted at every keyframe, which tracking waits for; all keyframes together,
on a coarser grid, when a loop was closed and at the end of a run.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from slam.backend.config import BackendConfig
from slam.backend.densification import is_wanting, without_movers
from slam.backend.graph import SUBSAMPLING, Edge, KeyframeGraph, Pair, cell_intrinsics, linked
from slam.frames import Keyframe, Window
from slam.geometry import se3
from slam.geometry.camera import sample
from slam.geometry.flow import in_image
from slam.inv_depth import InvDepth
from slam.mapping.sensor import measured_coarse, measured_dense
from slam.matching.matcher import Matcher
from slam.matching.movers import consensus, static_share
from slam.solvers.bundle import BundleSolution, bundle_adjust
from slam.threads import Helpers
from slam.timing import StageTimes

log = logging.getLogger(__name__)

MIN_DEVIATION = 0.005  # relative, of any depth: flow errors are not independent
HOLDING_WEIGHT = 1e6  # of a prior that fixes the depth


class Adjustment:
    """Works on a keyframe graph; it holds no state of its own."""

    def __init__(
        self,
        matcher: Matcher,
        config: BackendConfig = BackendConfig(),
        helpers: Helpers = Helpers(),
        turning: Matcher | None = None,
    ) -> None:
        """`helpers` match keyframes at the same time; `turning` matches those between which the camera only
        turned: that needs no flow that seeks depth, but a precise one."""
        self.matcher = matcher
        self.turning = turning or matcher
        self.config = config
        self.helpers = helpers

    def adjust_window(self, graph: KeyframeGraph, window: Window, clock: StageTimes) -> tuple[Keyframe, ...]:
        """Match and adjust the keyframes of a window, and take them over into the graph; as they are now."""
        with clock.measure("match"):
            keyframes = graph.brought_up_to_date(window.keyframes)
            graph.forget(keyframes[0].id, window.active, self.matcher.stride)
            pairs = self._match(graph, keyframes) if self.config.adjust != "off" else []
        with clock.measure("adjust"):
            if pairs:
                newest = keyframes[-1]
                if not (newest.turned or newest.awaits_parallax):  # it would make motion of the errors of the flow
                    edges = [graph.edge((keyframes[a].id, keyframes[b].id)) for a, b in pairs]
                    held = 1 if window.is_whole else self.config.held
                    keyframes = self._solve(keyframes, pairs, [e for e in edges if e is not None], held)
        keyframes = tuple(replace(k, refined=True) for k in keyframes)
        graph.put(keyframes)
        return keyframes

    def adjust_all(self, graph: KeyframeGraph, loops: dict[Pair, Edge]) -> None:
        """Adjust all keyframes that flows link, on the subsampled flows.

        Args:
            loops: flows of closed loops, subsampled, besides those of the graph.
        """
        every = graph.subsampled_edges() | loops
        known = {pair: edge for pair, edge in every.items() if pair[0] in graph and pair[1] in graph}
        for part in linked(known.keys()):  # each holds its first; none has those of a loaded map that nobody saw again
            position = {n: at for at, n in enumerate(sorted(part))}
            inside = {pair: edge for pair, edge in known.items() if pair[0] in part}
            keyframes = tuple(graph[n] for n in position)
            pairs = [(position[a], position[b]) for a, b in inside]
            graph.put(self._solve(keyframes, pairs, list(inside.values()), held=1, step=SUBSAMPLING))

    def aligned(
        self, graph: KeyframeGraph, pairs: Iterable[Pair], matcher: Matcher, helpers: Helpers
    ) -> dict[Pair, Edge]:
        """Flows between keyframes measured anew, subsampled: by a matcher that aligns images by the present poses and
        depths, where it can."""
        known = sorted(pair for pair in pairs if pair[0] in graph and pair[1] in graph)

        @torch.inference_mode()  # of a helper's thread
        def flow(pair: Pair) -> Edge | None:
            edge = _flow(matcher, graph[pair[0]], graph[pair[1]])
            return None if edge is None else edge.subsampled()

        return {pair: edge for pair, edge in zip(known, helpers.map(flow, known)) if edge is not None}

    def _match(self, graph: KeyframeGraph, keyframes: tuple[Keyframe, ...]) -> list[tuple[int, int]]:
        """Connect the window's keyframes in the graph; index pairs of those with a flow."""
        near = [(a, b) for b in range(len(keyframes)) for a in range(max(0, b - self.config.reach), b)]
        wanted = [
            [(k, other) for k, other in ((first, second), (second, first)) if not graph.is_matched((k.id, other.id))]
            for first, second in ((keyframes[a], keyframes[b]) for a, b in near)
        ]
        wanted = [ways for ways in wanted if ways]
        for k, other in (pair[0] for pair in wanted):  # once: two helpers would make features of their own
            self._matcher(k, other).correspondence.encode([k.view.image, other.view.image])
        for ways in self.helpers.map(self._flows, wanted):
            for pair, edge in ways.items():
                graph.connect(pair, edge)
        pairs = sorted(near + [(b, a) for a, b in near])
        return [(a, b) for a, b in pairs if graph.edge((keyframes[a].id, keyframes[b].id)) is not None]

    @torch.inference_mode()  # of a helper's thread
    def _flows(self, ways: list[tuple[Keyframe, Keyframe]]) -> dict[Pair, Edge | None]:
        """Flows of one keyframe to another, and back."""
        return {(k.id, other.id): _flow(self._matcher(k, other), k, other) for k, other in ways}

    def _matcher(self, k: Keyframe, other: Keyframe) -> Matcher:
        return self.turning if k.turned or other.turned else self.matcher

    def _solve(
        self,
        keyframes: tuple[Keyframe, ...],
        pairs: list[tuple[int, int]],
        edges: list[Edge],
        held: int,
        step: int = 1,
    ) -> tuple[Keyframe, ...]:
        """Poses and cell depths adjusted, but the poses of the first `held` and of those that await parallax; `edges`
        are of every `step`-th cell."""
        config, stride = self.config, self.matcher.stride * step
        T_cw = torch.stack([se3.inverse(k.T_wc) for k in keyframes])
        coarse = [k.coarse.subsampled(step) for k in keyframes]
        inv_depth = torch.stack([c.value for c in coarse])
        sigma = config.flow_sigma_px / stride
        priors = []
        for k, c in zip(keyframes, coarse, strict=True):
            weak = _weak_prior(
                c, k.prior.subsampled(step) if k.prior and k.is_guessed else None, config.prior_deviation
            )
            priors.append(weak.composited(measured_coarse(k.view, self.matcher.stride, c.device).subsampled(step)))
        prior = torch.stack([p.value for p in priors])
        prior_weight = (sigma / torch.stack([p.sigma for p in priors]).clamp_min(1e-9)) ** 2
        if config.adjust == "poses":
            prior, prior_weight = inv_depth, torch.full_like(inv_depth, HOLDING_WEIGHT)
        fixed = torch.tensor([k.awaits_parallax for k in keyframes])
        fixed[: max(1, min(held, len(keyframes) - 2))] = True
        K = cell_intrinsics(keyframes[0].view.K, self.matcher.stride, step)
        target_uv, weight = torch.stack([e.target_uv for e in edges]), torch.stack([e.weight for e in edges])
        static: Tensor | None = None
        if config.consensus:
            i, j = torch.tensor(pairs).unbind(-1)
            relative = torch.stack([c.relative_sigma for c in coarse])
            T_ji = T_cw[j] @ se3.inverse(T_cw[i])
            agreeing = consensus(inv_depth[i], relative[i], target_uv, weight, T_ji, K, config.consensus)
            now = static_share(agreeing, weight, i, len(keyframes))
            static = 0.5 * (now + _expected(keyframes, pairs, edges, step))
            weight = weight * (agreeing * static[i])[..., None]
        solution: BundleSolution = bundle_adjust(
            target_uv,
            weight,
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
        if step > 1:
            return tuple(_with_ratio(k, T_wc[n], d[n] / inv_depth[n]) for n, k in enumerate(keyframes))
        if static is not None:
            keyframes = tuple(replace(k, static=static[n]) for n, k in enumerate(keyframes))
        sigma_d = torch.maximum(sigma / (information + prior_weight).sqrt(), MIN_DEVIATION * d)
        return tuple(_with_coarse(k, T_wc[n], InvDepth(d[n], sigma_d[n])) for n, k in enumerate(keyframes))


def _flow(matcher: Matcher, k: Keyframe, other: Keyframe) -> Edge | None:
    match = matcher.match(k.view, k.coarse, other.view, se3.inverse(other.T_wc) @ k.T_wc)
    return Edge(match.target_uv, match.weight) if match.ok else None


def _expected(keyframes: tuple[Keyframe, ...], pairs: list[tuple[int, int]], edges: list[Edge], step: int) -> Tensor:
    """(N, h, w) how far the cells of keyframes are taken to stand still, at every `step`-th: as known; of a new
    keyframe as the latest one before it has what is seen there: what moved moves on."""
    flows = dict(zip(pairs, edges, strict=True))
    found: list[Tensor] = []
    for n, k in enumerate(keyframes):
        static = None if k.static is None else k.static[::step, ::step]
        if static is None:
            static = torch.ones_like(k.coarse.value[::step, ::step])
            m = next((m for m in range(n - 1, -1, -1) if (n, m) in flows), None)
            if m is not None:
                uv, weight = flows[n, m].target_uv, flows[n, m].weight
                known = (weight > 0).any(-1) & in_image(uv[None], *static.shape)[0]
                static = torch.where(known, sample(found[m][None, None], uv[None], padding="border")[0, 0], static)
        found.append(static)
    return torch.stack(found)


def _weak_prior(coarse: InvDepth, prior: InvDepth | None, deviation: float) -> InvDepth:
    """What holds depth that no parallax decides: the depth itself, smoothed; given a prior, where it is not known, what
    the picture suggests, in the unit of what is known."""
    smooth = coarse.smoothed()
    weak = InvDepth(smooth, deviation * smooth)
    if prior is None:
        return weak
    guess = coarse.fitted(prior)
    return weak.composited(InvDepth(torch.where(coarse.decided, 0.0, guess.value), deviation * guess.value))


def _with_coarse(k: Keyframe, T_wc: Tensor, coarse: InvDepth) -> Keyframe:
    """The keyframe with a new pose and coarse depth; `scale` follows the median change of depth.

    So does dense depth; until there has been stereo, it is the coarse one, which a lost camera may need.
    """
    sure = (k.coarse.confidence * coarse.confidence).flatten()
    ratio = (k.coarse.value / coarse.value).flatten()[sure >= sure.quantile(0.5)]
    scale_change = float(ratio.median())
    if is_wanting(k):
        dense = coarse.upsampled(k.view.image.size).composited(measured_dense(k.view, coarse.device))
        dense = k.view.image.masked(dense)
    else:
        dense = k.dense.rescaled(scale_change)
    dense = without_movers(dense, k.static)
    return replace(k, T_wc=T_wc, coarse=coarse, dense=dense, scale=k.scale * scale_change)


def _with_ratio(k: Keyframe, T_wc: Tensor, ratio: Tensor) -> Keyframe:
    """The keyframe with a new pose, its coarse depth changed by a factor known at every SUBSAMPLING-th cell."""
    hc, wc = k.coarse.size
    v, u = (torch.arange(n, device=ratio.device) / SUBSAMPLING for n in (hc, wc))
    low_v, low_u = v.long(), u.long()
    rows = torch.lerp(ratio[low_v], ratio[(low_v + 1).clamp_max(len(ratio) - 1)], (v - low_v)[:, None])
    columns = (low_u + 1).clamp_max(ratio.shape[1] - 1)
    factor = torch.lerp(rows[:, low_u], rows[:, columns], (u - low_u)[None])
    return _with_coarse(k, T_wc, InvDepth(k.coarse.value * factor, k.coarse.sigma * factor))
