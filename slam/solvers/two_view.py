"""Relative pose of two views from point matches alone: a start that needs no guess of depth.

References: Nister, An efficient solution to the five-point relative pose problem, PAMI 2004 (by OpenCV).
"""

import cv2
import numpy as np

MIN_POINTS = 30
THRESHOLD_PX = 0.6  # distance from the epipolar line, pixels of the given intrinsics


def essential_pose(
    uv_i: np.ndarray, uv_j: np.ndarray, K: np.ndarray, threshold_px: float = THRESHOLD_PX
) -> np.ndarray | None:
    """Pose T_ji of unit translation that explains matched points best.

    Args:
        uv_i, uv_j: (N, 2) pixels of the same points in both views.
        K: (3, 3) intrinsics of both.
        threshold_px: of the robust estimate.

    Returns:
        (4, 4) float64, or None if there are too few points or they fix no motion (as with a pure rotation).
    """
    if len(uv_i) < MIN_POINTS:
        return None
    uv_i, uv_j = np.ascontiguousarray(uv_i, np.float64), np.ascontiguousarray(uv_j, np.float64)
    cv2.setRNGSeed(0)
    E, inliers = cv2.findEssentialMat(uv_i, uv_j, K, cv2.RANSAC, 0.999, threshold_px, 500)
    if E is None or E.shape != (3, 3):
        return None
    count, R, t, _ = cv2.recoverPose(E, uv_i, uv_j, K, mask=inliers)
    if count < MIN_POINTS:
        return None
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t[:, 0]
    return T
