"""Finding the place again after tracking was lost: the most similar stored keyframes, by a thumbnail."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from slam.errors import check_range
from slam.frames import Estimate, Status, View
from slam.frontend.tracker import track
from slam.mapping.matching import Matcher
from slam.mapping.store import KeyframeStore, identity

THUMBNAIL = (15, 20)  # rows and columns: small enough that a few degrees and centimetres do not matter


@dataclass(frozen=True)
class RelocaliserConfig:
    """How hard to look, and when to believe."""

    candidates: int = 3  # keyframes tried for each lost frame
    min_inlier_ratio: float = 0.6  # stricter than tracking: there is no motion prior
    min_visible_ratio: float = 0.4

    def __post_init__(self) -> None:
        check_range(self, 1, 1000, "candidates")
        check_range(self, 0, 1, "min_inlier_ratio", "min_visible_ratio")


class Relocaliser:
    """Remembers a thumbnail of each keyframe."""

    def __init__(self, matcher: Matcher, config: RelocaliserConfig = RelocaliserConfig()) -> None:
        self.matcher = matcher
        self.config = config
        self._thumbnails: dict[int, Tensor] = {}  # keyframe id -> unit vector

    def find(self, view: View, store: KeyframeStore) -> Estimate:
        """The best of the matches to similar keyframes; status LOST if none is believed."""
        best: Estimate | None = None
        for keyframe_id in self._similar(view, store):
            estimate = track(self.matcher, view, store[keyframe_id], [identity()])
            if best is None or estimate.inlier_ratio > best.inlier_ratio:
                best = estimate
        assert best is not None, "the store is empty"
        believed = (
            best.status is Status.TRACKING
            and best.inlier_ratio >= self.config.min_inlier_ratio
            and best.visible_ratio >= self.config.min_visible_ratio
        )
        return best if believed else lost(best)

    def _similar(self, view: View, store: KeyframeStore) -> list[int]:
        """Ids of the keyframes that look most alike, best first; the newest among equals."""
        for keyframe in store.keyframes:
            if keyframe.id not in self._thumbnails:
                self._thumbnails[keyframe.id] = thumbnail(keyframe.view)
        ids = [keyframe.id for keyframe in reversed(store.keyframes)]
        stored = torch.stack([self._thumbnails[k] for k in ids])
        order = (stored @ thumbnail(view)).argsort(descending=True, stable=True)[: self.config.candidates]
        return [ids[int(n)] for n in order]


def thumbnail(view: View) -> Tensor:
    """Unit vector of a view's brightness, blurred to a few pixels, its mean removed: exposure does not matter."""
    gray = torch.from_numpy(view.image).float().mean(-1)
    small = torch.nn.functional.adaptive_avg_pool2d(gray[None, None], THUMBNAIL).flatten()
    small = small - small.mean()
    return small / small.norm().clamp_min(1e-6)


def lost(estimate: Estimate) -> Estimate:
    """The same estimate, not believed."""
    return replace(estimate, status=Status.LOST)
