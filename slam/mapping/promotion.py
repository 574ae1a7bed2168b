"""What a tracked view becomes as a keyframe, and the depth that it takes over from its reference."""

from dataclasses import replace

from torch import Tensor

from slam.frames import UNNUMBERED, Estimate, Keyframe, View
from slam.geometry.camera import scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.mapping.sensor import measured_coarse, measured_dense

TURNED_PX = 1.0  # shift at the median depth, below which a camera has only turned
CARRIED_SIGMA = 0.05  # relative, on top of its own, of a depth that was carried over to another view


def promote(
    view: View, estimate: Estimate, reference: Keyframe, stride: int, prior: InvDepth | None = None
) -> Keyframe:
    """The keyframe that a tracked view becomes, for the store to number.

    Depth is as measured by a sensor, where the map is in metres and there is one, else carried over from the
    reference keyframe, else as the picture suggests, or inpainted. The backend has not seen it yet.

    Args:
        estimate: of the view, against the reference.
        stride: side of a cell, pixels.
        prior: (hc, wc) inverse depth by the view's picture alone, in any unit.
    """
    if not reference.metric:
        view = replace(view, sensor_depth=None)  # the unit of the map is not the metre
    device = reference.coarse.device
    carried = carried_depth(reference, estimate.T_ck, stride)
    known = carried.composited(measured_coarse(view, stride, device))
    coarse = known.inpainted(prior)
    return Keyframe(
        id=UNNUMBERED,
        view=view,
        T_wc=estimate.T_wc,
        dense=view.image.masked(coarse.upsampled(view.image.size).composited(measured_dense(view, device))),
        coarse=coarse,
        parent_id=reference.id,
        metric=reference.metric,
        prior=prior,
        on_guess=estimate.parallax_px is not None,
        turned=reference.shift_px(estimate.T_ck) < TURNED_PX,
    )


def placed_anew(keyframe: Keyframe, estimate: Estimate, reference: Keyframe, stride: int) -> Keyframe:
    """A keyframe as it had become if its view had been tracked against a reference that is known better since."""
    anew = promote(keyframe.view, estimate, reference, stride, keyframe.prior)
    kept = {name: getattr(keyframe, name) for name in ("id", "view", "parent_id", "map_id", "keypoints")}
    return replace(anew, refined=True, **kept)


def carried_depth(reference: Keyframe, T_ck: Tensor, stride: int) -> InvDepth:
    """Inverse depth at the cells of a view, as far as a keyframe knows it; 0 where that sees nothing.

    Args:
        T_ck: (4, 4) the view's camera from the keyframe.
        stride: side of a cell, pixels.
    """
    warped = reference.coarse.warped(T_ck, scaled_intrinsics(reference.view.K, 1 / stride))
    return warped.with_relative_sigma((warped.relative_sigma.square() + CARRIED_SIGMA**2).sqrt())
