"""Finding the place again after tracking was lost: keyframes that show it, a first pose, and proof both ways."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slam.errors import check_range
from slam.frames import Estimate, Keyframe, Status, View
from slam.frontend.tracker import track
from slam.geometry import se3
from slam.mapping.promotion import carried_depth
from slam.mapping.store import KeyframeStore
from slam.matching.matcher import Matcher
from slam.recognition.keypoints import KeypointConfig, detect_keypoints
from slam.recognition.places import PlaceIndex
from slam.recognition.relative_pose import median_inv_depth, pose_from_keypoints

THUMBNAIL = (15, 20)  # rows and columns: small enough that a few degrees and centimetres do not matter


@dataclass(frozen=True)
class RelocaliserConfig:
    """How hard to look, and when to believe. Distances are relative to the median depth."""

    candidates: int = 2  # keyframes tried by keypoints, and as many by look
    min_votes: int = 8  # keypoints
    min_inlier_ratio: float = 0.6  # stricter than tracking: there is no motion prior
    min_visible_ratio: float = 0.4
    min_confidence: float = 0.1  # mean in view, of what the keyframe has against itself: plain walls fit plain walls
    max_cycle_deg: float = 1.5  # rotation left after going there and back
    max_cycle_shift: float = 0.04  # and translation

    def __post_init__(self) -> None:
        check_range(self, 1, 1000, "candidates", "min_votes")
        check_range(self, 0, 1, "min_inlier_ratio", "min_visible_ratio", "min_confidence")
        check_range(self, 1e-4, 180, "max_cycle_deg", "max_cycle_shift")


class Relocaliser:
    """Remembers a thumbnail of each keyframe."""

    def __init__(
        self,
        matcher: Matcher,
        config: RelocaliserConfig = RelocaliserConfig(),
        keypoints: KeypointConfig = KeypointConfig(),
    ) -> None:
        self.matcher = matcher
        self.config = config
        self.keypoints = keypoints
        self.places = PlaceIndex(keypoints)
        self._thumbnails: dict[int, Tensor] = {}  # keyframe id -> unit vector

    def find(self, view: View, store: KeyframeStore) -> Estimate:
        """The first believed match to a keyframe that shows the place; status LOST if there is none."""
        best: Estimate | None = None
        for keyframe, guess in self._guesses(view, store):
            estimate = track(self.matcher, view, keyframe, [guess])
            if self._believed(estimate, view, keyframe):
                return estimate
            if best is None or estimate.inlier_ratio > best.inlier_ratio:
                best = estimate
        assert best is not None, "the store is empty"
        return replace(best, status=Status.LOST)

    def _guesses(self, view: View, store: KeyframeStore) -> list[tuple[Keyframe, Tensor]]:
        """Keyframes and first poses (4, 4): by keypoints, then those that look most alike as if nothing had moved."""
        config = self.config
        keypoints = detect_keypoints(view.image, self.keypoints)
        self.places.follow(store.by_id)
        guesses = []
        for keyframe_id, count in self.places.rank(keypoints)[: config.candidates]:
            if count >= config.min_votes:
                T_ck = pose_from_keypoints(store[keyframe_id], keypoints, view.K.numpy(), self.keypoints)
                guesses += [(store[keyframe_id], T_ck)] if T_ck is not None else []
        return guesses + [(store[n], se3.identity()) for n in self.similar_keyframes(view, store)]

    def similar_keyframes(self, view: View, store: KeyframeStore) -> list[int]:
        """Ids of the keyframes that look most alike, best first; the newest among equals."""
        self._thumbnails = {
            k.id: self._thumbnails[k.id] if k.id in self._thumbnails else thumbnail(k.view) for k in store.keyframes
        }
        ids = [keyframe.id for keyframe in reversed(store.keyframes)]
        stored = torch.stack([self._thumbnails[k] for k in ids])
        order = (stored @ thumbnail(view)).argsort(descending=True, stable=True)[: self.config.candidates]
        return [ids[int(n)] for n in order]

    def _believed(self, estimate: Estimate, view: View, keyframe: Keyframe) -> bool:
        """True if the match is good, and so is that back from the view with the depth carried over."""
        config = self.config
        if (
            estimate.status is not Status.TRACKING
            or estimate.inlier_ratio < config.min_inlier_ratio
            or estimate.visible_ratio < config.min_visible_ratio
        ):
            return False
        least = config.min_confidence * estimate.visible_ratio
        if not self.matcher.is_of_own(estimate.mean_confidence, least, keyframe.view, keyframe.coarse):
            return False
        carried = carried_depth(keyframe, estimate.T_ck, self.matcher.stride).inpainted()
        back = self.matcher.match(view, carried, keyframe.view, se3.inverse(estimate.T_ck))
        if not back.ok or back.inlier_ratio < config.min_inlier_ratio:
            return False
        cycle = back.T_ck @ estimate.T_ck
        shift = float(cycle[:3, 3].norm()) * median_inv_depth(keyframe)
        return float(se3.angle_rad(cycle)) < math.radians(config.max_cycle_deg) and shift < config.max_cycle_shift


def thumbnail(view: View) -> Tensor:
    """Unit vector of a view's brightness, blurred to a few pixels, its mean removed: exposure does not matter."""
    gray = torch.from_numpy(view.image.gray).float()
    small = torch.nn.functional.adaptive_avg_pool2d(gray[None, None], THUMBNAIL).flatten()
    small = small - small.mean()
    return small / small.norm().clamp_min(1e-6)
