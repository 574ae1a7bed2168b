"""Tracking: one view to one pose, by Flow-SE3 against the reference keyframe."""

from dataclasses import replace

from torch import Tensor

from slam.frames import Estimate, Keyframe, Status, View
from slam.geometry import se3
from slam.matching.matcher import Match, Matcher
from slam.matching.parallax import turn_and_parallax

MIN_PARALLAX_PX = 1.5  # for a translation against a keyframe whose depth is a guess


def track(matcher: Matcher, view: View, keyframe: Keyframe, guesses: list[Tensor]) -> Estimate:
    """Place a view against a keyframe.

    Args:
        matcher: of tracking; its cells are those of `keyframe.coarse`.
        guesses: T_ck (4, 4), view from keyframe, in the keyframe's unit; tried in order until a match is good.

    Returns:
        Estimate with `T_wc` (4, 4) of the best match; status TRACKING, or LOST if no match was good.
    """
    best: Match | None = None
    for T_ck in guesses:
        match = matcher.match(keyframe.view, keyframe.coarse, view, T_ck, keyframe.static)
        if best is None or match.inlier_ratio > best.inlier_ratio:
            best = match
        if match.ok:
            best = match
            break
    assert best is not None, "track needs a guess"
    parallax_px = None
    if best.ok and keyframe.is_guessed:  # such a depth would make a translation of the errors of the flow
        turn, parallax_px = turn_and_parallax(best.target_uv, best.weight, view.K, matcher.stride)
        best = replace(best, T_ck=turn) if parallax_px < MIN_PARALLAX_PX else best
    return Estimate(
        frame_id=view.frame_id,
        time_ns=view.time_ns,
        status=Status.TRACKING if best.ok else Status.LOST,
        keyframe_id=keyframe.id,
        T_ck=best.T_ck,
        scale=keyframe.scale,
        T_wc=keyframe.T_wc @ se3.inverse(best.T_ck),
        mean_confidence=best.mean_weight,
        inlier_ratio=best.inlier_ratio,
        visible_ratio=best.visible_ratio,
        mean_flow_px=best.mean_flow_px,
        metric=keyframe.metric,
        parallax_px=parallax_px,
    )
