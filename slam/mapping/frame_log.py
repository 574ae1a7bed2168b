"""Where every frame was, in a few numbers each: an hour at 30 frames a second takes 20 MB."""

import numpy as np
import torch
from torch import Tensor

from slam.frames import Estimate, Keyframe
from slam.geometry import se3

FIRST_CAPACITY = 1024


class FrameLog:
    """Poses of believed frames relative to their keyframes."""

    def __init__(self) -> None:
        self._count = 0
        self._frame_id = np.zeros(FIRST_CAPACITY, np.int64)
        self._time_ns = np.zeros(FIRST_CAPACITY, np.int64)
        self._keyframe_id = np.zeros(FIRST_CAPACITY, np.int64)
        self._scale = np.zeros(FIRST_CAPACITY)
        self._T_ck = np.zeros((FIRST_CAPACITY, 4, 4))

    def __len__(self) -> int:
        return self._count

    def append(self, estimate: Estimate) -> None:
        """Remember a frame."""
        n = self._count
        if n == len(self._time_ns):
            for name, values in list(vars(self).items()):
                if isinstance(values, np.ndarray):
                    setattr(self, name, np.concatenate([values, np.zeros_like(values)]))
        self._frame_id[n], self._time_ns[n] = estimate.frame_id, estimate.time_ns
        self._keyframe_id[n], self._scale[n] = estimate.keyframe_id, estimate.scale
        self._T_ck[n] = estimate.T_ck.numpy()
        self._count += 1

    def reanchor(self, keyframe: Keyframe, anchor: Keyframe) -> None:
        """Let the frames of a keyframe, and the frame that it was, follow another one from now on, where they are."""
        T_ka = (se3.inverse(keyframe.T_wc) @ anchor.T_wc).numpy()
        rows = np.nonzero(self._keyframe_id[: self._count] == keyframe.id)[0]
        self._T_ck[rows] = self._rescaled(rows, keyframe) @ T_ka
        itself = np.nonzero(self._frame_id[: self._count] == keyframe.view.frame_id)[0]
        self._T_ck[itself] = T_ka
        moved = np.concatenate([rows, itself])
        self._keyframe_id[moved], self._scale[moved] = anchor.id, anchor.scale

    def poses(self, keyframes: dict[int, Keyframe]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frame ids (N,), times (N,) and T_wc (N, 4, 4) by the present poses and scales of the keyframes, in order of
        time."""
        T_wc = np.zeros((self._count, 4, 4))
        for keyframe_id in np.unique(self._keyframe_id[: self._count]):
            rows = np.nonzero(self._keyframe_id[: self._count] == keyframe_id)[0]
            keyframe = keyframes[int(keyframe_id)]
            T_ck: Tensor = torch.from_numpy(self._rescaled(rows, keyframe))
            T_wc[rows] = (keyframe.T_wc @ se3.inverse(T_ck)).numpy()
        order = np.argsort(self._time_ns[: self._count], kind="stable")
        return self._frame_id[order], self._time_ns[order], T_wc[order]

    def _rescaled(self, rows: np.ndarray, keyframe: Keyframe) -> np.ndarray:
        """T_ck of some frames in the keyframe's present scale."""
        T_ck = self._T_ck[rows].copy()
        T_ck[:, :3, 3] *= (keyframe.scale / self._scale[rows])[:, None]
        return T_ck
