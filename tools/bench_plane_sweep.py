"""Accuracy and time of the plane sweep: `python tools/bench_plane_sweep.py tum/living tum/desk --maps maps/`.

Sequences are in TUM layout with depth and reference poses. Per sequence: mean relative error of depth (each error
counted as 2 at most) over all pixels of known depth and over those of confidence 0.5 or more, their share, the share
within 25 %, the median of |error| / sigma (0.67 if sigma is a standard deviation), and the time.

The reference is cleaned: pixels more than 5 % off the median of 5x5 are left out, since rendered depth has stray
pixels along edges and sensor depth flies there. `--scaled` first multiplies each map by the median ratio of the
confident pixels (poses whose scale is only roughly known); `--disturb` adds 0.1 degree and 3 % of the baseline to each
pose. Times are of the processor, so that other programs do not count; with one thread they are what a clock would show.
"""

import argparse
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from slam.evaluation.depth import without_strays
from slam.stereo.plane_sweep import PlaneSweepConfig, SweepResult, plane_sweep

DEPTH_UNITS = 5000  # per metre, in the PNG files of the TUM layout
MAX_ANGLE_DEG = 15.0  # between keyframe and neighbour


@dataclass(frozen=True)
class Case:
    """One keyframe with its neighbours and true depth."""

    gray_k: np.ndarray
    grays_j: list[np.ndarray]
    K: np.ndarray
    T_jk: list[np.ndarray]
    inv_depth_range: tuple[float, float]
    depth: np.ndarray  # (H, W) metres, 0 unknown


def main() -> None:
    """Print one line per sequence."""
    args = _arguments()
    cv2.setNumThreads(args.threads)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    width, height = args.size
    config = PlaneSweepConfig(hypotheses=args.hypotheses)
    print(
        f"cpu float32 {width}x{height}, {config.hypotheses} hypotheses, {args.views} neighbours, "
        f"{'disturbed' if args.disturb else 'reference'} poses, {'median-scaled' if args.scaled else 'unscaled'}, "
        f"commit {commit.stdout.strip()}"
    )
    print("sequence             keyframes  AbsRel all/confident  share  within 25 % all/conf  |e|/sigma  ms median/p90")
    for root in args.sequences:
        rng = np.random.default_rng(0)
        scores, times = [], []
        for number, case in enumerate(_cases(root, args)):
            T_jk = [_disturbed(T, rng) for T in case.T_jk] if args.disturb else case.T_jk
            start = time.process_time()
            result = plane_sweep(case.gray_k, case.grays_j, case.K, T_jk, case.inv_depth_range, config)
            times.append(time.process_time() - start)
            scores.append(_score(result, case.depth, args.scaled))
            if args.maps:
                args.maps.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(args.maps / f"{root.name}_{number:03d}.png"), _image(case, result))
        if not scores:
            print(f"{root.name:20s} no keyframe with depth and enough parallax")
            continue
        rel, rel_confident, share, within, within_confident, ratio = np.nanmean(scores, 0)
        median, p90 = np.percentile(np.array(times[1:] or times) * 1e3, [50, 90])  # the first may compile
        print(
            f"{root.name:20s} {len(scores):9d}  {rel:9.3f} / {rel_confident:.3f}      {share:5.2f}  "
            f"{within:9.3f} / {within_confident:.3f}   {ratio:9.2f}  {median:7.1f} / {p90:.1f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=Path, nargs="+")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 192), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--hypotheses", type=int, default=PlaneSweepConfig().hypotheses)
    parser.add_argument("--views", type=int, default=3, help="neighbours of each keyframe")
    parser.add_argument("--every", type=int, default=15, help="frames from keyframe to keyframe")
    parser.add_argument("--flow", type=float, nargs=2, default=(3.0, 15.0), metavar=("MIN", "MAX"),
                        help="parallax of the neighbours at the median depth, pixels")  # fmt: skip
    parser.add_argument("--scaled", action="store_true", help="align the median depth of each map first")
    parser.add_argument("--disturb", action="store_true", help="disturb the poses")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--maps", type=Path, help="folder for images: image, reference, estimate, confidence")
    return parser.parse_args()


def _cases(root: Path, args: argparse.Namespace) -> list[Case]:
    frames, K, size = _frames(root), _intrinsics(root, tuple(args.size)), tuple(args.size)
    cases, last = [], -args.every
    for i, (gray_file, T_wk, depth_file) in enumerate(frames):
        if depth_file is None or i - last < args.every:
            continue
        depth = _clean(cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED), size)
        if (depth > 0).mean() < 0.2:
            continue
        inv_depth = 1 / depth[depth > 0]
        chosen = _neighbours(frames, i, float(K[0, 0] * np.median(inv_depth)), args)
        if len(chosen) < args.views:
            continue
        last = i
        low, high = np.quantile(inv_depth, [0.01, 0.99])
        cases.append(
            Case(
                _gray(gray_file, size),
                [_gray(frames[j][0], size) for j in chosen],
                K,
                [np.linalg.inv(frames[j][1]) @ T_wk for j in chosen],
                (0.4 * low, 1.6 * high),
                depth,
            )
        )
    return cases


def _neighbours(frames: list, i: int, px_per_metre: float, args: argparse.Namespace) -> list[int]:
    """Frames near i whose parallax is nearest to the (geometric) middle of the wanted range, 3 or more frames apart."""
    ranked, wanted = [], float(np.sqrt(args.flow[0] * args.flow[1]))
    for j in range(max(i - 40, 0), min(i + 41, len(frames))):
        T_jk = np.linalg.inv(frames[j][1]) @ frames[i][1]
        flow_px = px_per_metre * np.linalg.norm(T_jk[:3, 3])
        angle_deg = np.degrees(np.arccos(np.clip((np.trace(T_jk[:3, :3]) - 1) / 2, -1, 1)))
        if args.flow[0] <= flow_px <= args.flow[1] and angle_deg < MAX_ANGLE_DEG:
            ranked.append((abs(np.log(flow_px / wanted)) + 0.01 * abs(j - i), j))
    chosen: list[int] = []
    for _, j in sorted(ranked):
        if len(chosen) < args.views and all(abs(j - other) >= 3 for other in chosen):
            chosen.append(j)
    return chosen


def _score(result: SweepResult, depth: np.ndarray, scaled: bool) -> tuple[float, ...]:
    known = depth > 0
    estimate, truth = 1 / result.inv_depth[known], depth[known]
    confident = result.confidence[known] >= 0.5
    ratio = float(np.median(truth[confident] / estimate[confident])) if scaled and confident.any() else 1.0
    relative = np.minimum(np.abs(ratio * estimate - truth) / truth, 2)
    within = np.maximum(ratio * estimate / truth, truth / (ratio * estimate)) < 1.25
    normalised = np.abs(1 / (ratio * estimate) - 1 / truth) / (result.sigma[known] / ratio)
    if not confident.any():
        return float(relative.mean()), np.nan, 0.0, float(within.mean()), np.nan, float(np.median(normalised))
    return (
        float(relative.mean()),
        float(relative[confident].mean()),
        float(confident.mean()),
        float(within.mean()),
        float(within[confident].mean()),
        float(np.median(normalised)),
    )


def _disturbed(T_jk: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """0.1 degree about a random axis and 3 % of the baseline in a random direction."""
    axis, shift = rng.normal(size=3), rng.normal(size=3)
    R = cv2.Rodrigues(np.radians(0.1) * axis / np.linalg.norm(axis))[0]
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = 0.03 * np.linalg.norm(T_jk[:3, 3]) * shift / np.linalg.norm(shift)
    return T @ T_jk


def _image(case: Case, result: SweepResult) -> np.ndarray:
    scale = 255 / (0.7 * case.inv_depth_range[1])
    truth = np.where(case.depth > 0, 1 / np.maximum(case.depth, 1e-3), 0)
    maps = [
        cv2.applyColorMap(np.clip(scale * inv, 0, 255).astype(np.uint8), cv2.COLORMAP_TURBO)
        for inv in (truth, result.inv_depth)
    ]
    grays = [cv2.cvtColor(g, cv2.COLOR_GRAY2BGR) for g in (case.gray_k, (255 * result.confidence).astype(np.uint8))]
    return np.hstack([grays[0], *maps, grays[1]])


def _clean(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    metres = cv2.resize(depth.astype(np.float32) / DEPTH_UNITS, size, interpolation=cv2.INTER_NEAREST)
    return without_strays(metres)


def _gray(file: Path, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE), size, interpolation=cv2.INTER_AREA)


def _intrinsics(root: Path, size: tuple[int, int]) -> np.ndarray:
    text = (root / "calibration.yaml").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    fx, fy, cx, cy = (float(value) for value in lines["calibration"].strip(" []").split(",")[:4])
    sx, sy = size[0] / int(lines["width"]), size[1] / int(lines["height"])
    return np.array([[sx * fx, 0, sx * (cx + 0.5) - 0.5], [0, sy * fy, sy * (cy + 0.5) - 0.5], [0, 0, 1]])


def _frames(root: Path) -> list[tuple[Path, np.ndarray, Path | None]]:
    """Image, T_wc and depth file (None: no depth) of each frame with a pose within 20 ms."""
    poses = np.loadtxt(root / "groundtruth.txt")
    depths = _listing(root, "depth.txt")
    depth_s = np.array([time_s for time_s, _ in depths])
    frames = []
    for time_s, file in _listing(root, "rgb.txt"):
        row = poses[np.abs(poses[:, 0] - time_s).argmin()]
        nearest = int(np.abs(depth_s - time_s).argmin())
        if abs(row[0] - time_s) < 0.02:
            depth = depths[nearest][1] if abs(depth_s[nearest] - time_s) < 0.005 else None
            frames.append((file, _matrix(row[1:4], row[4:8]), depth))
    return frames


def _listing(root: Path, name: str) -> list[tuple[float, Path]]:
    lines = [line.split() for line in (root / name).read_text(encoding="utf-8").splitlines()]
    return [(float(words[0]), root / words[1]) for words in lines if words and not words[0].startswith("#")]


def _matrix(t: np.ndarray, quat_xyzw: np.ndarray) -> np.ndarray:
    x, y, z, w = quat_xyzw / np.linalg.norm(quat_xyzw)
    T = np.eye(4)
    T[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    T[:3, 3] = t
    return T


if __name__ == "__main__":
    main()
