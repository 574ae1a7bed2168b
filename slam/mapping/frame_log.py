"""Where every frame was, in a few numbers each: an hour at 30 frames a second takes 20 MB."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from slam.frames import Estimate, Placement
from slam.geometry import se3
from slam.mapping.recalibration import recalibrated_motion

FIRST_CAPACITY = 1024


@dataclass(frozen=True, eq=False)
class FramePoses:
    """Poses of frames, in order of time."""

    frame_id: np.ndarray  # (N,) int64
    time_ns: np.ndarray  # (N,) int64
    T_wc: np.ndarray  # (N, 4, 4) float64, in the world of ...
    map_id: np.ndarray  # (N,) int64 ... this map

    def of_map(self, map_id: int) -> "FramePoses":
        """Those in one map."""
        rows = self.map_id == map_id
        return FramePoses(self.frame_id[rows], self.time_ns[rows], self.T_wc[rows], self.map_id[rows])


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

    def recalibrate(self, zoom: float) -> None:
        """All frames so far as `zoom` times as long a focal length has them."""
        T_ck = torch.from_numpy(self._T_ck[: self._count])
        self._T_ck[: self._count] = recalibrated_motion(T_ck, zoom).numpy()

    def poses(self, placements: Mapping[int, Placement]) -> FramePoses:
        """Frames by the present places and scales of their keyframes; without those whose keyframe has no place."""
        keyframe_id = self._keyframe_id[: self._count]
        (rows,) = np.nonzero(np.isin(keyframe_id, np.fromiter(placements, np.int64, len(placements))))
        rows = rows[np.argsort(self._time_ns[rows], kind="stable")]
        rows = rows[np.append(np.diff(self._frame_id[rows]) != 0, True)[: len(rows)]]  # the last word on each frame
        ids, which = np.unique(keyframe_id[rows], return_inverse=True)
        T_wk = np.array([placements[n].T_wc for n in ids.tolist()]).reshape(-1, 4, 4)[which]
        scale = np.array([placements[n].scale for n in ids.tolist()], dtype=np.float64)[which]
        map_id = np.array([placements[n].map_id for n in ids.tolist()], dtype=np.int64)[which]
        T_ck = self._T_ck[rows]
        T_ck[:, :3, 3] *= (scale / self._scale[rows])[:, None]
        T_wc = (torch.from_numpy(T_wk) @ se3.inverse(torch.from_numpy(T_ck))).numpy()
        return FramePoses(self._frame_id[rows], self._time_ns[rows], T_wc, map_id)
