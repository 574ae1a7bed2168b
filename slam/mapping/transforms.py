"""Moving keyframes to another place and scale."""

from dataclasses import replace

from torch import Tensor

from slam.frames import Keyframe
from slam.geometry import se3


def rescaled(keyframe: Keyframe, T_wc: Tensor, scale_change: float, map_id: int | None = None) -> Keyframe:
    """The keyframe at a new pose (4, 4), its depth `scale_change` times as large; of another map, if one is given."""
    return replace(
        keyframe,
        map_id=keyframe.map_id if map_id is None else map_id,
        T_wc=T_wc,
        dense=keyframe.dense.rescaled(scale_change),
        coarse=keyframe.coarse.rescaled(scale_change),
        scale=keyframe.scale * scale_change,
    )


def carried_along(keyframe: Keyframe, before: Keyframe, after: Keyframe) -> Keyframe:
    """A keyframe as it is after another, that it was placed by, was moved and rescaled from `before` to `after`."""
    scale_change = after.scale / before.scale  # its depth was divided by it
    T_relative = se3.scaled_translation(se3.inverse(before.T_wc) @ keyframe.T_wc, scale_change)
    T_wc = se3.orthonormalised(after.T_wc @ T_relative)  # rounding adds up along a chain
    return replace(rescaled(keyframe, T_wc, scale_change, after.map_id), metric=after.metric)
