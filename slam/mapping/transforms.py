"""Moving poses and keyframes to another place and scale."""

from dataclasses import replace

from torch import Tensor

from slam.frames import Keyframe
from slam.geometry import se3


def rescaled(T: Tensor, factor: float) -> Tensor:
    """The pose (4, 4) with its translation multiplied."""
    T = T.clone()
    T[:3, 3] *= factor
    return T


def grown(keyframe: Keyframe, T_wc: Tensor, growth: float) -> Keyframe:
    """The keyframe at a new pose (4, 4), its depth `growth` times as large."""
    return replace(
        keyframe,
        T_wc=T_wc,
        dense=keyframe.dense.rescaled(growth),
        coarse=keyframe.coarse.rescaled(growth),
        scale=keyframe.scale * growth,
    )


def carried_along(keyframe: Keyframe, before: Keyframe, after: Keyframe) -> Keyframe:
    """A keyframe as it is after another, that it was placed by, has moved and grown from `before` to `after`."""
    growth = after.scale / before.scale  # its depth was divided by it
    T_relative = rescaled(se3.inverse(before.T_wc) @ keyframe.T_wc, growth)
    return grown(keyframe, se3.orthonormalised(after.T_wc @ T_relative), growth)  # rounding adds up along a chain
