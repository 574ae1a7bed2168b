"""Moving keyframes to another place and scale."""

from dataclasses import replace

from torch import Tensor

from slam.frames import Keyframe
from slam.geometry import se3


def rescaled(keyframe: Keyframe, T_wc: Tensor, scale_change: float) -> Keyframe:
    """The keyframe at a new pose (4, 4), its depth `scale_change` times as large."""
    return replace(
        keyframe,
        T_wc=T_wc,
        dense=keyframe.dense.rescaled(scale_change),
        coarse=keyframe.coarse.rescaled(scale_change),
        scale=keyframe.scale * scale_change,
    )


def carried_along(keyframe: Keyframe, before: Keyframe, after: Keyframe) -> Keyframe:
    """A keyframe as it is after another, that it was placed by, was moved and rescaled from `before` to `after`."""
    scale_change = after.scale / before.scale  # its depth was divided by it
    T_relative = se3.scaled_translation(se3.inverse(before.T_wc) @ keyframe.T_wc, scale_change)
    return rescaled(
        keyframe, se3.orthonormalised(after.T_wc @ T_relative), scale_change
    )  # rounding adds up along a chain
