"""The self-supervised stage: what a step on unlabelled video is made of, and what it must remember between steps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from slam.errors import SourceError, WeightsError
from slam.geometry import se3
from slam.networks.encoder import EncoderConfig, FeatureMaps
from slam.networks.storage import Networks
from slam.training.data import AugmentConfig, colour, mirror
from slam.training.pairs import neighbours, split
from slam.training.pose_network import RelativePoseNet
from slam.training.self_supervision import (
    SelfSupervisionConfig,
    depth_scale,
    distillation_loss,
    one_way_loss,
    pair_loss,
)
from slam.training.video import Video

log = logging.getLogger(__name__)

SCALE_FRAMES = 24  # of a video at which the scale of its map is measured
VALIDATION_TARGETS = 16  # held-out frames of each video
POSE_SEED = 3
PLAIN = SelfSupervisionConfig(auto_mask=False, inconsistency_mask=False)  # every pixel counts


@dataclass(frozen=True, eq=False)
class Views:
    """F frames of one video, on the training device."""

    images: Tensor  # (F, 3, H, W) float32 [0, 1]
    inv_depth: Tensor  # (F, h, w) certain, at cells, 1 / map unit; 0 unknown
    relative_sigma: Tensor  # (F, h, w)
    T_wc: Tensor  # (F, 4, 4); the identity without poses
    K: Tensor  # (F, 3, 3)


class SelfSupervisedStage:
    """Videos, their pairs and scales, and the pose network of videos without poses."""

    def __init__(
        self,
        videos: Sequence[Video],
        config: SelfSupervisionConfig,
        augment: AugmentConfig,
        encoder: EncoderConfig,
        device: torch.device,
    ) -> None:
        """Choose the pairs.

        Raises:
            SourceError: if a video has none: the camera hardly moved, or the images contradict the poses.
        """
        self.videos, self.config, self.augment, self.device = tuple(videos), config, augment, device
        blocks = [split(video) for video in self.videos]
        self.train = [neighbours(video, frames) for video, (frames, _) in zip(self.videos, blocks)]
        self.held_out = [neighbours(video, frames) for video, (_, frames) in zip(self.videos, blocks)]
        for video, pairs in zip(self.videos, self.train):
            told = (video.name, len(video.images), len(pairs), 100 * float((video.inv_depth > 0).float().mean()))
            log.info("%s: %d frames, %d to compare with neighbours, map depth at %.0f %% of the pixels", *told)
            if not len(pairs):
                raise SourceError(f"{video.name} has no two frames to learn from: {_missing(video)}")
        self.scales = [1.0] * len(self.videos)
        self.scaled_at = -1  # measurement of the scales, counted from 0; -1: none yet
        self.pose_net: RelativePoseNet | None = None
        if not all(video.has_poses for video in self.videos):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(POSE_SEED)
                self.pose_net = RelativePoseNet(encoder).to(device)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Those trained beside the prior's."""
        return [] if self.pose_net is None else list(self.pose_net.parameters())

    def is_replay(self, step: int) -> bool:
        """True of a step on rendered pictures."""
        return self.config.replay_every > 0 and step % self.config.replay_every == 0

    def loss(self, networks: Networks, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor], int]:
        """Loss of a step on one of the videos.

        Returns:
            loss (), parts, pictures looked at.
        """
        if step // self.config.scale_every != self.scaled_at:
            self.measure_scales(networks)
            self.scaled_at = step // self.config.scale_every
        odds = torch.tensor([float(len(pairs)) for pairs in self.train])
        n = int(torch.multinomial(odds, 1, generator=generator))
        chosen = torch.randint(len(self.train[n]), (self.config.targets,), generator=generator)
        frames, edges = self.train[n].edges(chosen).unique(return_inverse=True)
        loss, parts = self._frames_loss(networks, self._views(n, frames, generator), n, edges, generator)
        return loss, parts | {"map_scale": torch.tensor(self.scales[n])}, len(frames)

    def _frames_loss(
        self, networks: Networks, views: Views, n: int, edges: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of views of video n: their pairs `edges` (E, 2), and what the map knows of them."""
        with torch.no_grad():
            maps = networks.motion.encode(colour(views.images[None], self.augment, generator)[0])
        output = networks.prior(maps, views.K)
        inv_depth = output.full_size()
        a, b = edges.to(self.device).unbind(1)
        T_ba = self._motion(views.T_wc, maps, a, b, n)
        images = (views.images[a], views.images[b])
        loss, parts = pair_loss(images, (inv_depth[a], inv_depth[b]), T_ba, views.K[a], self.config)
        if self.config.distillation:
            told, found = distillation_loss(output, views.inv_depth, views.relative_sigma, self.scales[n])
            loss, parts = loss + self.config.distillation * told, parts | found
        return loss, parts

    def _views(self, n: int, frames: Tensor, generator: torch.Generator | None = None) -> Views:
        """Frames (F,) of video n on the training device; with a generator by chance those of the mirrored world."""
        video = self.videos[n]
        images, K = video.images[frames], video.K
        depth = torch.stack([video.inv_depth[frames], video.relative_sigma[frames]], 1)
        T_wc = video.T_wc[frames] if video.has_poses else torch.eye(4, dtype=torch.float64).repeat(len(frames), 1, 1)
        if generator is not None and torch.rand((), generator=generator) < self.augment.flip:
            images, depth, T_wc, K = mirror(images, depth, T_wc, K, axis=0)
        images, depth, T_wc, K = (x.to(self.device) for x in (images, depth, T_wc, K))
        return Views(images.float() / 255, depth[:, 0], depth[:, 1], T_wc, K.expand(len(frames), 3, 3))

    def _motion(self, T_wc: Tensor, maps: FeatureMaps, a: Tensor, b: Tensor, n: int) -> Tensor:
        """(E, 4, 4) view b from view a of video n in the network's unit: by its poses, or by the pose network."""
        if not self.videos[n].has_poses:
            assert self.pose_net is not None
            return self.pose_net(maps[a], maps[b])
        T_ba = se3.inverse(T_wc[b]) @ T_wc[a]
        T_ba[:, :3, 3] *= self.scales[n]
        return T_ba

    @torch.no_grad()
    def measure_scales(self, networks: Networks) -> None:
        """Find each map's unit in that of the network's depths; a video without certain depth keeps its own."""
        for n, video in enumerate(self.videos):
            few = self.train[n].index[:, 0]
            few = few[:: -(-len(few) // SCALE_FRAMES)]
            known = video.inv_depth[few] > 0
            if known.any():
                views = self._views(n, few)
                found = networks.prior(networks.motion.encode(views.images), views.K).log_inv_depth.exp().cpu()
                self.scales[n] = float(depth_scale(found[known], video.inv_depth[few][known]))

    @torch.no_grad()
    def validate(self, networks: Networks) -> dict[str, float]:
        """Mean over the held-out pairs of all videos: photometric error and inconsistency, no pixel left out."""
        kept = list(self.scales)
        self.measure_scales(networks)
        found: dict[str, list[float]] = {}
        for n, pairs in enumerate(self.held_out):
            for row in range(0, len(pairs), -(-len(pairs) // VALIDATION_TARGETS) or 1):
                for name, value in self._held_out_scores(networks, n, pairs.edges(torch.tensor([row]))).items():
                    found.setdefault(name, []).append(value)
        self.scales = kept
        return {name: sum(values) / len(values) for name, values in found.items()}

    def _held_out_scores(self, networks: Networks, n: int, pairs: Tensor) -> dict[str, float]:
        """Scores of pairs (E, 2) of frames of video n."""
        frames, edges = pairs.unique(return_inverse=True)
        views = self._views(n, frames)
        maps = networks.motion.encode(views.images)
        inv_depth = networks.prior(maps, views.K).full_size()
        a, b = edges.to(self.device).unbind(1)
        T_ba = self._motion(views.T_wc, maps, a, b, n)
        images = views.images
        parts = one_way_loss(images[a], images[b], inv_depth[a], inv_depth[b], T_ba, views.K[a], PLAIN)
        return {"held_out_photometric": float(parts["photometric"]), "held_out_inconsistency": float(parts["geometry"])}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold for the next step to be the same."""
        pose_net = None if self.pose_net is None else self.pose_net.state_dict()
        return {"scales": self.scales, "scaled_at": self.scaled_at, "pose_net": pose_net}

    def load_state(self, state: Mapping[str, Any], goes_on: bool) -> None:
        """Go on from a checkpoint's state; of a schedule that has ended only the pose network is taken over.

        Raises:
            WeightsError: if it was made with other videos or another choice of --poses.
        """
        if goes_on and (
            (state["pose_net"] is None) != (self.pose_net is None) or len(state["scales"]) != len(self.scales)
        ):
            raise WeightsError(
                "the checkpoint was made with other videos or other --poses; give the same, or a new --out"
            )
        if self.pose_net is not None and state["pose_net"] is not None:
            self.pose_net.load_state_dict(state["pose_net"])
        if goes_on:
            self.scales, self.scaled_at = list(state["scales"]), int(state["scaled_at"])


def _missing(video: Video) -> str:
    if not video.has_poses:
        return "the flow between its frames is too small or too large"
    if not (video.inv_depth > 0).any():
        return "no two keyframes measured the same depth; --poses network needs no map"
    return "too little parallax, or the images contradict the poses; --poses network needs no map"
