"""Loop closure: places seen before are recognised, verified by flow both ways, and the map is bent to fit.

Retrieval proposes, geometry decides: keypoints vote for earlier keyframes, P3P on the earlier one's depth gives a
first pose, and Flow-SE3 from each of the two to the other must arrive at the same motion. What is left goes into a
pose graph over Sim(3) with the keyframes' present relative poses. Two maps are joined over Sim(3) by two such loops
between them that agree.

Reference: Mur-Artal & Tardos, ORB-SLAM2, T-RO 2017, sec. III-D; Strasdat et al., RSS 2010.
"""

import logging
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slam.backend.graph import SUBSAMPLING, Edge, KeyframeGraph, Pair, linked
from slam.errors import check_range
from slam.frames import Keyframe, Recalibration
from slam.geometry import se3, sim3
from slam.mapping.transforms import rescaled
from slam.matching.matcher import Match, Matcher
from slam.recognition.keypoints import KeypointConfig
from slam.recognition.places import PlaceIndex
from slam.recognition.relative_pose import median_inv_depth, median_inv_depths, pose_from_keypoints, scale_ratio
from slam.solvers.pose_graph import pose_graph

log = logging.getLogger(__name__)

BESIDE = 2  # keyframes: a loop with both ends this near to the ends of a known loop adds little to it
SAME_SCALE = 1e-4  # relative change that a depth does not follow, far below its error
ACROSS_CANDIDATES = 3  # places in other maps that each keyframe is compared with at the end of a run
METRIC_SCALE_DEVIATION = 1e-4  # log scale between keyframes whose depth a sensor measured


@dataclass(frozen=True)
class LoopConfig:
    """When a place counts as seen before, and how stiff the map is. Distances are relative to the median depth."""

    enabled: bool = True
    min_gap: int = 8  # keyframes between the two, in one map
    candidates: int = 1  # verified for each new keyframe
    min_votes: int = 10  # keypoints
    min_inlier_ratio: float = 0.7  # of the flow, both ways
    min_visible_ratio: float = 0.4
    min_confidence: float = 0.1  # mean in view, of what the keyframe has against itself: plain walls fit plain walls
    max_cycle_deg: float = 0.8  # rotation left after going there and back
    max_cycle_shift: float = 0.02  # and translation
    shift_deviation: float = 0.01  # standard deviations of the motion from a keyframe to the next ...
    turn_deviation_deg: float = 0.2
    scale_deviation: float = 0.02  # ... and of the log of the ratio of scales
    huber: float = 3.0  # standard deviations
    agreement: float = 1.0  # a loop that fits the map within so many standard deviations needs no closing
    refined_keyframes: int = 30  # largest map that is adjusted as a whole when a loop is closed: a third of a second
    max_strain: float = 20.0  # standard deviations that a loop may still be off by when closed; else it is false
    max_disagreement: float = 4.0  # standard deviations between two loops that join two maps

    def __post_init__(self) -> None:
        check_range(self, 1, 1000, "min_gap", "candidates", "min_votes")
        check_range(self, 0, 1, "min_inlier_ratio", "min_visible_ratio", "min_confidence")
        check_range(self, 1e-4, 90, "max_cycle_deg", "max_cycle_shift", "turn_deviation_deg")
        check_range(self, 1e-5, 10, "shift_deviation", "scale_deviation")
        check_range(self, 0, 100_000, "refined_keyframes")
        check_range(self, 0, 100, "huber", "agreement", "max_strain", "max_disagreement")


@dataclass(frozen=True, eq=False)
class Loop:
    """Keyframe `new_id` as seen from `old_id`, in the scales that both had then."""

    old_id: int
    new_id: int
    S_on: Tensor  # (4, 4) similarity, old from new
    scales: tuple[float, float]  # `Keyframe.scale` of old and new
    shift: float  # what going there and back left, relative to depth ...
    turn_rad: float  # ... and in angle
    flows: tuple[Edge, Edge]  # subsampled; old to new, new to old

    def present(self, old: Keyframe, new: Keyframe) -> Tensor:
        """`S_on` in the present scales of the two."""
        now, then = (torch.tensor(scales, dtype=torch.float64) for scales in ((old.scale, new.scale), self.scales))
        return _in_other_scales(self.S_on, now / then)


class LoopCloser:
    """Remembers the loops found; the keyframes are the graph's."""

    def __init__(
        self, matcher: Matcher, config: LoopConfig = LoopConfig(), keypoints: KeypointConfig = KeypointConfig()
    ) -> None:
        self.matcher = matcher
        self.config = config
        self.keypoints = keypoints
        self.places = PlaceIndex(keypoints)
        self.loops: list[Loop] = []

    def find(self, graph: KeyframeGraph, keyframe_id: int) -> list[Loop]:
        """Loops from a keyframe to earlier ones of its map and to any of other maps, verified and remembered.

        One beside a known loop of its map is left out, unless the map disagrees with it.
        """
        new, ids = graph[keyframe_id], graph.ids
        self.loops = [loop for loop in self.loops if loop.old_id in graph and loop.new_id in graph]
        self.places.follow(graph.by_id)
        assert new.keypoints is not None
        own = [n for n in ids if graph[n].map_id == new.map_id]
        first_recent = max(0, bisect_left(own, new.id) - self.config.min_gap)
        ranked = self.places.rank(new.keypoints, among=set(ids).difference(own[first_recent:]))
        known = len(self.loops)
        for loop in self._believed(graph, new, ranked[: self.config.candidates]):
            if _is_across(loop, graph) or not (self._is_beside(loop, ids) and self._fits([loop], graph)):
                self.loops.append(loop)
        return self.loops[known:]

    def find_across(self, graph: KeyframeGraph) -> None:
        """Loops between maps, sought once more from every keyframe, and remembered: of those that no loop joined while
        the run went on."""
        self.places.follow(graph.by_id)
        for new in graph.keyframes:
            elsewhere = {k.id for k in graph.keyframes if k.map_id < new.map_id}
            if elsewhere and new.keypoints is not None:
                ranked = self.places.rank(new.keypoints, among=elsewhere)
                self.loops += self._believed(graph, new, ranked[:ACROSS_CANDIDATES])

    def _believed(self, graph: KeyframeGraph, new: Keyframe, ranked: list[tuple[int, int]]) -> Iterator[Loop]:
        """Loops from a keyframe to places, given with their votes, that are verified."""
        for old_id, count in ranked:
            loop = self._verified(graph[old_id], new) if count >= self.config.min_votes else None
            if loop is not None:
                log.debug("keyframe %d shows the place of keyframe %d", new.id, old_id)
                yield loop

    def _is_beside(self, loop: Loop, ids: list[int]) -> bool:
        """True if both ends are BESIDE those of a known loop; `ids` of the keyframes, in order."""
        (first_old, last_old), (first_new, last_new) = (_beside(n, ids) for n in (loop.old_id, loop.new_id))
        return any(first_old <= k.old_id <= last_old and first_new <= k.new_id <= last_new for k in self.loops)

    def _verified(self, old: Keyframe, new: Keyframe) -> Loop | None:
        config = self.config
        assert new.keypoints is not None
        T_no = pose_from_keypoints(old, new.keypoints, new.view.K.numpy(), self.keypoints)
        if T_no is None:
            return None
        there = self._match(old, new, T_no)
        if there is None:
            return None
        is_metric = old.metric and new.metric  # both count in metres, whatever the noise of their depth
        ratio = 1.0 if is_metric else scale_ratio(old, new, there.T_ck, self.matcher.stride)
        if ratio is None:
            return None
        back = self._match(new, old, se3.inverse(se3.scaled_translation(there.T_ck, 1 / ratio)))
        if back is None:
            return None
        cycle = se3.scaled_translation(back.T_ck, ratio) @ there.T_ck
        shift = float(cycle[:3, 3].norm()) * median_inv_depth(old)
        turn_rad = float(se3.angle_rad(cycle))
        if math.degrees(turn_rad) > config.max_cycle_deg or shift > config.max_cycle_shift:
            return None
        S_on = se3.inverse(there.T_ck)
        S_on[:3, :3] *= ratio
        flows = Edge(there.target_uv, there.weight).subsampled(), Edge(back.target_uv, back.weight).subsampled()
        return Loop(old.id, new.id, S_on, (old.scale, new.scale), shift, turn_rad, flows)

    def _match(self, k: Keyframe, other: Keyframe, T_ck: Tensor) -> Match | None:
        config, match = self.config, self.matcher.match(k.view, k.coarse, other.view, T_ck, k.static)
        good = match.inlier_ratio >= config.min_inlier_ratio and match.visible_ratio >= config.min_visible_ratio
        if not (match.ok and good):
            return None
        least = config.min_confidence * match.visible_ratio
        return match if self.matcher.is_of_own(match.mean_weight, least, k.view, k.coarse) else None

    def edges(self) -> dict[Pair, Edge]:
        """The flows of all loops, both ways, subsampled."""
        flows: dict[Pair, Edge] = {}
        for loop in self.loops:
            flows[loop.old_id, loop.new_id], flows[loop.new_id, loop.old_id] = loop.flows
        return flows

    def recalibrate(self, change: Recalibration) -> None:
        """The flows of all loops as the camera after a change has them."""
        if change.is_warp:
            stride = self.matcher.stride
            for n, loop in enumerate(self.loops):
                there, back = (flow.recalibrated(change, stride, SUBSAMPLING) for flow in loop.flows)
                self.loops[n] = replace(loop, flows=(there, back))

    def join(self, graph: KeyframeGraph) -> bool:
        """Bring maps into one world where two loops between them agree on how; False if there are none.

        The newer map goes over to the older one, but one that is not metric to one that is.
        """
        is_any = False
        while (found := self._agreed(graph)) is not None:
            S_ab, a, b = found
            is_metric = any(k.metric for k in graph.keyframes if k.map_id == a)
            scale = float(sim3.scale(S_ab))
            moved = []
            for k in (k for k in graph.keyframes if k.map_id == b):
                S_ak = S_ab @ k.T_wc
                S_ak[:3, :3] /= scale
                moved.append(replace(rescaled(k, se3.orthonormalised(S_ak), scale, a), metric=is_metric))
            graph.put(moved)
            log.info("map %d joins map %d: %d keyframes, %.2f times as large", b, a, len(moved), scale)
            is_any = True
        return is_any

    def _agreed(self, graph: KeyframeGraph) -> tuple[Tensor, int, int] | None:
        """A similarity (4, 4) to the world of a map, from that of another, that two loops agree on, and the two."""
        across = [loop for loop in self._present(graph) if _is_across(loop, graph)]
        for n, first in enumerate(across):
            a, b = graph[first.old_id].map_id, graph[first.new_id].map_id
            S_ab = graph[first.old_id].T_wc @ first.present(graph[first.old_id], graph[first.new_id])
            S_ab = S_ab @ se3.inverse(graph[first.new_id].T_wc)
            world = {a: se3.identity(), b: S_ab}
            beside = [x for x in across[n + 1 :] if {graph[x.old_id].map_id, graph[x.new_id].map_id} == {a, b}]
            for second in (x for x in beside if x.new_id != first.new_id):
                if self._fits([second], graph, world, self.config.max_disagreement):
                    goes = self._is_better(a, b, graph)
                    return (S_ab, a, b) if goes else (sim3.inverse(S_ab), b, a)
        return None

    def _is_better(self, a: int, b: int, graph: KeyframeGraph) -> bool:
        """True if map a is to take in map b, not the other way round."""
        metric = {k.map_id for k in graph.keyframes if k.metric}
        return a in metric if (a in metric) != (b in metric) else a < b

    def _present(self, graph: KeyframeGraph) -> list[Loop]:
        """Those whose ends are both in the graph."""
        return [loop for loop in self.loops if loop.old_id in graph and loop.new_id in graph]

    def close(self, graph: KeyframeGraph) -> bool:
        """Bend the maps of the graph so that all loops within one fit; False if they fit as they are."""
        within = [loop for loop in self._present(graph) if not _is_across(loop, graph)]
        if self._fits(within, graph):
            return False
        keyframes = graph.keyframes
        ties = [(keyframes[i].id, keyframes[j].id) for i, j in odometry_edges(keyframes)]
        parts = linked([*ties, *((loop.old_id, loop.new_id) for loop in within)])
        bent = [self._bend(graph, sorted(part), [x for x in within if x.old_id in part]) for part in parts]
        return all(bent) or self.close(graph)

    def _bend(self, graph: KeyframeGraph, ids: list[int], loops: list[Loop]) -> bool:
        """Bend keyframes that ties and loops link, so that the loops fit; False if some contradict the map and were
        forgotten instead."""
        config, keyframes = self.config, [graph[n] for n in ids]
        if self._fits(loops, graph):
            return True
        S_wk = torch.stack([k.T_wc for k in keyframes])
        measured, weight = self._constraints(loops, graph)
        position = {k.id: n for n, k in enumerate(keyframes)}
        edges = torch.tensor([(position[loop.old_id], position[loop.new_id]) for loop in loops])
        chain = torch.tensor(odometry_edges(keyframes))
        i, j = chain.unbind(-1)
        tied = se3.inverse(S_wk[i]) @ S_wk[j]
        is_metric = torch.tensor([k.metric for k in keyframes])
        stiffness = self._weights(median_inv_depths(keyframes)[i], is_metric[i] & is_metric[j])
        solution = pose_graph(
            S_wk,
            torch.cat([edges, chain]),
            torch.cat([measured, tied]),
            torch.cat([weight, stiffness]),
            huber=config.huber,
        )
        strained = [
            loop
            for loop, r in zip(loops, solution.residual.tolist()[: len(loops)], strict=True)
            if r > config.max_strain
        ]
        if strained:
            self.loops = [loop for loop in self.loops if loop not in strained]
            log.info("%d loops contradict the map and are left out", len(strained))
            return False
        scale_change = sim3.scale(solution.S_wk)
        scale_change[(scale_change - 1).abs() < SAME_SCALE] = 1  # far from the loop: the depth need not be copied
        T_wk = solution.S_wk.clone()
        T_wk[:, :3, :3] /= scale_change[:, None, None]
        T_wk = se3.orthonormalised(T_wk)
        graph.put(rescaled(*moved) for moved in zip(keyframes, T_wk.unbind(), scale_change.tolist(), strict=True))
        return True

    def _fits(
        self,
        loops: list[Loop],
        graph: KeyframeGraph,
        world: Mapping[int, Tensor] | None = None,
        deviations: float | None = None,
    ) -> bool:
        """True if the keyframes as they are agree with loops, within `agreement` standard deviations if no others are
        given; `world`: similarities (4, 4) to bring the worlds of their maps into one by."""
        if not loops:
            return True
        deviations = self.config.agreement if deviations is None else deviations
        measured, weight = self._constraints(loops, graph)
        S_wi, S_wj = (
            torch.stack([k.T_wc if world is None else world[k.map_id] @ k.T_wc for k in ends])
            for ends in zip(*((graph[loop.old_id], graph[loop.new_id]) for loop in loops), strict=True)
        )
        r = sim3.log(sim3.inverse(measured) @ sim3.inverse(S_wi) @ S_wj)
        return bool(((weight * r.square()).mean(-1).sqrt() < deviations).all())

    def _constraints(self, loops: list[Loop], graph: KeyframeGraph) -> tuple[Tensor, Tensor]:
        """S_ij (E, 4, 4) in the present scales, and weights (E, 7), of loops."""
        old, new = [graph[loop.old_id] for loop in loops], [graph[loop.new_id] for loop in loops]
        then = torch.tensor([loop.scales for loop in loops], dtype=torch.float64)
        now = torch.tensor([[i.scale, j.scale] for i, j in zip(old, new, strict=True)], dtype=torch.float64)
        measured = _in_other_scales(torch.stack([loop.S_on for loop in loops]), now / then)
        cycle = torch.tensor([[loop.shift, loop.turn_rad] for loop in loops], dtype=torch.float64)
        is_metric = torch.tensor([i.metric and j.metric for i, j in zip(old, new, strict=True)])
        return measured, self._weights(median_inv_depths(old), is_metric, *cycle.unbind(-1))

    def _weights(
        self, inv_depth: Tensor, is_metric: Tensor, shift: Tensor | float = 0.0, turn_rad: Tensor | float = 0.0
    ) -> Tensor:
        """(E, 7) information `[v, omega, log s]` of edges, by the median inverse depth of their first keyframes (E,),
        whether both ends count in metres (E,), and what going there and back left."""
        config = self.config
        deviation = torch.ones(len(inv_depth), 7, dtype=torch.float64)
        deviation[:, :3] = ((config.shift_deviation + shift) / inv_depth)[:, None]
        deviation[:, 3:6] *= (math.radians(config.turn_deviation_deg) + torch.as_tensor(turn_rad)).reshape(-1, 1)
        deviation[:, 6] = torch.where(is_metric, METRIC_SCALE_DEVIATION, config.scale_deviation)
        return deviation.square().reciprocal()


def _is_across(loop: Loop, graph: KeyframeGraph) -> bool:
    """True of a loop between two maps."""
    return graph[loop.old_id].map_id != graph[loop.new_id].map_id


def _beside(keyframe_id: int, ids: list[int]) -> tuple[int, int]:
    """First and last id of the keyframes BESIDE one; `ids` of all, in order."""
    n = bisect_left(ids, keyframe_id)
    return ids[max(0, n - BESIDE)], ids[min(len(ids) - 1, n + BESIDE)]


def _in_other_scales(S_on: Tensor, scale_change: Tensor) -> Tensor:
    """Similarities (..., 4, 4), old from new, after the depths of old and new became `scale_change` (..., 2) times as
    large."""
    S = S_on.clone()
    S[..., :3, :3] *= (scale_change[..., 0] / scale_change[..., 1])[..., None, None]
    S[..., :3, 3] *= scale_change[..., :1]
    return S


def odometry_edges(keyframes: list[Keyframe]) -> list[tuple[int, int]]:
    """Index pairs (i, j): each keyframe and its parent; the one before stands for an unknown. One that began a map has
    none: what came before it says nothing of where it is.

    No further ties: all would say the same once more, and stiffen the map against the loops.
    """
    position = {k.id: n for n, k in enumerate(keyframes)}
    later = [(j, k.parent_id) for j, k in enumerate(keyframes) if j and k.parent_id >= 0]
    return [(position.get(parent_id, j - 1), j) for j, parent_id in later]
