"""How well a place is recognised: five ways to find, for each keyframe, an earlier one that shows the same place.

    python tools/bench_places.py runs/hall DATA/desk_gentle

Each folder (with ground truth) is tracked once; every keyframe then asks all that are at least 8 older. Two keyframes
show the same place if each sees, by the true poses, half of the other's surface (a right answer: 0.3). Columns: right
answers at first rank, of those with any; share of them found at a threshold that lets no wrong answer pass.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from slam.experiment import run_and_score
from slam.frames import Keyframe
from slam.frontend.relocaliser import thumbnail
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.networks.storage import load_networks
from slam.recognition.keypoints import detect_keypoints, rank_places
from slam.recognition.places import PlaceIndex

GAP = 8  # keyframes
SAME, RIGHT = 0.5, 0.3  # overlap of a place seen before, and of an answer that counts
WORDS = 256  # of the bag of words

Scores = list[np.ndarray]  # of each keyframe, one score for every keyframe at least GAP older


def keyframes_of(folder: Path, settings: list[str]) -> tuple[list[Keyframe], Tensor, float]:
    """Keyframes of a run, their true poses (N, 4, 4), and metres in a map unit."""
    result = run_and_score(folder, settings)
    keyframes, truth = list(result.slam.store.keyframes), result.truth
    nearest = [int(np.abs(truth.time_ns - k.view.time_ns).argmin()) for k in keyframes]
    return keyframes, torch.from_numpy(truth.T_wc[nearest]), result.report.ate["sim3"].scale


def overlaps(keyframes: list[Keyframe], T_wc: Tensor, unit_m: float) -> np.ndarray:
    """(N, N) share of each keyframe's surface that the other sees, the lesser of both directions."""
    N = len(keyframes)
    seen = np.zeros((N, N))
    for n, k in enumerate(keyframes):
        h, w = k.coarse.value.shape
        K = scaled_intrinsics(k.view.K, w / k.view.image.size[1]).expand(N, 3, 3)
        uv, _, valid = reproject((k.coarse.value / unit_m).expand(N, h, w), se3.inverse(T_wc) @ T_wc[n], K)
        seen[n] = (valid & in_image(uv, h, w)).float().mean((1, 2)).numpy()
    return np.minimum(seen, seen.T)


def by_vectors(vectors: np.ndarray) -> Scores:
    """Cosine similarities of (N, D)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return [unit[: max(0, n - GAP)] @ unit[n] for n in range(len(unit))]


def thumbnails(keyframes: list[Keyframe]) -> Scores:
    """Brightness, blurred to 15 x 20."""
    return by_vectors(torch.stack([thumbnail(k.view) for k in keyframes]).numpy())


def encoder(keyframes: list[Keyframe]) -> Scores:
    """Features of the shipped motion network, pooled to 3 x 4 cells, their mean over all keyframes taken off."""
    motion = load_networks("fast").motion
    pooled = []
    with torch.inference_mode():
        for k in keyframes:
            trunk = motion.encode(k.view.image.channels[None].float() / 255).trunk.float()
            pooled.append(torch.nn.functional.adaptive_avg_pool2d(trunk, (3, 4)).flatten().numpy())
    vectors = np.stack(pooled)
    return by_vectors(vectors - vectors.mean(0))


def bag_of_words(keyframes: list[Keyframe]) -> Scores:
    """ORB descriptors in 256 words made of the sequence itself, weighted by how rare a word is."""
    orb = cv2.ORB.create(500, fastThreshold=8)
    found = [orb.detectAndCompute(k.view.image.gray, None)[1] for k in keyframes]
    bits = [np.zeros((0, 256), np.float32) if d is None else np.unpackbits(d, axis=1).astype(np.float32) for d in found]
    pool = np.concatenate(bits)
    chosen = np.random.default_rng(0).choice(len(pool), min(6000, len(pool)), replace=False)
    cv2.setRNGSeed(0)
    _, _, centres = cv2.kmeans(pool[chosen], WORDS, None, (3, 10, 0.1), 1, cv2.KMEANS_PP_CENTERS)
    counts = np.zeros((len(keyframes), WORDS))
    for n, d in enumerate(bits):
        words = ((centres**2).sum(1) - 2 * d @ centres.T).argmin(1)
        np.add.at(counts[n], words, 1)
    return by_vectors(counts * np.log(len(keyframes) / np.maximum((counts > 0).sum(0), 1)))


def keypoint_votes(keyframes: list[Keyframe]) -> Scores:
    """Every keypoint asks those of all keyframes."""
    found = [detect_keypoints(k.view.image) for k in keyframes]
    return [by_votes(rank_places(found[n], dict(enumerate(found[: max(0, n - GAP)]))), n) for n in range(len(found))]


def shortlisted_votes(keyframes: list[Keyframe]) -> Scores:
    """What the system uses."""
    index, found, scores = PlaceIndex(), [detect_keypoints(k.view.image) for k in keyframes], []
    for n, keypoints in enumerate(found):
        index.put(n, keypoints)
        scores.append(by_votes(index.rank(keypoints, among=range(n - GAP)), n))
    return scores


def by_votes(ranked: list[tuple[int, int]], n: int) -> np.ndarray:
    """Votes of keyframe n for every one at least GAP older."""
    given = dict(ranked)
    return np.array([given.get(m, 0) for m in range(max(0, n - GAP))], float)


def judged(scores: Scores, overlap: np.ndarray) -> str:
    """The two columns."""
    best, right, exists = [], [], []
    for n, s in enumerate(scores):
        if len(s):
            best.append(s.max())
            right.append(overlap[n, int(s.argmax())] > RIGHT)
            exists.append((overlap[n, : len(s)] > SAME).any())
    value, good, there = np.array(best), np.array(right), np.array(exists)
    if not there.any():
        return "no place is seen twice | "
    threshold = value[~good].max() if (~good).any() else -np.inf
    return f"{(good & there).sum()}/{there.sum()} | {(good & there & (value > threshold)).sum() / there.sum():.2f}"


WAYS: dict[str, Callable[[list[Keyframe]], Scores]] = {
    "thumbnail": thumbnails,
    "pooled encoder features": encoder,
    "ORB bag of words": bag_of_words,
    "keypoint votes": keypoint_votes,
    "short-listed keypoint votes": shortlisted_votes,
}


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=V", help="keyframing.flow_px=4: more keyframes"
    )
    options = parser.parse_args()
    print("| sequence | by | right at first rank | recall at 100 % precision |\n| --- | --- | --- | --- |")
    for folder in options.folders:
        keyframes, T_wc, unit_m = keyframes_of(folder, options.set)
        overlap = overlaps(keyframes, T_wc, unit_m)
        for name, way in WAYS.items():
            print(f"| {folder.name} | {name} | {judged(way(keyframes), overlap)} |", flush=True)


if __name__ == "__main__":
    main()
