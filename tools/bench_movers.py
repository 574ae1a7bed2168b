"""Cells that move, told from those that stand still, on rendered clips with true masks.

    python tools/bench_movers.py [--kinds office living bare] [--seeds 11 12] [--pose-errors] [--pictures DIR]

Each clip is rendered with one kind of movers, or none. Poses are true, or with `--pose-errors` each is wrong by 0.3 %
of the median depth and 0.1 degrees a coordinate. Every third frame has depth by the stereo network, from frames to both
sides whose parallax at the median depth is nearest to 12, 24 and 48 pixels, the depth that the prior network sees,
and DIS flow to the frames 1, 2, 4, 8 and 16 away. Printed for each kind of movers, over all clips: the area under the
ROC curve of 1 - static probability (AUC), the share of moving cells found and of static cells masked at one half, once
by flow alone and once with the depth of single pictures. A cell moves if half of its pixels show a mover. Static cells
within two cells of a mover are not counted as masked wrongly, as masks are dilated.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.errors import ConfigError
from slam.frames import Image
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import reproject
from slam.matching.dis import DisFlow
from slam.matching.learned_flow import LearnedFlow
from slam.matching.movers import StaticCells, depth_evidence, flow_evidence, static_probability
from slam.networks.storage import Networks, load_networks
from slam.sources.demo import MOVERS, DemoConfig, DemoSource

SIZE = 192, 256  # rows and columns
STRIDE = 4  # pixels, side of a cell
EVERY = 3  # frames between those with depth
GAPS = (1, 2, 4, 8, 16)  # frames, both ways
PARALLAX_PX = (12.0, 24.0, 48.0)  # of stereo's views at the median depth
RANGE = (0.4, 1.6)  # of stereo: these factors of the inverse depths that 1 % and 99 % of the pixels are below
POSE_ERROR = (3e-3, 1.7e-3)  # standard deviation of a coordinate: share of the median depth, radians
NEAR_MOVER = 2  # cells
PAIRS_AT_ONCE = 10


@dataclass(frozen=True, eq=False)
class Clip:
    """N frames with depth, and the flow of E pairs from them to any frame of a video."""

    images: np.ndarray  # (N, H, W, 3) uint8 RGB
    moving_share: Tensor  # (N, h, w) of the pixels of a cell
    inv_depth: Tensor  # (N, h, w) by stereo
    relative_sigma: Tensor  # (N, h, w)
    inv_depth_prior: Tensor  # (N, h, w)
    K: Tensor  # (3, 3) at cells
    i: Tensor  # (E,) int64 of the N frames
    gap: Tensor  # (E,) int64 frames of the video to the partner
    T_ji: Tensor  # (E, 4, 4)
    uv_ij: Tensor  # (E, h, w, 2) cells
    weight: Tensor  # (E, h, w, 2) of u and v


def measured(config: DemoConfig, networks: Networks, pose_errors: bool = False) -> Clip:
    """A clip rendered and measured.

    Raises:
        ConfigError: if the scene has no room for the movers.
    """
    source = DemoSource(config, with_depth=True)
    frames = list(source)
    images = [Image(frame.image) for frame in frames]
    masks = torch.from_numpy(source.mover_masks(0, len(frames)))
    K = source.camera.matrix()
    depths = torch.from_numpy(np.stack([frame.depth for frame in frames if frame.depth is not None]))
    median = float(depths[depths > 0].median())
    T_wc = torch.from_numpy(source.groundtruth().T_wc)
    if pose_errors:
        scale = torch.tensor([POSE_ERROR[0] * median] * 3 + [POSE_ERROR[1]] * 3, dtype=torch.float64)
        generator = torch.Generator().manual_seed(config.seed)
        T_wc = T_wc @ se3.exp(scale * torch.randn(len(T_wc), 6, dtype=torch.float64, generator=generator))
    flow = LearnedFlow(networks.motion)
    stereo_maps = [flow.encode_for_stereo([image])[0] for image in images]
    chosen = list(range(0, len(frames), EVERY))
    inv_depth, sigma, prior = [], [], []
    for k in chosen:
        maps = networks.motion.encode(images[k].channels[None])
        prior.append(networks.prior(maps, K[None]).log_inv_depth.exp())
        known = 1 / depths[k][depths[k] > 0]
        low, high = (f * known.quantile(q)[None] for f, q in zip(RANGE, (0.01, 0.99)))
        js = stereo_views(T_wc, k, float(K[0, 0]) / median)
        T_jk = (se3.inverse(T_wc[js]) @ T_wc[k])[None]
        found = networks.stereo(stereo_maps[k], [stereo_maps[j] for j in js], T_jk, K[None], low, high)
        inv_depth.append(at_cells(found.inv_depth))
        sigma.append(at_cells(found.sigma))
    value = torch.cat(inv_depth)
    pairs = [(n, k, k + s * g) for n, k in enumerate(chosen) for g in GAPS for s in (-1, 1)]
    pairs = [(n, k, j) for n, k, j in pairs if 0 <= j < len(frames)]
    i, k, j = (torch.tensor(x) for x in zip(*pairs))
    T_ji = se3.inverse(T_wc[j]) @ T_wc[k]
    K_cells = scaled_intrinsics(K, 1 / STRIDE)
    uv, weight = dis_flow([images[n] for n in k], [images[n] for n in j], value[i], T_ji, K_cells)
    moving = F.avg_pool2d(masks[chosen][:, None].float(), STRIDE)[:, 0]
    pixels = np.stack([images[n].rgb for n in chosen])
    relative_sigma = torch.cat(sigma) / value
    return Clip(pixels, moving, value, relative_sigma, torch.cat(prior), K_cells, i, j - k, T_ji, uv, weight)


def stereo_views(T_wc: Tensor, k: int, px_per_metre: float) -> list[int]:
    """The frames to both sides of frame k whose parallax is nearest to each of PARALLAX_PX."""
    parallax = px_per_metre * (T_wc[:, :3, 3] - T_wc[k, :3, 3]).norm(dim=-1)
    js: set[int] = set()
    for side in (range(k), range(k + 1, len(T_wc))):
        js |= {min(side, key=lambda j: abs(float(parallax[j]) - wanted)) for wanted in PARALLAX_PX if len(side)}
    return sorted(js)


def dis_flow(
    images_i: Sequence[Image], images_j: Sequence[Image], inv_depth: Tensor, T_ji: Tensor, K: Tensor
) -> tuple[Tensor, Tensor]:
    """Measured positions (E, h, w, 2), cells, and weight (E, h, w, 2) of E pairs of images."""
    dis, uvs, weights = DisFlow(), [], []
    for e in range(0, len(images_i), PAIRS_AT_ONCE):
        some = slice(e, e + PAIRS_AT_ONCE)
        start, _, _ = reproject(inv_depth[some], T_ji[some], K.expand(len(T_ji[some]), 3, 3))
        state = dis.start(dis.encode(images_i[some]), dis.encode(images_j[some]))
        _, residual, weight = dis.update(state, start)
        uvs.append(start + residual)
        weights.append(weight[..., :2])
    return torch.cat(uvs), torch.cat(weights)


def at_cells(image: Tensor) -> Tensor:
    """(B, H, W) -> (B, h, w), the mean of the four pixels around the centres of the cells."""
    a = STRIDE // 2 - 1
    return F.avg_pool2d(image[:, None, a:, a:], 2, STRIDE)[:, 0]


def judged(clip: Clip, with_depth: bool) -> StaticCells:
    """The cells of a clip."""
    i = clip.i
    flow = flow_evidence(clip.inv_depth[i], clip.relative_sigma[i], clip.uv_ij, clip.weight, clip.T_ji, clip.K)
    depth = depth_evidence(clip.inv_depth, clip.relative_sigma, clip.inv_depth_prior) if with_depth else None
    return static_probability(flow, i, len(clip.inv_depth), depth)


def auc(score: Tensor, positive: Tensor) -> float:
    """Probability that a positive has a higher score than a negative, ties count half; NaN without either."""
    _, level, count = score.unique(return_inverse=True, return_counts=True)
    rank = (count.cumsum(0) - (count - 1) / 2)[level].double()
    P, N = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - P * (P + 1) / 2) / (P * N)) if P and N else float("nan")


def scores(clips: Sequence[Clip], with_depth: bool) -> dict[str, float]:
    """Over all cells of the clips; shares as numbers up to 1."""
    found = [judged(clip, with_depth) for clip in clips]
    p = torch.cat([cells.probability for cells in found])
    share = torch.cat([clip.moving_share for clip in clips])
    moving = share >= 0.5
    side = 2 * NEAR_MOVER + 1
    away = F.max_pool2d((share > 0)[:, None].float(), side, 1, NEAR_MOVER)[:, 0] == 0
    return {
        "AUC": auc(1 - p.flatten(), moving.flatten()),
        "found": float((p[moving] < 0.5).float().mean()),
        "masked": float((p[away] < 0.5).float().mean()),
        "suspect": float(torch.cat([cells.suspect for cells in found]).float().mean()),
    }


def drawn(clip: Clip, count: int = 4) -> np.ndarray:
    """Rows of some frames: image, truth, masks by flow and with depth, log ratio of stereo and prior; RGB."""
    rows = []
    by_flow, by_both = (judged(clip, with_depth).probability for with_depth in (False, True))
    for n in np.linspace(0, len(clip.images) - 1, count).round().astype(int):
        image = clip.images[n]
        ratio = (clip.inv_depth[n] / clip.inv_depth_prior[n]).log()
        tiles = [image]
        for moving in (clip.moving_share[n], 1 - by_flow[n], 1 - by_both[n]):
            red = cv2.resize(moving.numpy(), SIZE[::-1], interpolation=cv2.INTER_NEAREST)[..., None]
            tiles.append((image * (1 - 0.7 * red) + 0.7 * red * np.array([255, 0, 0])).astype(np.uint8))
        level = (255 * (0.5 + (ratio - ratio.median()) / 2).clamp(0, 1)).byte().numpy()
        tiles.append(cv2.applyColorMap(cv2.resize(level, SIZE[::-1], interpolation=0), cv2.COLORMAP_TURBO)[..., ::-1])
        rows.append(np.hstack(tiles))
    return np.vstack(rows)


def main() -> None:
    """Print a row for each kind of movers and evidence."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kinds", nargs="+", default=["office", "living", "bare"], help="of scenes")
    p.add_argument("--movers", nargs="+", default=list(MOVERS), choices=MOVERS)
    p.add_argument("--seeds", nargs="+", type=int, default=[11, 12])
    p.add_argument("--frames", type=int, default=48)
    p.add_argument("--weights", default="fast", help="profile or file")
    p.add_argument("--pose-errors", action="store_true")
    p.add_argument("--pictures", type=Path, help="folder for pictures")
    a = p.parse_args()
    networks = load_networks(a.weights)
    print(f"{'movers':<9} {'evidence':<10}   AUC  found  masked  suspect")
    for movers in a.movers:
        clips = []
        for kind in a.kinds:
            for seed in a.seeds:
                config = DemoConfig(kind, seed=seed, frames=a.frames, width=SIZE[1], height=SIZE[0], movers=movers)
                try:
                    with torch.inference_mode():
                        clips.append(measured(config, networks, a.pose_errors))
                except ConfigError as error:
                    print(f"{kind} {seed} {movers}: {error}")
                    continue
                if a.pictures:
                    a.pictures.mkdir(parents=True, exist_ok=True)
                    path = a.pictures / f"movers_{movers}_{kind}_{seed}.png"
                    cv2.imwrite(str(path), np.ascontiguousarray(drawn(clips[-1])[..., ::-1]))
        for with_depth in (False, True) if clips else ():
            s = scores(clips, with_depth)
            name = "flow+depth" if with_depth else "flow"
            print(
                f"{movers:<9} {name:<10} {s['AUC']:5.3f}  {s['found']:5.1%}  {s['masked']:6.2%}  {s['suspect']:7.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
