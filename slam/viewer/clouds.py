"""The points of keyframes, made on a thread of their own and kept below a number that can be drawn."""

from dataclasses import dataclass, replace

import numpy as np

from slam.frames import Keyframe
from slam.io.ply import PointCloud
from slam.mapping.fusion import FusionConfig, keyframe_cloud, nearest_keyframes
from slam.threads import Worker
from slam.viewer.view_state import ViewState

NEVER_THINNED = 3  # clouds that are never subsampled
MAX_JOBS = 16  # clouds being made at once


@dataclass(frozen=True)
class KeyframePoints:
    """The points of one keyframe, and of what they were made."""

    id: int
    dense_version: int  # of the keyframe
    scale: float  # of the keyframe; later changes of it only stretch the points
    min_confidence: float
    cloud: PointCloud  # camera frame, in random order: any beginning of it is a thinner cloud

    def fits(self, keyframe: Keyframe, min_confidence: float) -> bool:
        """True if the keyframe's points would be the same again."""
        return self.dense_version == keyframe.dense_version and self.min_confidence == min_confidence

    def stretch(self, keyframe: Keyframe) -> float:
        """How many times as large the points are to be drawn, now that the keyframe's scale is another."""
        return keyframe.scale / self.scale


Job = tuple[Keyframe, list[Keyframe], float]


class Clouds:
    """Keeps the points of keyframes up to date; used by one thread, which never waits here."""

    def __init__(self, max_points: int) -> None:
        self.max_points = max_points
        self.points: dict[int, KeyframePoints] = {}
        self._worker: Worker[Job, KeyframePoints] = Worker(keyframe_points, "clouds", capacity=MAX_JOBS)
        self._asked: dict[int, Job] = {}

    @property
    def is_busy(self) -> bool:
        """True if points are being made."""
        return bool(self._asked)

    def update(self, shown: ViewState, min_confidence: float) -> set[int]:
        """Collect what is ready and ask for what is missing or outdated, the newest first.

        Returns:
            Keyframes whose points are others now, or gone with their keyframe.
        """
        known = {keyframe.id for keyframe in shown.keyframes}
        changed = self.points.keys() - known
        for i in changed:
            del self.points[i]
        for done in self._worker.results():
            del self._asked[done.id]
            if done.id in known:
                self.points[done.id] = done
                changed.add(done.id)
        for n in reversed(range(len(shown.keyframes))):
            keyframe = shown.keyframes[n]
            if len(self._asked) >= MAX_JOBS:
                break
            done_before = self.points.get(keyframe.id)
            if keyframe.id in self._asked or (done_before and done_before.fits(keyframe, min_confidence)):
                continue
            job = (keyframe, nearest_keyframes(shown.keyframes, n, FusionConfig.neighbours), min_confidence)
            if self._worker.try_submit(job):
                self._asked[keyframe.id] = job
        return changed | self._thinned()

    def _thinned(self) -> set[int]:
        """Halve the largest of the older clouds while there are too many points; the keyframes changed."""
        changed: set[int] = set()
        old = sorted(self.points)[:-NEVER_THINNED]
        total = sum(len(one.cloud) for one in self.points.values())
        while old and total > self.max_points:
            largest = self.points[max(old, key=lambda i: len(self.points[i].cloud))]
            half = len(largest.cloud) // 2
            total -= len(largest.cloud) - half
            self.points[largest.id] = replace(largest, cloud=beginning(largest.cloud, half))
            changed.add(largest.id)
        return changed

    def close(self) -> None:
        """End the thread."""
        self._worker.close()


def keyframe_points(job: Job) -> KeyframePoints:
    """The points of a keyframe that its neighbours confirm."""
    keyframe, others, min_confidence = job
    cloud = keyframe_cloud(keyframe, others, FusionConfig(min_confidence=min_confidence))
    assert cloud.colors is not None
    order = np.random.default_rng(keyframe.id).permutation(len(cloud))
    shuffled = PointCloud(cloud.points[order], cloud.colors[order])
    return KeyframePoints(keyframe.id, keyframe.dense_version, keyframe.scale, min_confidence, shuffled)


def beginning(cloud: PointCloud, count: int) -> PointCloud:
    """The first points of a cloud."""
    assert cloud.colors is not None
    return PointCloud(cloud.points[:count], cloud.colors[:count])
