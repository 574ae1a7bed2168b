"""How consistent the depth of a stretch of video is, without truth: for `metrics.json`, before and after."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F

from slam.errors import EvaluationError
from slam.evaluation.consistency import photometric_error, temporal_alignment_errors
from slam.evaluation.track_consistency import track_drift, track_instability
from slam.geometry.camera import sample, scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.matching.tracks import Tracks, flow_tracks
from slam.networks.prior import STRIDE
from slam.refinement.refiner import Refined

PHOTOMETRIC_GAP = 5  # frames


def consistency_scores(refined: Refined) -> dict[str, Any]:
    """Scores before and after, at cells, where nothing moves; what cannot be told is left out."""
    tracks = _static_tracks(refined)
    before = _scores(refined, refined.before, tracks)
    return {"before": before, "after": _scores(refined, refined.after, tracks) if refined.accepted else before}


def mean_scores(parts: Sequence[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    """Mean of the scores of several stretches by their number of frames; of each score over those that have it."""
    names = {name: value for scores, _ in parts for name, value in scores.items()}
    found: dict[str, Any] = {}
    for name, example in names.items():
        has = [(scores[name], frames) for scores, frames in parts if name in scores]
        if isinstance(example, dict):
            found[name] = mean_scores(has)
        else:
            found[name] = sum(value * frames for value, frames in has) / max(sum(frames for _, frames in has), 1)
    return found


def _scores(refined: Refined, maps: Sequence[InvDepth], tracks: Tracks) -> dict[str, Any]:
    clip, K = refined.clip, scaled_intrinsics(refined.clip.K, 1 / STRIDE)
    inv_depth = F.avg_pool2d(torch.stack([d.value for d in maps])[:, None], STRIDE)[:, 0]
    images = torch.stack([F.avg_pool2d(view.image.channels[None].float() / 255, STRIDE)[0] for view in clip.views])
    still = refined.static > 0.5
    errors = temporal_alignment_errors(inv_depth, clip.T_wc, K, still)
    scores: dict[str, Any] = {"temporal_alignment_percent": {str(gap): error for gap, error in errors.items()}}
    asked: dict[str, Callable[[], float]] = {
        "photometric": lambda: photometric_error(images, inv_depth, clip.T_wc, K, PHOTOMETRIC_GAP, still),
        "instability": lambda: track_instability(tracks, inv_depth, clip.T_wc, K),
        "drift": lambda: track_drift(tracks, inv_depth, clip.T_wc, K),
    }
    for name, score in asked.items():
        if name != "photometric" or len(clip) > PHOTOMETRIC_GAP:
            with suppress(EvaluationError):  # too little in common: the others are there
                scores[name] = score()
    return scores


def _static_tracks(refined: Refined) -> Tracks:
    """Tracks through the images, at cells, where nothing moves."""
    tracks = flow_tracks([view.image.gray for view in refined.clip.views])
    uv = (tracks.uv + 0.5) / STRIDE - 0.5
    by_frame = uv.transpose(0, 1)[:, None]  # (N, 1, T, 2)
    still = sample(refined.static[:, None], by_frame, padding="border")[:, 0, 0].mT > 0.5
    return Tracks(uv, tracks.visible & still)
