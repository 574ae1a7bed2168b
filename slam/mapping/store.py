"""The keyframe store: the map. The tracking thread alone changes it."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from slam.errors import OutputError
from slam.frames import (
    Anchor,
    Estimate,
    Keyframe,
    Placement,
    Recalibration,
    Snapshot,
    Status,
    Trajectory,
    Update,
    View,
    Window,
)
from slam.geometry import se3
from slam.mapping.archive import Archive
from slam.mapping.culling import most_redundant, view_distances
from slam.mapping.frame_log import FrameLog, FramePoses
from slam.mapping.recalibration import recalibrated, recalibrated_by
from slam.mapping.transforms import carried_along, rescaled
from slam.memory import release_freed

log = logging.getLogger(__name__)

RELEASE_EVERY = 20  # keyframes between two returns of freed memory


class ArchivedView(NamedTuple):
    """Of a keyframe that left the active map."""

    frame_id: int
    time_ns: int


class KeyframeStore:
    """Keyframes in order of time, and every frame's pose relative to its reference keyframe."""

    def __init__(self, archive: Path | None = None) -> None:
        """`archive`: folder for keyframes that leave the active map; None: a temporary one."""
        self._keyframes: dict[int, Keyframe] = {}
        self._archived: dict[int, ArchivedView] = {}  # what is asked of them while they lie on the disk
        self._anchors: dict[int, Anchor] = {}  # of those; a new dict at each change
        self._archive = Archive(archive)
        self._log = FrameLog()
        self._last: Estimate | None = None
        self._changes: list[Recalibration] = []  # of the camera
        self._next_id = 0
        self._disk_refused = False  # to take keyframes

    def __len__(self) -> int:
        return len(self._keyframes)

    def __contains__(self, keyframe_id: int) -> bool:
        return keyframe_id in self._keyframes

    def __getitem__(self, keyframe_id: int) -> Keyframe:
        return self._keyframes[keyframe_id]

    @property
    def keyframes(self) -> tuple[Keyframe, ...]:
        """The active keyframes, oldest first."""
        return tuple(self._keyframes.values())

    @property
    def by_id(self) -> Mapping[int, Keyframe]:
        """The active keyframes as they are at any time, to look at."""
        return MappingProxyType(self._keyframes)

    def everything(self) -> tuple[Keyframe, ...]:
        """All keyframes ever, oldest first; of those that left, see `archived`."""
        everything = self._keyframes | {k.id: k for k in self.archived()}
        return tuple(everything[n] for n in sorted(everything))

    def archived(self) -> Iterator[Keyframe]:
        """Keyframes that left the active map, oldest first, as they are placed now; their arrays are paged in from the
        disk. Without those whose files somebody removed: a WARNING says so."""
        placements, gone = self.snapshot().placements(), []
        for n in sorted(self._archived):
            try:
                keyframe = recalibrated_by(self._archive.load(n), self._changes)
            except OutputError as error:
                gone.append(error)
                continue
            at = placements[n]
            yield rescaled(keyframe, torch.from_numpy(at.T_wc), at.scale / keyframe.scale, at.map_id)
        if gone:
            log.warning("%s; the map is without %d of them", gone[0], len(gone))

    def move_archived(self, T_wc: Mapping[int, Tensor]) -> None:
        """Move keyframes that left the active map to other places (4, 4) in it, and their frames with them."""
        placements = self.snapshot().placements()
        moved = {n: replace(placements[n], T_wc=T.numpy()) for n, T in T_wc.items()}
        self._anchors = self._anchors | self._anchored(moved)

    def add(self, keyframe: Keyframe) -> Keyframe:
        """Insert a keyframe after all others; returned with its id, and its rotation made exact. It is of
        its parent's map; without a parent it begins one.

        `keyframe` has T_wc (4, 4), `dense` (h, w) at the size of its image and `coarse` (hc, wc).
        """
        T_wc = se3.orthonormalised(keyframe.T_wc)  # rounding adds up along a chain
        parent = self._keyframes.get(keyframe.parent_id)
        map_id = self._next_id if parent is None else parent.map_id
        keyframe = replace(keyframe, id=self._next_id, map_id=map_id, T_wc=T_wc)
        self._keyframes[keyframe.id] = keyframe
        self._next_id += 1
        if self._next_id % RELEASE_EVERY == 0:
            release_freed()
        return keyframe

    def archive_in(self, folder: Path) -> None:
        """Where evicted keyframes go, unless there are some already."""
        if not self._archived:
            self._archive = Archive(folder)

    def restore(self, keyframes: list[Keyframe]) -> None:
        """Begin with the keyframes of an earlier map."""
        assert not self._next_id, "only an empty store can be restored"
        self._keyframes = {keyframe.id: keyframe for keyframe in keyframes}
        self._next_id = max(self._keyframes) + 1

    def make_room(self, limit: int, recent: int, reference_id: int) -> None:
        """Let the most redundant keyframes leave the active map while it holds more than `limit`.

        Neither those that began a map, nor the `recent` last, nor the reference leave. If the disk refuses one, a
        WARNING says so, and all stay from there on.
        """
        while len(self) > limit and not self._disk_refused:
            keyframes = self.keyframes
            protected = {k.id for k in keyframes[-recent:]} | {k.id for k in keyframes if k.parent_id < 0}
            protected |= {reference_id}
            spare = most_redundant(keyframes, protected)
            if spare is None:
                return
            try:
                self.evict(spare.id)
            except OutputError as error:
                self._disk_refused = True
                log.warning("%s; all keyframes stay in memory from here", error)

    def evict(self, keyframe_id: int) -> None:
        """Take a keyframe, none that began a map, out of the active map: its data goes to the disk, its frames follow
        the keyframe whose view is nearest, its children its parent, or the one before in its map.

        Raises:
            OutputError: if the disk refuses; the keyframe then stays.
        """
        keyframe = self._keyframes[keyframe_id]
        self._archive.store(keyframe)
        self._archived[keyframe_id] = ArchivedView(keyframe.view.frame_id, keyframe.view.time_ns)
        own = Placement(keyframe.T_wc.numpy(), keyframe.scale, keyframe.map_id)
        left = {n: a.placement(own) for n, a in self._anchors.items() if a.keyframe_id == keyframe_id}
        left[keyframe_id] = own
        del self._keyframes[keyframe_id]
        self._anchors = self._anchors | self._anchored(left)
        parent = self._keyframes.get(keyframe.parent_id) or self._before(keyframe)
        for child in self.keyframes:
            if child.parent_id == keyframe_id:
                self._keyframes[child.id] = replace(child, parent_id=parent.id)

    def _anchored(self, left: Mapping[int, Placement]) -> dict[int, Anchor]:
        """Keyframes that left the active map by their places relative to those of their map whose views are nearest."""
        anchors = {}
        for map_id in {placement.map_id for placement in left.values()}:
            own = {n: placement for n, placement in left.items() if placement.map_id == map_id}
            active = [k for k in self.keyframes if k.map_id == map_id]
            T_wc = torch.from_numpy(np.stack([placement.T_wc for placement in own.values()]))
            nearest = view_distances(active, T_wc).argmin(-1).tolist()
            for (n, placement), k in zip(own.items(), (active[at] for at in nearest), strict=True):
                T_kn = np.linalg.inv(k.T_wc.numpy()) @ placement.T_wc
                anchors[n] = Anchor(k.id, T_kn, k.scale, placement.scale)
        return anchors

    def _before(self, keyframe: Keyframe) -> Keyframe:
        """The active keyframe before one in its map."""
        return self._keyframes[
            max(n for n, k in self._keyframes.items() if n < keyframe.id and k.map_id == keyframe.map_id)
        ]

    def record(self, estimate: Estimate) -> None:
        """Remember a frame's pose relative to its keyframe."""
        self._last = estimate
        if estimate.status is Status.TRACKING:
            self._log.append(estimate)

    def last_estimate(self) -> Estimate | None:
        """What the tracker said of the last frame."""
        return self._last

    def window(self, keyframe_id: int, size: int, at_first: int = 0) -> Window:
        """A keyframe and those it was tracked from, up to `size`, itself last; all of a map that has no more than
        `at_first`."""
        map_id = self._keyframes[keyframe_id].map_id
        count = sum(k.map_id == map_id for k in self._keyframes.values())
        size = count if count <= at_first else size
        chain: list[Keyframe] = []
        while keyframe_id in self._keyframes and len(chain) < size:
            chain.append(self._keyframes[keyframe_id])
            keyframe_id = chain[-1].parent_id
        is_whole = len(chain) == count and chain[-1].id == map_id
        return Window(tuple(reversed(chain)), frozenset(self._keyframes), is_whole)

    def apply(self, update: Update) -> None:
        """Take over refined keyframes. Those that the backend has not seen yet move along with their parents."""
        change = update.recalibration
        if change is not None:
            self._changes.append(change)
            self._keyframes = {n: recalibrated(k, change) for n, k in self._keyframes.items()}
            self._log.recalibrate(change.zoom)
        after = {
            k.id: k if k.parent_id == known.parent_id else replace(k, parent_id=known.parent_id)
            for k in update.keyframes
            if (known := self._keyframes.get(k.id)) is not None
        }
        for keyframe in self.keyframes:  # parents come first
            if keyframe.id not in after and not keyframe.refined and keyframe.parent_id in after:
                before = self._keyframes[keyframe.parent_id]
                after[keyframe.id] = carried_along(keyframe, before, after[keyframe.parent_id])
        self._keyframes |= after  # keeps the order

    def pose_of(self, estimate: Estimate) -> Tensor:
        """T_wc (4, 4) of a frame by the present pose and scale of its keyframe, which must be active."""
        keyframe = self._keyframes[estimate.keyframe_id]
        return keyframe.T_wc @ se3.inverse(se3.scaled_translation(estimate.T_ck, keyframe.scale / estimate.scale))

    def as_of(self, estimate: Estimate, keyframe_id: int) -> Estimate:
        """The estimate of a frame told relative to another active keyframe."""
        keyframe, T_wc = self._keyframes[keyframe_id], self.pose_of(estimate)
        T_ck = se3.orthonormalised(se3.inverse(T_wc) @ keyframe.T_wc)
        return replace(estimate, keyframe_id=keyframe_id, T_ck=T_ck, scale=keyframe.scale, T_wc=T_wc)

    def map_ids(self) -> list[int]:
        """The maps that nothing has joined, that with most frames first; one, unless the camera was lost."""
        ids, count = np.unique(self.frame_poses().map_id, return_counts=True)
        frames = dict(zip(ids.tolist(), count.tolist(), strict=True))
        return sorted({k.map_id for k in self._keyframes.values()}, key=lambda n: (-frames.get(n, 0), n))

    def trajectory(self, map_id: int | None = None) -> Trajectory:
        """Every frame that has a pose in a map, that with most frames unless told: a keyframe's own, or by its keyframe
        as it is now."""
        if not len(self):
            return Trajectory(np.zeros(0, np.int64), np.zeros((0, 4, 4)))
        frames = self.frame_poses().of_map(self.map_ids()[0] if map_id is None else map_id)
        return Trajectory(frames.time_ns, frames.T_wc)

    def frame_poses(self) -> FramePoses:
        """Poses of all frames in order of time, in the worlds of their maps."""
        placements = self.snapshot().placements()
        own = {view.frame_id: placements[n].T_wc for n, view in self._views()}
        frames = self._log.poses(placements)
        for n, frame_id in enumerate(frames.frame_id.tolist()):
            frames.T_wc[n] = own.get(frame_id, frames.T_wc[n])
        return frames

    def keyframe_trajectory(self, map_id: int | None = None) -> Trajectory:
        """Poses of all keyframes that this run made in a map; None: in that with most frames."""
        placements = self.snapshot().placements()
        if map_id is None and placements:
            map_id = self.map_ids()[0]
        own = [(n, v) for n, v in self._views() if v.frame_id >= 0 and placements[n].map_id == map_id]
        return Trajectory(
            np.array([view.time_ns for _, view in own], dtype=np.int64),
            np.array([placements[n].T_wc for n, _ in own], dtype=np.float64).reshape(-1, 4, 4),
        )

    def _views(self) -> list[tuple[int, View | ArchivedView]]:
        """Ids and views of all keyframes, oldest first."""
        views = {n: k.view for n, k in self._keyframes.items()} | self._archived
        return sorted(views.items(), key=itemgetter(0))

    def snapshot(self) -> Snapshot:
        """The map as it is, with the last estimate; cheap, nothing is copied."""
        return Snapshot(self.keyframes, self._last, self._anchors)

    def close(self) -> None:
        """Remove the files of evicted keyframes, which cannot be used afterwards."""
        self._archive.close()
