"""Unit quaternions `quat_xyzw` (Hamilton, w last) as files hold them; everything else uses matrices."""

import numpy as np


def matrix_from_quat_xyzw(quat_xyzw: np.ndarray) -> np.ndarray:
    """Quaternions (N, 4) of any positive length -> rotation matrices (N, 3, 3)."""
    x, y, z, w = (quat_xyzw / np.linalg.norm(quat_xyzw, axis=-1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def quat_xyzw_from_matrix(R: np.ndarray) -> np.ndarray:
    """Rotation matrices (N, 3, 3) -> unit quaternions (N, 4) with w >= 0.

    The eigenvector form is exact near every angle and gives the nearest rotation of a slightly skewed matrix.

    Reference: Bar-Itzhack, New method for extracting the quaternion from a rotation matrix, JGCD 2000.
    """
    K = np.zeros((len(R), 4, 4))
    trace = np.trace(R, axis1=-2, axis2=-1)
    K[:, :3, :3] = R + np.swapaxes(R, -1, -2) - trace[:, None, None] * np.eye(3)
    K[:, :3, 3] = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], -1)
    K[:, 3, :3] = K[:, :3, 3]
    K[:, 3, 3] = trace
    quat_xyzw = np.linalg.eigh(K)[1][..., -1]  # eigenvalues ascend: the last is the largest
    return np.where(quat_xyzw[:, 3:] < 0, -quat_xyzw, quat_xyzw)
