"""The training loop: fetch, forward, loss, step, log. Resumes exactly from its checkpoint."""

import csv
import json
import logging
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slam.errors import ConfigError, OutputError, WeightsError
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.io.files import replacing
from slam.networks.encoder import FeatureMaps, StereoMaps
from slam.networks.prior import STRIDE
from slam.networks.storage import (
    PROFILES,
    NetworkConfig,
    Networks,
    load_networks,
    read_metadata,
    save_network,
    weights_path,
)
from slam.reading import open_file
from slam.training.clips import Clip, ClipMaker, ClipPool
from slam.training.data import (
    AugmentConfig,
    Batch,
    all_edges,
    at_cells,
    make_batch,
    perturb_depth,
    perturb_pose,
    pick_edges,
    uniform,
)
from slam.training.distributed import average_gradients, largest, share_weights
from slam.training.growth import grow_weights
from slam.training.losses import agreement_loss, motion_loss, prior_loss, stereo_loss
from slam.training.self_supervision import SelfSupervisionConfig

if TYPE_CHECKING:  # reads images, which a machine that trains on rendered scenes need not be able to
    from slam.training.selfsup_stage import SelfSupervisedStage

log = logging.getLogger(__name__)

STAGES = ("motion", "stereo", "joint", "prior", "selfsup")
TRAINED = {  # names of the weights that a stage trains, by their beginning
    "motion": ("motion",),
    "stereo": ("stereo", "motion.encoder.stereo", "motion.encoder.from_8"),  # the trunk stays as motion wants it
    "joint": ("motion", "stereo"),
    "prior": ("prior",),
    "selfsup": ("prior",),
}
WARM_UP_STEPS = 100  # of the learning rate
RANK_SEED = 1_000_003  # between the seeds of two processes
CLIP_SEED = 1_000_000_007  # between the seeds of two processes' clips; far from that of the held-out ones
MIN_PARALLAX_PX = 1.0  # pixels: a smaller baseline teaches the single-image prior alone
NEAREST_SHARE = 0.5  # of the steps whose stereo takes the nearest views, as keyframes do
FIRST_SWEEP = 0.5  # weight of the loss of stereo's first sweep
FINAL_RATE = 0.02  # share of the learning rate left at the end
SPARE_CLIPS = 3  # times as many drawn as wanted, as they must be of one size
MAX_STEP_S = 30.0  # seconds: a step that took longer was suspended, and counts as this much training


@dataclass(frozen=True)
class TrainConfig:
    """How to train; sizes are per step."""

    stage: str = "motion"
    learning_rate: float = 6e-4
    weight_decay: float = 1e-5
    clip_norm: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the averaged weights
    clips: int = 5  # clips per step
    views: int = 4  # views of each clip, stereo: 1 keyframe and the rest
    edges: int = 24  # pairs per step, motion
    iters: int = 3  # unrolled iterations of Flow-SE3
    gn_steps: int = 1  # with small motions the second changes little, and costs as much
    stereo_every: int = 2  # joint: steps from one with stereo to the next
    agreement: float = 0.1  # prior: weight of the agreement of two views
    max_flow_start: float = 1.5  # largest mean flow of a pair at first, pixels at 1/8 ...
    max_flow_end: float = 6.0  # ... from half of the first schedule on, and in every later one
    pool: int = 1500  # clips kept in memory
    pool_start: int = 64  # clips made before the first step
    steps_per_render: int = 3  # steps between two renderings
    seed: int = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    selfsup: SelfSupervisionConfig = field(default_factory=SelfSupervisionConfig)

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ConfigError(f"stage must be one of {', '.join(STAGES)}, got {self.stage!r}")
        if self.views < 2:
            raise ConfigError(f"views must be at least 2, got {self.views}")


@dataclass
class SampleCounts:
    """What a model card tells; goes on through resumed runs."""

    step: int = 0  # of this schedule
    motion_pairs: int = 0
    stereo_keyframes: int = 0
    prior_pictures: int = 0
    video_pictures: int = 0  # of recordings, without truth
    clips_rendered: int = 0
    skipped: int = 0  # steps thrown away for a gradient that was not finite
    seconds: float = 0.0  # of training, all stages
    stage_seconds: float = 0.0  # of this schedule
    schedules: int = 0  # before this one


class Trainer:
    """Networks, optimiser, averaged weights, data and counts of one run."""

    def __init__(
        self,
        network: NetworkConfig,
        config: TrainConfig,
        pool: ClipPool,
        render: ClipMaker,
        device: torch.device,
        rank: int = 0,
        selfsup: "SelfSupervisedStage | None" = None,
    ) -> None:
        """`selfsup` has the videos of the stage of that name, which takes `pool` and `render` for its replay."""
        torch.manual_seed(config.seed)
        self.rank = rank  # of several processes; each draws its own samples
        self.selfsup = selfsup
        self.recordings = [] if selfsup is None else [video.name for video in selfsup.videos]  # ever trained on
        self.network, self.config, self.pool, self.render, self.device = network, config, pool, render, device
        self.networks = Networks(network).to(device)
        for name, parameter in self.networks.named_parameters():
            parameter.requires_grad_(name.startswith(TRAINED[config.stage]))
        self.parameters = [p for p in self.networks.parameters() if p.requires_grad]
        self.parameters += [] if selfsup is None else selfsup.parameters
        self.optimiser = torch.optim.AdamW(self.parameters, config.learning_rate, weight_decay=config.weight_decay)
        share_weights([*self.networks.parameters(), *self.parameters])
        self.average = self._weights()
        self.generator = torch.Generator().manual_seed(config.seed + RANK_SEED * rank)
        self.counts = SampleCounts()
        self.is_finished = False  # this schedule
        self.render_s = 0.0  # spent on clips since the last line of the log

    def make_clip(self, number: int) -> list[Clip]:
        """The clip of a number, the same each time: a pool lost with its machine is made again."""
        seed = CLIP_SEED * (self.rank + 1) + RANK_SEED * self.config.seed + number
        return self.render(torch.Generator().manual_seed(seed))

    def learning_rate(self, progress: float) -> float:
        """Warm-up, then half a cosine over the run; progress in [0, 1]."""
        warm = min(1.0, (self.counts.step + 1) / WARM_UP_STEPS)
        cosine = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return self.config.learning_rate * warm * cosine

    def step(self, progress: float) -> dict[str, float]:
        """One step of the stage; progress in [0, 1] sets learning rate and difficulty. Returns losses by name."""
        config = self.config
        if self.selfsup is not None and not self.selfsup.is_replay(self.counts.step):
            loss, parts, pictures = self.selfsup.loss(self.networks, self.counts.step, self.generator)
            self.counts.video_pictures += pictures
            return self._applied(loss, parts, progress)
        if self.counts.step % config.steps_per_render == 0:
            began = time.monotonic()
            for clip in self.make_clip(self.pool.added):
                self.pool.add(clip)
                self.counts.clips_rendered += 1
            self.render_s += time.monotonic() - began
        batch = make_batch(self._draw(), config.views, config.augment, self.generator, self.device)
        if config.stage in ("prior", "selfsup"):
            return self._applied(*self.prior_part(batch), progress)
        return self._applied(*self.views_part(batch, progress), progress)

    def _applied(self, loss: Tensor, parts: dict[str, Tensor], progress: float) -> dict[str, float]:
        self.apply(loss, progress)
        return {"loss": loss.item()} | {k: v.item() for k, v in parts.items()}

    def _draw(self) -> list[Clip]:
        """Clips of one size of image."""
        clips = self.pool.draw(SPARE_CLIPS * self.config.clips, self.generator)
        return [clip for clip in clips if clip.images.shape == clips[0].images.shape][: self.config.clips]

    def views_part(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of motion, of stereo, or of both."""
        config = self.config
        images = batch.images.flatten(0, 1)
        maps = self.networks.motion.encode(images)
        loss = torch.zeros((), device=self.device)
        parts: dict[str, Tensor] = {}
        if config.stage != "stereo":
            limit = 1.0 if self.counts.schedules else min(1.0, 2 * progress)
            max_flow = config.max_flow_start + limit * (config.max_flow_end - config.max_flow_start)
            motion, found = self.motion_part(maps, batch, max_flow)
            loss, parts = loss + motion, parts | found
        if config.stage == "stereo" or (config.stage == "joint" and self.counts.step % config.stereo_every == 0):
            depth, found = self.stereo_part(self.networks.motion.encode_for_stereo(maps, images), batch)
            loss, parts = loss + depth, parts | found
        return loss, parts

    def prior_part(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the depth of single pictures, and of its agreement between the first two views of each clip."""
        B, V = batch.inv_depth.shape[:2]
        with torch.no_grad():
            maps = self.networks.motion.encode(batch.images.flatten(0, 1))
        output = self.networks.prior(maps, batch.K.repeat_interleave(V, 0))
        self.counts.prior_pictures += B * V
        truth, _ = at_cells(batch.inv_depth.flatten(0, 1), STRIDE)
        loss, parts = prior_loss(output, truth)
        size = (B, V, *truth.shape[1:])
        found, true = (d.view(size)[:, :2].unbind(1) for d in (output.log_inv_depth.exp(), truth))
        T_ba = se3.inverse(batch.T_wc[:, 1]) @ batch.T_wc[:, 0]
        pair = agreement_loss(found, true, T_ba, scaled_intrinsics(batch.K, 1 / STRIDE))
        return loss + self.config.agreement * pair, parts | {"agreement": pair.detach()}

    def apply(self, loss: Tensor, progress: float) -> None:
        """Backward pass, clipped step, averaged weights; a gradient that is not finite is thrown away and counted."""
        self.counts.step += 1
        self.optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        if not torch.isfinite(norm):
            self.counts.skipped += 1
            return
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(progress)
        self.optimiser.step()
        decay = min(self.config.ema, (1 + self.counts.step) / (10 + self.counts.step))
        with torch.no_grad():
            state = self.networks.state_dict()
            names = list(state)
            torch._foreach_lerp_([self.average[k] for k in names], [state[k] for k in names], 1 - decay)

    def motion_part(self, maps: FeatureMaps, batch: Batch, max_flow: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of Flow-SE3 on pairs of the batch, depth and start disturbed."""
        config = self.config
        edges = pick_edges(all_edges(batch, self.networks.motion.stride), config.edges, max_flow, self.generator)
        if len(edges.index) == 0:
            return torch.zeros((), device=self.device), {}
        self.counts.motion_pairs += len(edges.index)
        inv_depth = perturb_depth(edges.inv_depth, self.generator)
        start = perturb_pose(edges.T_ji, self.generator)
        steps = self.networks.motion(maps, edges.index, inv_depth, start, edges.K, config.iters, config.gn_steps)
        return motion_loss(steps, edges.true_uv, edges.visible, inv_depth, edges.K)

    def stereo_part(self, maps: StereoMaps, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of the plane sweep with the first view of each clip as keyframe, poses slightly wrong."""
        B, V = batch.inv_depth.shape[:2]
        count = int(torch.randint(1, V, (), generator=self.generator))  # neighbours
        truth = batch.inv_depth[:, 0]
        T_jk = se3.inverse(batch.T_wc[:, 1:]) @ batch.T_wc[:, :1]
        order = torch.arange(V - 1, device=self.device).expand(B, -1)
        if torch.rand((), generator=self.generator) < NEAREST_SHARE:
            order = T_jk[..., :3, 3].norm(dim=-1).argsort(1)
        neighbours = order[:, :count]  # (B, count), of the views after the first
        T_jk = T_jk.gather(1, neighbours[..., None, None].expand(-1, -1, 4, 4))
        distance = T_jk[..., :3, 3].norm(dim=-1, keepdim=True)
        noise = torch.randn(B, count, 6, generator=self.generator).to(T_jk)
        noise = noise * torch.cat([distance.expand(-1, -1, 3) * 0.02, torch.full_like(noise[..., :3], 5e-4)], -1)
        T_jk = se3.exp(noise) @ T_jk
        low, high = self.depth_range(truth)
        index = torch.arange(B, device=self.device) * V
        views = [maps[index + 1 + neighbours[:, m]] for m in range(count)]
        output = self.networks.stereo(maps[index], views, T_jk, batch.K, low, high)
        parallax_px = distance.amax((1, 2)).float() * batch.K[:, 0, 0].float() * truth.flatten(1).mean(1)
        useful = (parallax_px > MIN_PARALLAX_PX)[:, None, None]
        useful = useful & (truth < 1.05 * high[:, None, None]) & (truth > 0.8 * low[:, None, None])
        truth = torch.where(useful, truth, torch.zeros_like(truth))
        self.counts.stereo_keyframes += B
        found = (output.first_inv_depth, output.first_sigma)
        upsampled = [torch.nn.functional.interpolate(x[:, None], truth.shape[-2:])[:, 0] for x in found]
        first, first_parts = stereo_loss(upsampled[0], upsampled[1], truth)
        second, parts = stereo_loss(output.inv_depth, output.sigma, truth)
        return FIRST_SWEEP * first + second, parts | {"first": first_parts["depth"]}

    def depth_range(self, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest inverse depth (B,) to search, around the median of each scene (B, H, W)."""
        B = len(truth)
        known = torch.where(truth > 0, truth, torch.full_like(truth, torch.nan)).flatten(1)
        median = known.nanmedian(1).values.nan_to_num(1.0)
        low, high = uniform((B,), 0.02, 0.4, self.generator), uniform((B,), 2.0, 4.5, self.generator)
        return low.to(truth) * median, high.to(truth) * median

    def _weights(self) -> dict[str, Tensor]:
        """A copy of all weights."""
        return {k: v.detach().clone() for k, v in self.networks.state_dict().items()}

    def swap_average(self) -> dict[str, Tensor]:
        """Put the averaged weights into the networks; returns the current ones for `restore`."""
        current = self._weights()
        self.restore(self.average)
        return current

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put weights into the networks."""
        self.networks.load_weights(weights, "the averaged weights")

    def save(self, folder: Path) -> None:
        """Write checkpoint and averaged weights, each atomically.

        Raises:
            OutputError: if they cannot be written, such as to a full disk.
        """
        checkpoint = {
            "stage": self.config.stage,
            "weights": self.networks.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "clips_added": self.pool.added,
            "is_finished": self.is_finished,
            "counts": vars(self.counts),
            "recordings": self.recordings,
            "selfsup": None if self.selfsup is None else self.selfsup.state(),
        }
        notes = {f"train_{k}": f"{v:.0f}" for k, v in vars(self.counts).items()}
        notes |= {"recordings": json.dumps(self.recordings)} if self.recordings else {}
        try:
            with replacing(folder / "checkpoint.pt") as file:
                torch.save(checkpoint, file)
            save_network(folder / "weights.safetensors", self.network, self.average, notes)
        except RuntimeError as error:  # torch has its own for a full disk
            raise OutputError(f"cannot write the checkpoint to {folder}: {error}") from error

    def load(self, path: Path, minutes: float = math.inf) -> None:
        """Go on from a checkpoint: exactly, if it is in the middle of a schedule of this stage that has `minutes`.

        Else a new schedule begins from its averaged weights, or from a weights file or a shipped profile.

        Raises:
            WeightsError: if the file is no checkpoint of these networks.
        """
        if path.suffix == ".safetensors" or str(path) in PROFILES:
            return self._begin_with(weights_path(path))
        try:
            with open_file(path) as file:
                checkpoint = torch.load(file, map_location=self.device, weights_only=True)
            weights, average = checkpoint["weights"], checkpoint["average"]
            optimiser, generator, stage = checkpoint["optimiser"], checkpoint["generator"].cpu(), checkpoint["stage"]
            counts = SampleCounts(**checkpoint["counts"])
        except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"{path} is no checkpoint of this program ({reason})") from error
        spent = counts.stage_seconds / 60
        goes_on = stage == self.config.stage and not checkpoint.get("is_finished", False) and spent < minutes
        self.networks.load_weights(weights if goes_on else average, str(path))
        if self.selfsup is not None and checkpoint.get("selfsup") is not None:
            self.selfsup.load_state(checkpoint["selfsup"], goes_on)
        self.add_recordings(checkpoint.get("recordings", []))
        self.average = {k: v.clone() for k, v in average.items()}
        self.counts = counts
        self.generator.set_state(generator)
        if self.rank:  # the checkpoint is the first process's
            self.generator.manual_seed(self.config.seed + RANK_SEED * self.rank + self.counts.step)
        self.pool.rewind(checkpoint.get("clips_added", self.pool.added))
        if goes_on:
            self.optimiser.load_state_dict(optimiser)
            log.info("resume: stage %s goes on at step %d, after %.4g minutes", stage, counts.step, spent)
        else:
            counts.step, counts.stage_seconds, counts.schedules = 0, 0.0, counts.schedules + 1
            log.info(
                "resume: stage %s had %.4g minutes; a new schedule of %s begins from its averaged weights",
                stage,
                spent,
                self.config.stage,
            )

    def _begin_with(self, path: Path) -> None:
        """A new schedule from a weights file, of this profile or a smaller one; its samples go on being counted."""
        notes = read_metadata(path)
        networks = load_networks(path)
        weights, config = networks.state_dict(), networks.config
        if config.profile != self.network.profile:
            weights = grow_weights(weights, config, self.network)
            log.info("the weights of %s are grown into those of %s", config.profile, self.network.profile)
        self.networks.load_weights(weights, str(path))
        self.average = self._weights()
        self.add_recordings(json.loads(notes.get("recordings", "[]")))
        done = {k: type(v)(float(notes.get(f"train_{k}", 0))) for k, v in vars(SampleCounts()).items()}
        self.counts = SampleCounts(**done | {"step": 0, "stage_seconds": 0.0, "schedules": int(done["schedules"]) + 1})
        log.info("resume: a new schedule of %s begins from the weights %s", self.config.stage, path.name)

    def add_recordings(self, names: Sequence[str]) -> None:
        """Name recordings that the weights have been trained on, for the model card: also those of earlier stages."""
        self.recordings = list(dict.fromkeys([*names, *self.recordings]))

    def fit(
        self,
        folder: Path,
        minutes: float,
        max_steps: int | None = None,
        validate: Callable[["Trainer"], dict[str, float]] | None = None,
        stop: Callable[[], bool] = lambda: False,
        log_every_s: float = 20.0,
        save_every_s: float = 300.0,
    ) -> None:
        """Train until the schedule has had `minutes` (or `max_steps`) or `stop` says so; save, and at its end validate.

        Of several processes the first keeps the time, the log and the files; each may stop all.
        """
        logged = saved = last = time.monotonic()
        sums: dict[str, tuple[float, int]] = {}
        number = 0
        while True:
            spent = self.counts.stage_seconds / 60
            progress = self.counts.step / max_steps if max_steps else spent / minutes
            self.is_finished = progress >= 1
            progress = largest(1.0 if stop() else 0.0 if self.rank else progress, self.device)
            if progress >= 1:
                break
            parts = self.step(progress)
            for name, value in parts.items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + value, count + 1)
            number += 1
            now = time.monotonic()
            elapsed, last = min(now - last, MAX_STEP_S), now
            self.counts.seconds += elapsed
            self.counts.stage_seconds += elapsed
            if self.rank:
                continue
            if now - logged > log_every_s:
                means = {k: total / count for k, (total, count) in sums.items()}
                times = {"ms": 1e3 * (now - logged) / number, "render_ms": 1e3 * self.render_s / number}
                self.report(folder, means | times)
                sums, number, logged, self.render_s = {}, 0, now, 0.0
            if now - saved > save_every_s:
                self.save(folder)
                if validate is not None:
                    self.report(folder, validate(self), "validation.csv")
                sums, number, self.render_s = {}, 0, 0.0
                saved = logged = last = time.monotonic()
        if self.rank == 0:
            self.save(folder)
            if validate is not None and self.is_finished:  # who stops it has no time for that
                self.report(folder, validate(self), "validation.csv")
            log.info("the schedule is %s", "finished" if self.is_finished else "not finished; --resume goes on")

    def report(self, folder: Path, values: dict[str, float], file: str = "train.csv") -> None:
        """One line to the log and to a CSV file."""
        row = {"stage": self.config.stage, "step": self.counts.step, "pairs": self.counts.motion_pairs}
        row |= {"keyframes": self.counts.stereo_keyframes}
        row |= {"pictures": self.counts.prior_pictures, "video_pictures": self.counts.video_pictures}
        row |= {"seconds": round(self.counts.seconds)}
        rounded = {k: f"{v:.4g}" for k, v in values.items()}
        log.info("%s", " ".join(f"{k} {v}" for k, v in (row | rounded).items()))
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="") as stream:
            csv.writer(stream).writerow([f"{k}={v}" for k, v in (row | rounded).items()])
