"""Depth of every frame before and after refinement, against true depth, beside maps that are smooth but not right.

python tools/render_sequence.py office loop runs/office --frames 150 --depth
python tools/bench_refine.py runs/office DATA/redwood_living --out runs/refine
python tools/bench_refine.py runs/office --out runs/refine --ablate

One scale for the whole video. TAE: temporal alignment error in percent at gaps of 1, 5 and 25 frames (6 and 24 where
true depth is known of every second or third frame), of points that both frames truly see. Instability and drift in
percent of the depth, on exact tracks where every frame has true depth, else on measured ones.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.build import build_slam
from slam.config import SlamConfig, load_config
from slam.errors import EvaluationError, SlamError
from slam.evaluation.consistency import temporal_alignment_errors
from slam.evaluation.depth import without_strays
from slam.evaluation.track_consistency import exact_tracks, track_drift, track_instability
from slam.evaluation.video_depth import constant_like, temporally_blurred, video_depth_errors
from slam.frames import Trajectory
from slam.frontend.preparation import Preparation
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.io.images import read_mask
from slam.matching.dis import DisFlow
from slam.matching.learned_flow import LearnedFlow
from slam.matching.tracks import Tracks, flow_tracks
from slam.networks.motion import MotionState
from slam.networks.prior import enlarged
from slam.refinement.build import build_tools
from slam.refinement.clip import stretches
from slam.refinement.direct import DirectConfig
from slam.refinement.fine_tuning import TunedHead
from slam.refinement.losses import ConsistencyWeights
from slam.refinement.refiner import RefineConfig, Refined, Refiner, Tools
from slam.sources import SourceSpec, open_source
from slam.threads import limit_threads

SPARSE_GAPS, GAPS = (6, 24), (1, 5, 25)
TRACKED_FROM = 20  # frames between those where exact tracks start
BLUR = 2  # frames to both sides

ABLATIONS: dict[str, RefineConfig] = {
    "all": RefineConfig(),
    "no spatial": RefineConfig(weights=ConsistencyWeights(spatial=0)),
    "no disparity": RefineConfig(weights=ConsistencyWeights(ratio=0)),
    "no anchor": RefineConfig(direct=DirectConfig(anchor=0)),
    "no smoothness": RefineConfig(direct=DirectConfig(smoothness=0)),
    "no mask": RefineConfig(mask=False),
    "map's depth only": RefineConfig(measure=False),
    "gap 1 only": RefineConfig(largest_gap=1),
    "no optimisation": RefineConfig(direct=DirectConfig(steps=0)),
}


class LearnedCells:
    """The learned flow at the cells of DIS, for comparison: its residual flow, interpolated."""

    stride = DisFlow.stride

    def __init__(self, flow: LearnedFlow) -> None:
        self.flow = flow
        self.factor = flow.stride // self.stride
        self.max_updates = flow.max_updates
        self.encode = flow.encode
        self.start = flow.start
        self.finished = flow.finished

    def update(self, state: MotionState, uv: Tensor) -> tuple[MotionState, Tensor, Tensor]:
        """See `Correspondence`."""
        coarse = F.avg_pool2d(uv.permute(0, 3, 1, 2), self.factor).permute(0, 2, 3, 1)
        with torch.inference_mode():
            state, residual, weight = self.flow.update(state, (coarse + 0.5) / self.factor - 0.5)
        both = enlarged(torch.cat([self.factor * residual, weight[..., :2]], -1).permute(0, 3, 1, 2), self.factor)
        return state, *both.permute(0, 2, 3, 1).clone().split(2, -1)


@dataclass(frozen=True, eq=False)
class Video:
    """A recording with true depth, tracked."""

    name: str
    refiner: Callable[[RefineConfig, Tools, Path, Tensor | None], Refiner]  # configuration, tools, folder, other poses
    T_wc: Tensor
    K: Tensor
    true_inv_depth: Tensor  # (N, H, W) 1 / map unit, 0 unknown
    moving: Tensor  # (N, H, W) bool, by truth
    tracks: Tracks

    def still(self, inv_depth: Tensor) -> Tensor:
        """Depth without what moves."""
        return torch.where(self.moving, torch.zeros_like(inv_depth), inv_depth)


def tracked(folder: Path, tools: Tools, settings: SlamConfig, frames: int | None) -> Video:
    """Run the system on one thread, without the depth of the sensor."""
    spec = SourceSpec(str(folder), with_depth=False, max_frames=frames)
    source = open_source(spec)
    slam = build_slam(settings, source.camera, threads=False)
    slam.run(source)
    trajectory, keyframes = slam.store.trajectory(), tuple(k.on_host() for k in slam.store.everything())
    slam.store.close()
    with_truth = open_source(replace(spec, with_depth=True))
    h, w = keyframes[0].view.image.size
    true, moving = true_depth(folder, with_truth, h * w, trajectory)
    stretch = next(stretches(folder.name, open_source(spec), h * w, trajectory, 10**6, 0))
    clip = stretch.clip

    def refiner(config: RefineConfig, tools: Tools, work: Path, T_wc: Tensor | None = None) -> Refiner:
        other = clip if T_wc is None else replace(clip, T_wc=T_wc)
        return Refiner(other, keyframes, tools, config, work)

    scale = map_scale(refiner(RefineConfig(measure=False), tools, Path()).before, true)
    true = true / scale
    if bool((true > 0).flatten(1).any(1).all()):
        tracks = exact_tracks(true, clip.T_wc, clip.K, range(0, len(clip), TRACKED_FROM))
    else:
        tracks = flow_tracks([view.image.gray for view in clip.views])
    return Video(folder.name, refiner, clip.T_wc, clip.K, true, moving, tracks)


def true_depth(folder: Path, source: object, pixels: int, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
    """Inverse depth (N, H, W), 1 / metre, and what moves (N, H, W), of the frames with a pose, at network size."""
    prepare = Preparation(source.camera, pixels)  # type: ignore[attr-defined]
    placed, maps, masks = set(trajectory.time_ns.tolist()), [], []
    for frame in source:  # type: ignore[attr-defined]
        if frame.time_ns not in placed:
            continue
        image, depth = prepare.image_and_depth(frame)
        depth = np.zeros(image.shape[:2], np.float32) if depth is None else without_strays(depth)
        maps.append(torch.from_numpy(np.where(depth > 0, 1 / np.maximum(depth, 1e-6), 0).astype(np.float32)))
        masks.append(moving_mask(folder, frame.time_ns, depth.shape))
    return torch.stack(maps), torch.stack(masks)


def moving_mask(folder: Path, time_ns: int, size: tuple[int, ...]) -> Tensor:
    """(H, W) bool of the recording's `movers/`; nothing moves where it has none."""
    from slam.io.trajectory import format_time_ns

    path = folder / "movers" / f"{format_time_ns(time_ns)}.png"
    if not path.is_file():
        return torch.zeros(size, dtype=torch.bool)
    mask = torch.from_numpy(read_mask(path)).float()
    return F.interpolate(mask[None, None], size=size, mode="area")[0, 0] > 0


def map_scale(before: list[InvDepth], true: Tensor) -> float:
    """Metres in the map's unit."""
    maps = torch.stack([d.value for d in before])
    known = true > 0
    return float((true[known] / maps[known]).reciprocal().median()) ** -1


def measure(video: Video, inv_depth: Tensor) -> dict[str, float]:
    """All scores of a map (N, H, W)."""
    still, true = video.still(inv_depth), video.still(video.true_inv_depth)
    depth = video_depth_errors(still, true)
    ratio = (still / true.clamp_min(1e-9))[(true > 0) & (still > 0)]
    ratio = (ratio / ratio.median()).log().abs()
    scores = {
        "AbsRel": depth.abs_rel,
        "d<1.25": depth.delta_125,
        "d<1.05": float((ratio < np.log(1.05)).float().mean()),
    }
    gaps = GAPS if bool((true > 0).flatten(1).any(1).all()) else SPARSE_GAPS
    errors = temporal_alignment_errors(still, video.T_wc, video.K, None, gaps, true)
    scores |= {f"TAE {gap}": error for gap, error in errors.items()}
    for name, score in {"instability": track_instability, "drift": track_drift}.items():
        try:
            scores[name] = 100 * score(video.tracks, inv_depth, video.T_wc, video.K)
        except EvaluationError:
            continue
    return scores


def refined(video: Video, tools: Tools, config: RefineConfig, T_wc: Tensor | None = None) -> tuple[Refined, float]:
    """Refine, and the seconds that it took."""
    with TemporaryDirectory() as folder:
        begin = time.perf_counter()
        refiner = video.refiner(config, tools, Path(folder), T_wc)
        head = TunedHead(tools.prior, video.K) if config.mode == "train" and tools.prior is not None else None
        return refiner.run(head), time.perf_counter() - begin


def disturbed(T_wc: Tensor, relative: float, angle_deg: float) -> Tensor:
    """Poses with noise: of the distance between neighbours, and of the direction, independent from frame to frame."""
    generator = torch.Generator().manual_seed(1)
    reach = T_wc[:, :3, 3].diff(dim=0).norm(dim=-1).sum()
    noise = torch.randn(len(T_wc), 6, generator=generator, dtype=T_wc.dtype) / 3**0.5
    size = torch.tensor([relative * float(reach)] * 3 + [np.radians(angle_deg)] * 3, dtype=T_wc.dtype)
    return T_wc @ se3.exp(noise * size)


def values(maps: list[InvDepth]) -> Tensor:
    return torch.stack([d.value for d in maps])


def verdict(result: Refined, seconds: float) -> str:
    before, after = result.held_out
    return (
        f"{seconds:4.0f} s  held out {before.reprojection_px:.2f} -> {after.reprojection_px:.2f} px, "
        f"{100 * before.log_ratio:.2f} -> {100 * after.log_ratio:.2f} %  {'' if result.accepted else 'REJECTED'}"
    )


class Table:
    """Scores a map and prints the line."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.found: dict[str, dict[str, float]] = {}

    def add(self, name: str, maps: Tensor, rest: str = "") -> None:
        """Score a map (N, H, W)."""
        self.found[name] = scores = measure(self.video, maps)
        if len(self.found) == 1:
            print(f"\n{self.video.name:<22}" + "".join(f"{title:>12}" for title in scores))
        print(f"{name:<22}" + "".join(f"{value:12.4f}" for value in scores.values()) + f"  {rest}", flush=True)


def compared(video: Video, tools: Tools, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All scores of a recording."""
    table = Table(video)
    with TemporaryDirectory() as nowhere:
        before = values(video.refiner(RefineConfig(measure=False), tools, Path(nowhere), None).before)
    table.add("before", before)
    table.add("constant", constant_like(before))
    table.add("blurred", temporally_blurred(before, BLUR))
    trials: dict[str, tuple[RefineConfig, Tensor | None]] = {}
    trials |= {mode: (load_config(RefineConfig, None, [f"mode={mode}", *options.set]), None) for mode in options.modes}
    if options.ablate:
        trials |= {name: (config, None) for name, config in ABLATIONS.items()}
        trials["poses 1 %"] = RefineConfig(), disturbed(video.T_wc, 0.01, 0.0)
        trials["poses 1 degree"] = RefineConfig(), disturbed(video.T_wc, 0.0, 1.0)
    for name, (config, T_wc) in trials.items():
        result, seconds = refined(video, tools, config, T_wc)
        table.add(name, values(result.after), verdict(result, seconds))
    if options.ablate and tools.flow is not None:
        result, seconds = refined(video, replace(tools, correspondence=LearnedCells(tools.flow)), RefineConfig())
        table.add("learned flow", values(result.after), verdict(result, seconds))
    return table.found


def main() -> None:
    """Track, refine, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", help="recordings in TUM layout with true depth")
    parser.add_argument("--out", type=Path, required=True, help="folder of scores.json")
    parser.add_argument("--modes", nargs="*", default=["fast", "train"], choices=("fast", "train"))
    parser.add_argument("--frames", type=int, help="only the first")
    parser.add_argument("--ablate", action="store_true", help="mode fast without its parts, and with disturbed poses")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=V", help="a setting of the refinement")
    options = parser.parse_args()
    limit_threads()
    settings = load_config(SlamConfig, None, [])
    tools = build_tools(settings, "train", "cpu")
    everything = {}
    for folder in options.folders:
        try:
            video = tracked(folder, tools, settings, options.frames)
        except SlamError as error:
            print(f"{folder}: {error}")
            continue
        everything[folder.name] = compared(video, tools, options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scores.json").write_text(json.dumps(everything, indent=2) + "\n")


if __name__ == "__main__":
    main()
