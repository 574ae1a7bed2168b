"""The values that cross threads: frames, keyframes, estimates, snapshots, trajectories. Nobody writes them again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from slam.geometry.camera import Camera, Optics
from slam.inv_depth import InvDepth


class Status(Enum):
    """State of the tracker, visible to user and files."""

    INIT = "INIT"
    TRACKING = "TRACKING"
    LOST = "LOST"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image as a source delivers it."""

    id: int  # 0, 1, 2 ... in order of delivery
    time_ns: int
    image: np.ndarray  # (H, W, 3) uint8 RGB
    camera: Camera  # of this image, distortion included
    depth: np.ndarray | None = None  # (H, W) float32 z-depth, metres, 0 unknown; aligned to the image
    mask: np.ndarray | None = None  # (H, W) bool, False where the image does not show the scene; None: it does


def frame_of(
    image: np.ndarray, time_s: float, camera: Camera, depth: np.ndarray | None = None, before: Frame | None = None
) -> Frame:
    """The frame of an image (H, W, 3) uint8 RGB taken at `time_s`, after another one.

    Args:
        depth: (H, W) metres, 0 unknown, aligned to the image.

    Raises:
        ValueError: if the image does not fit the camera, or was not taken after the one before.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != (camera.height, camera.width, 3):
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image must be uint8 RGB of shape ({camera.height}, {camera.width}, 3), got {given}")
    if depth is not None and np.shape(depth) != image.shape[:2]:
        raise ValueError(f"depth must have the shape {image.shape[:2]} of the image, got {np.shape(depth)}")
    if not np.isfinite(time_s) or (before is not None and round(time_s * 1e9) <= before.time_ns):
        last = "" if before is None else f", the image before was taken at {before.time_ns / 1e9:g} s"
        raise ValueError(f"times must be finite and increase, got {time_s} s{last}")
    return Frame(0 if before is None else before.id + 1, round(time_s * 1e9), image, camera, depth)


@dataclass(frozen=True, eq=False)
class Image:
    """An image at network size, in the forms in which it is needed; each is made once. Equal to itself alone, so that
    what others derive from it can be kept under it."""

    rgb: np.ndarray  # (h, w, 3) uint8
    mask: np.ndarray | None = None  # (h, w) bool, False where it does not show the scene; None: it does everywhere

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @cached_property
    def gray(self) -> np.ndarray:
        """(h, w) uint8 brightness (ITU-R BT.601)."""
        import cv2

        return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)

    @property
    def channels(self) -> Tensor:
        """(3, h, w) uint8 RGB, on the memory of `rgb`."""
        return torch.from_numpy(self.rgb).permute(2, 0, 1)

    def masked(self, inv_depth: InvDepth) -> InvDepth:
        """An inverse depth (h, w) of this image, unknown where the image does not show the scene."""
        if self.mask is None:
            return inv_depth
        shown = torch.from_numpy(self.mask).to(inv_depth.device)
        return InvDepth(torch.where(shown, inv_depth.value, 0.0), inv_depth.sigma)

    def shown_cells(self, stride: int, margin: int = 0) -> Tensor | None:
        """(h / stride, w / stride) bool: all pixels of the cell, and `margin` pixels round it, show the scene; None
        without a mask."""
        if self.mask is None:
            return None
        side = stride + 2 * margin
        hidden = torch.from_numpy(~self.mask).float()[None, None]
        return torch.nn.functional.max_pool2d(hidden, side, stride, margin)[0, 0] == 0


@dataclass(frozen=True, eq=False)
class View:
    """A frame prepared for the networks: undistorted, at network size."""

    frame_id: int
    time_ns: int
    image: Image
    K: Tensor  # (3, 3) float64 at network size
    sensor_depth: np.ndarray | None = None  # (h, w) float32, metres, 0 unknown


@dataclass(frozen=True, eq=False)
class Keypoints:
    """Keypoints of one image."""

    uv: np.ndarray  # (N, 2) float32 pixels
    descriptors: np.ndarray  # (N, 128) float32, unit vectors

    @staticmethod
    def none() -> "Keypoints":
        """Of an image with nothing to see."""
        return Keypoints(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))


MIN_DECIDED = 0.05  # part of the cells whose depth is decided, for a keyframe that can show a translation
UNNUMBERED = -1  # id of a keyframe that is not in the store


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A view with pose and depth in the map. A new pose makes a new Keyframe that shares the image.

    Depth comes twice: dense, at network size, for the map; and coarse, one value for each cell of the correspondence
    (4x4 or 8x8 pixels), for tracking and optimisation, where it is refined together with the poses.
    """

    id: int
    view: View
    T_wc: Tensor  # (4, 4) float64
    dense: InvDepth  # (h, w)
    coarse: InvDepth  # (hc, wc), known everywhere
    scale: float = 1.0  # product of all corrections of this depth's scale; translations measured against it follow
    refined: bool = False  # the backend has worked on it
    parent_id: int = -1  # the keyframe it was tracked against; -1 of one that began a map
    map_id: int = 0  # the map in whose world it is: the id of the keyframe that began that
    metric: bool = False  # one map unit is a metre, by sensor depth
    dense_version: int = 0  # counts the dense depths it has had; changes of scale are none
    keypoints: Keypoints | None = None  # to know the place by, once the backend has looked
    prior: InvDepth | None = None  # (hc, wc) what its picture alone suggests, in a unit of its own
    on_guess: bool = False  # it was tracked against a depth that was a guess
    static: Tensor | None = None  # (hc, wc) how far its cells stand still, in [0, 1]; None: not known
    turned: bool = False  # the camera had hardly done more than turn since the keyframe it was tracked against

    @property
    def awaits_parallax(self) -> bool:
        """True while nothing but guesses tells of its depth and of how the camera came there."""
        return self.on_guess and self.is_guessed

    @cached_property
    def is_guessed(self) -> bool:
        """True while hardly any of its depth is more than what its picture suggests."""
        return self.prior is not None and self.coarse.decided_share < MIN_DECIDED

    def shift_px(self, T_ck: Tensor) -> float:
        """By how much the translation of a camera, (4, 4) from this one, moves what lies at the median depth."""
        return float(T_ck[:3, 3].norm() * self.view.K[0, 0]) * float(self.coarse.value.median())

    def to(self, device: torch.device) -> "Keyframe":
        """The keyframe with its depth on a device; itself if it is there."""
        if self.dense.device == self.coarse.device == device:
            return self
        prior = None if self.prior is None else self.prior.to(device)
        static = None if self.static is None else self.static.to(device)
        return replace(self, dense=self.dense.to(device), coarse=self.coarse.to(device), prior=prior, static=static)

    def on_host(self) -> "Keyframe":
        """The keyframe with its depth on the CPU, for whoever writes or draws it."""
        return self.to(torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the tracker says of one frame."""

    frame_id: int
    time_ns: int
    status: Status
    keyframe_id: int  # reference keyframe, -1 before the first
    T_ck: Tensor  # (4, 4) float64: camera from reference keyframe
    scale: float  # of the reference keyframe when T_ck was measured
    T_wc: Tensor  # (4, 4) float64, by the reference keyframe's pose at that time
    mean_confidence: float = 0.0
    inlier_ratio: float = 0.0
    visible_ratio: float = 0.0
    mean_flow_px: float = 0.0  # flow from the reference keyframe, in pixels of the network size
    metric: bool = False  # one map unit is a metre, by sensor depth
    parallax_px: float | None = None  # of the flow, besides a rotation, where the keyframe's depth is a guess


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses over time."""

    time_ns: np.ndarray  # (N,) int64, increasing
    T_wc: np.ndarray  # (N, 4, 4) float64

    def __len__(self) -> int:
        return len(self.time_ns)


@dataclass(frozen=True)
class Window:
    """What the backend works on: keyframes in order of time, the newest last."""

    keyframes: tuple[Keyframe, ...]
    active: frozenset[int] | None = None  # ids of all in the map, so that others can be forgotten; None: not told
    is_whole: bool = False  # all that their map has: no keyframe before them carries its unit


@dataclass(frozen=True)
class DensifyAndCloseLoops:
    """The backend's second job for a keyframe, for which nobody waits: dense depth by stereo, keypoints, and the search
    for a place seen before."""

    keyframe_id: int


@dataclass(frozen=True)
class Restore:
    """The backend's first job where a run begins in an earlier map."""

    keyframes: tuple[Keyframe, ...]


@dataclass(frozen=True, eq=False)
class Recalibration:
    """The camera turned out to be another than it was taken for."""

    camera: Camera  # of the frames as delivered
    before: Optics
    after: Optics

    @property
    def zoom(self) -> float:
        """How many times as long the focal length of views is."""
        return self.after.pinhole.fx / self.before.pinhole.fx

    @property
    def is_warp(self) -> bool:
        """True if the pixels of views move, and not their rays alone."""
        return self.before.delivered.is_distorted or self.after.delivered.is_distorted

    def moved(self, uv: Tensor) -> Tensor:
        """Pixels (..., 2) of views as they were -> as they are now."""
        return self.after.view_uv(self.before.source_uv(uv))

    def origin(self, uv: Tensor) -> Tensor:
        """Pixels (..., 2) of views as they are now -> as they were."""
        return self.before.view_uv(self.after.source_uv(uv))


@dataclass(frozen=True)
class Update:
    """What the backend found; the store ignores keyframes that it no longer holds."""

    keyframes: tuple[Keyframe, ...]
    seconds: dict[str, float]  # time of each stage
    recalibration: Recalibration | None = None  # the keyframes above are of the camera after it


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a keyframe is."""

    T_wc: np.ndarray  # (4, 4) float64
    scale: float  # see `Keyframe.scale`
    map_id: int = 0  # see `Keyframe.map_id`


@dataclass(frozen=True, eq=False)
class Anchor:
    """How a keyframe that left the active map follows one that stayed."""

    keyframe_id: int  # of the one that stayed
    T_ak: np.ndarray  # (4, 4) float64, from the keyframe that left to its anchor's camera ...
    anchor_scale: float  # ... in the scale that the anchor had then
    scale: float  # of the keyframe that left, at that time

    def placement(self, anchor: Placement) -> Placement:
        """Where the keyframe is now that its anchor may have moved and changed its scale."""
        scale_change = anchor.scale / self.anchor_scale
        T_ak = self.T_ak.copy()
        T_ak[:3, 3] *= scale_change
        return Placement(anchor.T_wc @ T_ak, self.scale * scale_change, anchor.map_id)


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The map at one moment, for the viewer and the writers."""

    keyframes: tuple[Keyframe, ...]  # active ones, oldest first
    estimate: Estimate | None = None  # of the last frame
    anchors: Mapping[int, Anchor] = field(default_factory=dict)  # of the keyframes that left, by their ids

    def placements(self) -> dict[int, Placement]:
        """Where all keyframes are, also those that left the active map."""
        active = {k.id: Placement(k.T_wc.numpy(), k.scale, k.map_id) for k in self.keyframes}
        return active | {n: a.placement(active[a.keyframe_id]) for n, a in self.anchors.items()}

    @property
    def map_id(self) -> int:
        """The map that the camera is in, or was in last."""
        by_id = {k.id: k.map_id for k in self.keyframes}
        newest = self.keyframes[-1].map_id if self.keyframes else 0
        return newest if self.estimate is None else by_id.get(self.estimate.keyframe_id, newest)

    def of_map(self, map_id: int) -> tuple[Keyframe, ...]:
        """The active keyframes of a map, oldest first."""
        return tuple(k for k in self.keyframes if k.map_id == map_id)


@dataclass
class Counts:
    """Frames of a run; the tracking thread counts, others get copies."""

    seen: int = 0
    tracked: int = 0
    lost: int = 0
    dropped: int = 0  # not taken from a live source in time
    skipped: int = 0  # could not be read

    def count(self, status: Status) -> None:
        """Count a frame that was placed, or not."""
        if status is Status.TRACKING:
            self.tracked += 1
        else:
            self.lost += 1


@dataclass(frozen=True)
class Progress:
    """What is published after each frame."""

    snapshot: Snapshot
    status: Status
    counts: Counts
    frame: Frame | None = None  # the newest
    waiting: str = ""  # why there is no map yet, once that takes long
