"""Objects that move through a scene, placed where a camera on a given path sees them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.geometry.camera import Camera
from slam.rendering import motions
from slam.rendering.builder import SceneBuilder
from slam.rendering.motions import Motion, Spot
from slam.rendering.primitives import Scenes, distance, stack
from slam.rendering.renderer import render_depth
from slam.rendering.viewpoints import PREVIEW, preview_intrinsics

_MOTIONS: dict[str, Callable[[Spot, np.random.Generator, SceneBuilder], Motion]] = {
    "rigid": motions.rigid,
    "person": motions.person,
    "epipolar": motions.epipolar,
}
MOVER_KINDS = tuple(_MOTIONS)

MAX_OBJECTS, MOST_OBJECTS = 6, 24  # where a share is wanted
CANDIDATES = 40  # for each object
JUDGED = 32  # views of the path that a candidate is judged by
SEEN, TOO_LARGE, LARGEST = 0.04, 0.28, 0.4  # shares of the image
ENOUGH, LEAST = 0.6, 0.2  # shares of the views with a mover in sight
MOST_COVERED = 0.8  # share of an image that movers may take where a share is wanted
NEAR_ENOUGH = 0.9  # of the share that is wanted
CAMERA_CLEARANCE = 0.4  # metres from the camera to a mover


@dataclass(frozen=True, eq=False)
class Movers:
    """N objects of together P primitives at the V views of a path."""

    primitives: Scenes  # V scenes of the moving primitives alone, without a room or lights
    T_wo: Tensor  # (V, N, 4, 4) float64 CPU, true poses of the objects
    owner: Tensor  # (P,) int64 CPU, the object of each primitive

    def within(self, static: Scenes, views: slice) -> Scenes:
        """One scene a view: the static one (a batch of one, P primitives) with the movers as they are then, from P on.

        The soft light is that of the static scene: movers are lit by it and take none away.
        """
        index = torch.arange(len(self.T_wo))[views].to(static.device)
        return static.select([0] * len(index)).joined(self.primitives.select(index)).lit_as(static)


def make_movers(
    kind: str,
    static: Scenes,
    T_wc: Tensor,
    fps: float,
    camera: Camera,
    generator: torch.Generator,
    wanted: float | None = None,
) -> Movers:
    """Movers in front of a camera, as many as it takes for one to be in sight in most views, or to cover a share.

    Args:
        kind: one of MOVER_KINDS.
        static: the scene (a batch of one).
        T_wc: (V, 4, 4) float64, the path of the camera.
        fps: poses a second.
        generator: on any device; one number is drawn from it.
        wanted: share of the image that movers cover, mean over the path; None: a mover is in sight.

    Raises:
        ConfigError: for an unknown kind, or if too few views have room for a mover before the scene, or for so many.
    """
    if kind not in _MOTIONS:
        raise ConfigError(f"no kind of movers '{kind}'; there are {', '.join(MOVER_KINDS)}")
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    rng = np.random.default_rng(seed)
    placement = Placement(static, T_wc, fps, camera)
    chosen = _in_sight(kind, placement, rng) if wanted is None else _covering(kind, placement, rng, wanted)
    return _together(chosen)


def _in_sight(kind: str, placement: "Placement", rng: np.random.Generator) -> list[Movers]:
    """Objects that are seen in most views, and fill none."""
    chosen: list[Movers] = []
    share = torch.zeros(len(placement.views))
    for _ in range(MAX_OBJECTS):
        if (share > SEEN).float().mean() > ENOUGH:
            break
        unseen = (share <= SEEN).nonzero().flatten().tolist()
        drawn = placement.drawn(kind, unseen, rng)
        scores = [placement.score(movers, share, chosen) for movers in drawn]
        best = int(np.argmax(scores))
        if scores[best] > 0:
            chosen.append(drawn[best])
            share = share + placement.share(drawn[best])
    if (share > SEEN).float().mean() < LEAST:
        raise ConfigError(
            f"too little room for movers '{kind}' in front of the camera; try another seed or kind of scene"
        )
    return chosen


def _covering(kind: str, placement: "Placement", rng: np.random.Generator, wanted: float) -> list[Movers]:
    """Objects that together cover a share of the image, as evenly over the path as chance allows."""
    chosen: list[Movers] = []
    share = torch.zeros(len(placement.views))
    for _ in range(MOST_OBJECTS):
        least_covered = share.argsort()[: 1 + len(share) // 4].tolist()
        drawn = placement.drawn(kind, least_covered, rng)
        shares = [placement.share_with(movers, chosen) for movers in drawn]
        misses = [np.inf if total is None else float((total - wanted).square().mean()) for total in shares]
        best, best_share = int(np.argmin(misses)), shares[int(np.argmin(misses))]
        if best_share is not None and misses[best] < float((share - wanted).square().mean()):
            chosen.append(drawn[best])
            share = best_share
        if share.mean() >= wanted:
            break
    if share.mean() < NEAR_ENOUGH * wanted:
        raise ConfigError(
            f"movers '{kind}' cover {float(share.mean()):.0%} of the image instead of {wanted:.0%}: there is no room "
            "for more; try another seed or kind of scene"
        )
    return chosen


def _together(movers: list[Movers]) -> Movers:
    primitives = movers[0].primitives
    for more in movers[1:]:
        primitives = primitives.joined(more.primitives)
    owner = torch.cat([torch.full_like(one.owner, n) for n, one in enumerate(movers)])
    return Movers(primitives, torch.cat([one.T_wo for one in movers], 1), owner)


class Placement:
    """A scene and a camera's path through it, with small depth maps of some views that judge what is placed there."""

    def __init__(self, static: Scenes, T_wc: Tensor, fps: float, camera: Camera) -> None:
        self.static, self.T_wc = static, T_wc
        self.time_s = torch.arange(len(T_wc), dtype=torch.float64) / fps
        self.views = torch.linspace(0, len(T_wc) - 1, min(JUDGED, len(T_wc))).round().long()
        self.K = preview_intrinsics(camera.matrix(), camera.height, camera.width)
        self.depth = render_depth(static, T_wc[self.views], self.K, *PREVIEW).cpu()

    def spot(self, at: int, rng: np.random.Generator) -> Spot:
        """A place between the camera and what it sees near the middle of one of the judged views."""
        view = int(self.views[at])
        row, column = (int(size * rng.uniform(0.3, 0.7)) for size in PREVIEW)
        depth = min(float(self.depth[at, row, column]) * rng.uniform(0.35, 0.9), 4.0)
        uv1 = torch.tensor([column, row, 1], dtype=torch.float64)
        p_c = depth * torch.linalg.inv(self.K) @ uv1
        p_w = self.T_wc[view, :3, :3] @ p_c + self.T_wc[view, :3, 3]
        clear = float(distance(self.static, p_w.to(self.static.device, torch.float32)[None, None]))
        area_px = PREVIEW[0] * PREVIEW[1]
        image_radius = depth * float((area_px / (np.pi * self.K[0, 0] * self.K[1, 1])).sqrt())
        return Spot(self.T_wc, view, self.time_s - self.time_s[view], p_w, depth, clear, image_radius)

    def drawn(self, kind: str, at: list[int], rng: np.random.Generator) -> list[Movers]:
        """Candidates for an object, each in the view of one of the judged views `at`."""
        spots = [self.spot(int(rng.choice(at)), rng) for _ in range(CANDIDATES)]
        return [self.posed(_MOTIONS[kind](spot, rng, SceneBuilder(rng, self.static.atlas))) for spot in spots]

    def posed(self, motion: Motion) -> Movers:
        """The primitives of one object in all views."""
        V, P = motion.T_wl.shape[:2]
        still = stack([motion.shape]).select([0] * V)
        R = motion.T_wl[..., :3, :3] @ still.R.double()
        centre = (motion.T_wl[..., :3, :3] @ still.centre.double()[..., None]).squeeze(-1) + motion.T_wl[..., :3, 3]
        scenes = replace(still, R=R.float(), centre=centre.float()).to(self.static.device)
        return Movers(scenes, motion.T_wo[:, None], torch.zeros(P, dtype=torch.int64))

    def share(self, movers: Movers) -> Tensor:
        """(judged views,) share of the image that shows the movers."""
        scenes = movers.primitives.select(self.views.to(self.static.device))
        depth = render_depth(scenes, self.T_wc[self.views], self.K, *PREVIEW).cpu()
        return (depth < self.depth).float().mean((1, 2))

    def is_clear_of_camera(self, movers: Movers) -> bool:
        """True if the camera keeps its distance at all times."""
        camera = self.T_wc[:, None, :3, 3].to(self.static.device, torch.float32)
        return bool(distance(movers.primitives, camera).min() >= CAMERA_CLEARANCE)

    def score(self, movers: Movers, share: Tensor, others: list[Movers]) -> float:
        """Share of the views that a further object improves, less those that show it in a thing or another object."""
        own = self.share(movers)
        total = share + own
        if not self.is_clear_of_camera(movers) or total.max() > LARGEST:
            return 0.0
        index = self.views.to(self.static.device)
        some = movers.primitives.select(index)
        clear = distance(self.static, some.centre.flatten(0, 1)[None]).view(some.kind.shape)
        for other in others:
            clear = torch.minimum(clear, distance(other.primitives.select(index), some.centre))
        hits = ((clear < some.half.median(-1).values).any(1).cpu()) & (own > 0)
        gain = (total > SEEN) & (total < TOO_LARGE) & ((share < SEEN) | (share > TOO_LARGE)) & ~hits
        return float(gain.float().mean() - 0.5 * hits.float().mean())

    def share_with(self, movers: Movers, others: list[Movers]) -> Tensor | None:
        """(judged views,) share of the image that shows a further object or others, which may go through each other and
        through things; None if it comes too near to the camera, or fills an image."""
        if not self.is_clear_of_camera(movers):
            return None
        total = self.share(_together([*others, movers]))
        return None if total.max() > MOST_COVERED else total
