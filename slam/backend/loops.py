"""Loop closure: places seen before are recognised, verified by flow both ways, and the map is bent to fit.

Retrieval proposes, geometry decides: keypoints vote for earlier keyframes, P3P on the earlier one's depth gives a
first pose, and Flow-SE3 from each of the two to the other must arrive at the same motion. What is left goes into a
pose graph over Sim(3) with the keyframes' present relative poses.

Reference: Mur-Artal & Tardos, ORB-SLAM2, T-RO 2017, sec. III-D; Strasdat et al., RSS 2010.
"""

import logging
import math
from bisect import bisect_left
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slam.backend.graph import SUBSAMPLING, Edge, KeyframeGraph, Pair
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
METRIC_SCALE_DEVIATION = 1e-4  # log scale between keyframes whose depth a sensor measured


@dataclass(frozen=True)
class LoopConfig:
    """When a place counts as seen before, and how stiff the map is. Distances are relative to the median depth."""

    enabled: bool = True
    min_gap: int = 8  # keyframes between the two
    candidates: int = 1  # verified for each new keyframe
    min_votes: int = 10  # keypoints
    min_inlier_ratio: float = 0.7  # of the flow, both ways
    min_visible_ratio: float = 0.4
    max_cycle_deg: float = 0.8  # rotation left after going there and back
    max_cycle_shift: float = 0.02  # and translation
    shift_deviation: float = 0.01  # standard deviations of the motion from a keyframe to the next ...
    turn_deviation_deg: float = 0.2
    scale_deviation: float = 0.02  # ... and of the log of the ratio of scales
    huber: float = 3.0  # standard deviations
    agreement: float = 1.0  # a loop that fits the map within so many standard deviations needs no closing
    refined_keyframes: int = 30  # largest map that is adjusted as a whole when a loop is closed: a third of a second
    max_strain: float = 20.0  # standard deviations that a loop may still be off by when closed; else it is false

    def __post_init__(self) -> None:
        check_range(self, 1, 1000, "min_gap", "candidates", "min_votes")
        check_range(self, 0, 1, "min_inlier_ratio", "min_visible_ratio")
        check_range(self, 1e-4, 90, "max_cycle_deg", "max_cycle_shift", "turn_deviation_deg")
        check_range(self, 1e-5, 10, "shift_deviation", "scale_deviation")
        check_range(self, 0, 100_000, "refined_keyframes")
        check_range(self, 0, 100, "huber", "agreement", "max_strain")


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
        """Loops from a keyframe to earlier ones, verified and remembered.

        One beside a known loop is left out, unless the map disagrees with it.
        """
        new, ids = graph[keyframe_id], graph.ids
        self.loops = [loop for loop in self.loops if loop.old_id in graph and loop.new_id in graph]
        self.places.follow(graph.by_id)
        assert new.keypoints is not None
        first_recent = bisect_left(ids, new.id) - self.config.min_gap
        ranked = self.places.rank(new.keypoints, before_id=ids[max(0, first_recent)])
        loops = []
        for old_id, count in ranked[: self.config.candidates]:
            if count < self.config.min_votes:
                break
            loop = self._verified(graph[old_id], new)
            if loop is not None and not (self._is_beside(loop, ids) and self._fits([loop], graph)):
                loops.append(loop)
                self.loops.append(loop)
                log.debug("keyframe %d shows the place of keyframe %d", new.id, old_id)
        return loops

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
        match = self.matcher.match(k.view, k.coarse, other.view, T_ck)
        good = (
            match.inlier_ratio >= self.config.min_inlier_ratio and match.visible_ratio >= self.config.min_visible_ratio
        )
        return match if match.ok and good else None

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

    def close(self, graph: KeyframeGraph) -> bool:
        """Bend the keyframes of the graph so that all loops fit; False if they fit as they are."""
        config, keyframes = self.config, graph.keyframes
        loops = [loop for loop in self.loops if loop.old_id in graph and loop.new_id in graph]
        if self._fits(loops, graph):
            return False
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
        if strained:  # the map cannot be bent to them
            self.loops = [loop for loop in self.loops if loop not in strained]
            log.info("%d loops contradict the map and are left out", len(strained))
            return self.close(graph)
        scale_change = sim3.scale(solution.S_wk)
        scale_change[(scale_change - 1).abs() < SAME_SCALE] = 1  # far from the loop: the depth need not be copied
        T_wk = solution.S_wk.clone()
        T_wk[:, :3, :3] /= scale_change[:, None, None]
        T_wk = se3.orthonormalised(T_wk)
        graph.put(rescaled(*moved) for moved in zip(keyframes, T_wk.unbind(), scale_change.tolist(), strict=True))
        return True

    def _fits(self, loops: list[Loop], graph: KeyframeGraph) -> bool:
        """True if the map agrees with them as it is."""
        if not loops:
            return True
        measured, weight = self._constraints(loops, graph)
        T_wi = torch.stack([graph[loop.old_id].T_wc for loop in loops])
        T_wj = torch.stack([graph[loop.new_id].T_wc for loop in loops])
        r = sim3.log(sim3.inverse(measured) @ se3.inverse(T_wi) @ T_wj)
        return bool(((weight * r.square()).mean(-1).sqrt() < self.config.agreement).all())

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
    """Index pairs (i, j): each keyframe and its parent; the one before stands for an unknown.

    No further ties: all would say the same once more, and stiffen the map against the loops.
    """
    position = {k.id: n for n, k in enumerate(keyframes)}
    return [(position.get(keyframes[j].parent_id, j - 1), j) for j in range(1, len(keyframes))]
