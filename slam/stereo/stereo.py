"""Dense depth of a keyframe from its neighbours: plane sweep or stereo network behind one call."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from slam.frames import Keyframe, View
from slam.mapping.warp import confidence_from_sigma
from slam.networks.motion import FlowSE3, ImageFeatures
from slam.networks.stereo import StereoNet
from slam.stereo.plane_sweep import PlaneSweepConfig, plane_sweep

RANGE_MARGIN = 0.6  # of inverse depth, beyond the range seen at the cells: new surfaces come into view
CERTAIN = 0.3  # of a cell that counts for the range
MIN_CELLS = 30  # certain cells that a range needs
RECENT_VIEWS = 8  # whose features are kept: a keyframe is a neighbour of those that follow
CONFIDENT_DEVIATION = 0.12  # relative standard deviation at which the confidence is one half


@dataclass(frozen=True)
class DenseDepth:
    """A dense depth map and its confidence."""

    inv_depth: Tensor  # (h, w) float32
    confidence: Tensor  # (h, w) float32 in [0, 1]


# stereo(keyframe, neighbours, T_jk (4, 4) of each)
Stereo = Callable[[Keyframe, list[View], list[Tensor]], DenseDepth]


def inv_depth_range(keyframe: Keyframe) -> tuple[float, float]:
    """Inverse depths to search, from the certain cells of the keyframe."""
    certain = keyframe.cell_inv_depth[confidence_from_sigma(keyframe.cell_inv_depth, keyframe.cell_sigma) > CERTAIN]
    d = certain if len(certain) >= MIN_CELLS else keyframe.cell_inv_depth.flatten()
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
            config=self.config,
        )
        return DenseDepth(torch.from_numpy(result.inv_depth), torch.from_numpy(result.confidence))


class LearnedStereo:
    """The stereo network; `motion` owns the encoder that both networks share."""

    def __init__(self, motion: FlowSE3, stereo: StereoNet) -> None:
        self.motion = motion
        self.stereo = stereo
        self._encoded = lru_cache(RECENT_VIEWS)(lambda view: motion.encode(batched(view.image))[0])

    def __call__(self, keyframe: Keyframe, neighbours: list[View], T_jk: list[Tensor]) -> DenseDepth:
        """See `Stereo`."""
        low, high = (torch.tensor([d]) for d in inv_depth_range(keyframe))
        with torch.inference_mode():
            inv_depth, sigma = self.stereo(
                [self._features(keyframe.view)],
                [[self._features(view)] for view in neighbours],
                torch.stack(T_jk)[None],
                keyframe.view.K[None],
                low,
                high,
            )
        confidence = 1 / (1 + (sigma / inv_depth.clamp_min(1e-6) / CONFIDENT_DEVIATION).square())
        return DenseDepth(inv_depth[0].float(), confidence[0].float())

    def _features(self, view: View) -> ImageFeatures:
        """Of the encoder; most views carry none of them, or not for long."""
        return view.features if isinstance(view.features, ImageFeatures) else self._encoded(view)


def batched(image: np.ndarray) -> Tensor:
    """(1, 3, h, w) float in [0, 1] of an RGB image (h, w, 3) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255


def gray(view: View) -> np.ndarray:
    """(h, w) uint8 brightness of a view (ITU-R BT.601)."""
    return (view.image @ np.array([0.299, 0.587, 0.114], np.float32) + 0.5).astype(np.uint8)
