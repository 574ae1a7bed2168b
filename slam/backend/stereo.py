"""Dense depth of a keyframe from its neighbours: plane sweep or stereo network behind one call."""

import numpy as np
import torch
from torch import Tensor

from slam.backend.optimizer import DenseDepth
from slam.classical.plane_sweep import PlaneSweepConfig, plane_sweep
from slam.frames import Keyframe, View

RANGE_MARGIN = 0.6  # of inverse depth, beyond the range seen at the cells: new surfaces come into view
MIN_CELLS = 30  # trusted cells that a range needs


def inv_depth_range(keyframe: Keyframe) -> tuple[float, float]:
    """Inverse depths to search, from the trusted cells of the keyframe."""
    trusted = keyframe.cell_inv_depth[keyframe.cell_weight > 0.3]
    d = trusted if len(trusted) >= MIN_CELLS else keyframe.cell_inv_depth.flatten()
    low, high = float(d.quantile(0.01)), float(d.quantile(0.99))
    return low * (1 - RANGE_MARGIN), high * (1 + RANGE_MARGIN)


class ClassicalStereo:
    """Plane sweep without training."""

    def __init__(self, config: PlaneSweepConfig = PlaneSweepConfig()) -> None:
        self.config = config

    def __call__(self, keyframe: Keyframe, neighbours: list[View], T_jk: list[Tensor]) -> DenseDepth:
        """See `Stereo`."""
        result = plane_sweep(
            gray(keyframe.view),
            [gray(view) for view in neighbours],
            keyframe.view.K.numpy(),
            [T.numpy() for T in T_jk],
            inv_depth_range(keyframe),
            None,
            self.config,
        )
        return DenseDepth(torch.from_numpy(result.inv_depth), torch.from_numpy(result.confidence))


def gray(view: View) -> np.ndarray:
    """(h, w) uint8 brightness of a view (ITU-R BT.601)."""
    return (view.image @ np.array([0.299, 0.587, 0.114], np.float32) + 0.5).astype(np.uint8)
