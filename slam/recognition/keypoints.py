"""Keypoints of an image: to know a place by, and to find the pose of one image from the depth of another.

Flow needs a first guess of the pose; where there is none (a place seen before, a lost camera) keypoints give it.

References: Lowe, Distinctive image features from scale-invariant keypoints, IJCV 2004; Arandjelovic & Zisserman,
Three things everyone should know to improve object retrieval, CVPR 2012 (RootSIFT).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from slam.errors import check_range
from slam.frames import Image, Keyframe, Keypoints


@dataclass(frozen=True)
class KeypointConfig:
    """How many keypoints, and when two are the same; pixels are of the network size."""

    count: int = 300  # strongest keypoints of an image
    contrast: float = 0.02  # least contrast of a keypoint, of full scale
    ratio: float = 0.85  # of the best distance to the second best, below which a match is distinct
    min_similarity: float = 0.9  # cosine of the descriptors of one place
    pnp_px: float = 3.0  # reprojection error of an inlier
    min_inliers: int = 15

    def __post_init__(self) -> None:
        check_range(self, 10, 10000, "count")
        check_range(self, 0, 1, "contrast", "ratio", "min_similarity")
        check_range(self, 0.1, 100, "pnp_px")
        check_range(self, 4, 10000, "min_inliers")


def detect_keypoints(image: Image, config: KeypointConfig = KeypointConfig()) -> Keypoints:
    """SIFT keypoints of an image."""
    sift = cv2.SIFT.create(nfeatures=config.count, contrastThreshold=config.contrast)
    shown = None if image.mask is None else image.mask.astype(np.uint8)
    keypoints, descriptors = sift.detectAndCompute(image.gray, shown)
    if descriptors is None or len(keypoints) == 0:
        return Keypoints.none()
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
    return Keypoints(np.array([k.pt for k in keypoints], np.float32), root)


def with_keypoints(keyframe: Keyframe, config: KeypointConfig = KeypointConfig()) -> Keyframe:
    """The keyframe with its keypoints; itself if it has them."""
    if keyframe.keypoints is not None:
        return keyframe
    return replace(keyframe, keypoints=detect_keypoints(keyframe.view.image, config))


def match_keypoints(a: Keypoints, b: Keypoints, config: KeypointConfig = KeypointConfig()) -> np.ndarray:
    """(M, 2) int64 index pairs: mutual nearest neighbours that are distinct."""
    if min(len(a.uv), len(b.uv)) < 2:
        return np.zeros((0, 2), np.int64)
    similarity = a.descriptors @ b.descriptors.T
    best = similarity.argmax(1)
    mutual = similarity.argmax(0)[best] == np.arange(len(best))
    second, first = np.partition(similarity, -2, axis=1)[:, -2:].T
    distinct = (2 - 2 * first) < config.ratio**2 * (2 - 2 * second)  # squared distances of unit vectors
    (index,) = np.nonzero(mutual & distinct)
    return np.stack([index, best[index]], -1)


def solve_pnp(
    uv_k: np.ndarray, inv_depth_k: np.ndarray, uv_c: np.ndarray, K: np.ndarray, config: KeypointConfig
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pose of a camera that sees points of known depth, by P3P in RANSAC and refinement of its inliers.

    Args:
        uv_k: (M, 2) pixels of the points in camera k.
        inv_depth_k: (M,) inverse depth there, > 0.
        uv_c: (M, 2) where camera c sees them.
        K: (3, 3) of both.

    Returns:
        T_ck (4, 4) float64, in the depth's unit, and the inliers (M,) bool; None if too few agree.
    """
    if len(uv_k) < config.min_inliers:
        return None
    xy = (uv_k - K[[0, 1], 2]) / K[[0, 1], [0, 1]]
    points = np.concatenate([xy, np.ones((len(xy), 1))], 1) / inv_depth_k[:, None]
    cv2.setRNGSeed(0)  # the same input gives the same pose
    found, rotation, translation, inliers = cv2.solvePnPRansac(
        points.astype(np.float64),
        uv_c.astype(np.float64),
        K,
        None,
        iterationsCount=300,
        reprojectionError=config.pnp_px,
        confidence=0.999,
        flags=cv2.SOLVEPNP_AP3P,
    )
    if not found or inliers is None or len(inliers) < config.min_inliers:
        return None
    index = inliers[:, 0]
    rotation, translation = cv2.solvePnPRefineLM(
        points[index], uv_c[index].astype(np.float64), K, None, rotation, translation
    )
    T_ck = np.eye(4)
    T_ck[:3, :3], T_ck[:3, 3] = cv2.Rodrigues(rotation)[0], translation[:, 0]
    good = np.zeros(len(uv_k), bool)
    good[index] = True
    return T_ck, good


def rank_places(
    keypoints: Keypoints, places: dict[int, Keypoints], config: KeypointConfig = KeypointConfig()
) -> list[tuple[int, int]]:
    """Which places an image shows: each keypoint votes for the place that holds the nearest one.

    Returns:
        (place, votes) of the places with any, most first.
    """
    best = np.full(len(keypoints.uv), config.min_similarity, np.float32)
    owner = np.full(len(keypoints.uv), -1)
    for n, place in places.items():
        if len(place.uv) and len(best):
            nearest = (keypoints.descriptors @ place.descriptors.T).max(1)
            owner = np.where(nearest > best, n, owner)
            best = np.maximum(best, nearest)
    counted, numbers = np.unique(owner[owner >= 0], return_counts=True)
    return sorted(zip(counted.tolist(), numbers.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
