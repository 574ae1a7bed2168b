"""Recordings without truth, to learn from: frames at network size, with the poses and depths that the system found.

A video has one unit of length, its map's: it is one segment. Depth is kept only where the stereo depth of a keyframe is
confident and another keyframe measured the same, since the deviation that stereo gives is too small on recordings; from
there it is carried to the frames about the keyframe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from slam.errors import SourceError
from slam.frames import Frame, Keyframe, Trajectory
from slam.frontend.preparation import Preparation
from slam.geometry import se3
from slam.geometry.camera import sample, scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.inv_depth import InvDepth
from slam.io.tensor_file import read_header, read_tensors, write_tensors
from slam.networks.prior import STRIDE
from slam.sources import Source
from slam.training.losses import inconsistency

CONFIDENT = 0.5  # confidence of stereo from which a depth may count
SAME_DEPTH = 0.05  # inconsistency up to which two keyframes have measured the same
COMPARED = 4  # keyframes before and after one that it is compared with
MAX_FRAMES = 4000  # kept of a recording, 150 kB each at 256x192; of longer ones every second frame, every third ...
MIN_TRACKED = 0.5  # share of the frames that must have a pose


@dataclass(frozen=True, eq=False)
class Video:
    """Frames in order of time. Without poses T_wc is empty and no depth is known."""

    name: str
    images: Tensor  # (N, 3, H, W) uint8 RGB
    time_ns: Tensor  # (N,) int64
    K: Tensor  # (3, 3) float64
    T_wc: Tensor  # (N, 4, 4) float64, map units
    inv_depth: Tensor  # (N, H / STRIDE, W / STRIDE) float32, 1 / map unit; 0 where not certain
    relative_sigma: Tensor  # (N, H / STRIDE, W / STRIDE) float32 of the inverse depth

    @property
    def has_poses(self) -> bool:
        """False of a video whose motion is to be learned too."""
        return len(self.T_wc) > 0

    def save(self, path: Path, key: str) -> None:
        """Write a file; `key` says what the video was made of."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        write_tensors(path, tensors, {"name": self.name, "key": key})

    @staticmethod
    def load(path: Path, key: str) -> "Video | None":
        """A video that was saved; None if there is none, or it was made of something else."""
        if not path.is_file():
            return None
        try:
            metadata, _ = read_header(path)
            return Video(metadata["name"], **read_tensors(path)) if metadata.get("key") == key else None
        except (ValueError, TypeError, KeyError) as error:
            raise SourceError(f"{path} is no prepared video ({error}); delete it") from error


def read_video(name: str, source: Source, pixels: int) -> Video:
    """The frames of a source alone.

    Args:
        pixels: width times height of the network's images.

    Raises:
        SourceError: if the frames cannot be read.
    """
    step = -(-(source.count or 0) // MAX_FRAMES) or 1
    images, times, prepare = [], [], Preparation(source.camera, pixels)
    for n, frame in enumerate(source):
        if n % step == 0:
            images.append(_image(prepare, frame))
            times.append(frame.time_ns)
    if not images:
        raise SourceError(f"{name} has no frames")
    none = torch.zeros(len(images), *(side // STRIDE for side in images[0].shape[1:]))
    return Video(
        name=name,
        images=torch.stack(images),
        time_ns=torch.tensor(times),
        K=prepare.camera.matrix(),
        T_wc=torch.zeros(0, 4, 4, dtype=torch.float64),
        inv_depth=none,
        relative_sigma=none,
    )


def tracked_video(
    name: str, source: Source, pixels: int, trajectory: Trajectory, keyframes: Sequence[Keyframe]
) -> Video:
    """The frames of a source that a finished run has placed, with its depths.

    Args:
        source: of the run; its frames are read again, and matched by their time.
        pixels: width times height of the network's images.
        trajectory: final T_wc of the frames, map units.
        keyframes: final, with dense depth.

    Raises:
        SourceError: if the frames cannot be read, or too few of them have a pose.
    """
    placed = dict(zip(trajectory.time_ns.tolist(), torch.from_numpy(trajectory.T_wc)))
    wanted = {k.view.time_ns for k in keyframes}
    step = -(-len(placed) // MAX_FRAMES) or 1
    images, times, seen, found, prepare = [], [], 0, 0, Preparation(source.camera, pixels)
    for frame in source:
        seen += 1
        found += frame.time_ns in placed
        if frame.time_ns in placed and (found % step == 0 or frame.time_ns in wanted):
            images.append(_image(prepare, frame))
            times.append(frame.time_ns)
    kept = [k for k in keyframes if k.view.time_ns in set(times)]
    if not placed or found < MIN_TRACKED * seen:
        raise SourceError(
            f"{name}: only {found} of {seen} frames could be tracked, too few to learn from; "
            "--poses network learns the motion too"
        )
    if not kept:
        raise SourceError(f"{name}: none of its {seen} frames is a keyframe of the run; use a larger part of it")
    K = prepare.camera.matrix()
    T_wc = torch.stack([placed[t] for t in times])
    depth = carried_depth(kept, times, T_wc, scaled_intrinsics(K, 1 / STRIDE), images[0].shape[-2:])
    return Video(
        name=name,
        images=torch.stack(images),
        time_ns=torch.tensor(times),
        K=K,
        T_wc=T_wc,
        inv_depth=torch.stack([d.value for d in depth]),
        relative_sigma=torch.stack([d.relative_sigma for d in depth]),
    )


def carried_depth(
    keyframes: Sequence[Keyframe], times: Sequence[int], T_wc: Tensor, K: Tensor, size: Sequence[int]
) -> list[InvDepth]:
    """Certain depth of each frame, 0 elsewhere: its own, or that of the keyframe nearest in time, seen from its place.

    Args:
        keyframes: at least one.
        times, T_wc: nanoseconds and (N, 4, 4) of the frames.
        K: (3, 3) intrinsics at the cells of images of a `size` (H, W).
    """
    measured = [at_stride(k.dense.on_host(), size) for k in keyframes]
    T_wk = torch.stack([k.T_wc for k in keyframes])
    agreed = agreed_depth(torch.stack([d.value for d in measured]), T_wk, K)
    certain = [InvDepth(d.value * known, d.sigma * known) for d, known in zip(measured, agreed)]
    stamps = torch.tensor([k.view.time_ns for k in keyframes])
    depth = []
    for time_ns, T_wi in zip(times, T_wc):
        k = int((stamps - time_ns).abs().argmin())
        is_own = keyframes[k].view.time_ns == time_ns
        depth.append(certain[k] if is_own else certain[k].warped(se3.inverse(T_wi) @ T_wk[k], K))
    return depth


def at_stride(dense: InvDepth, size: Sequence[int]) -> InvDepth:
    """Confident inverse depth, 0 elsewhere, at the cells of images of a size (H, W)."""
    both = torch.stack([dense.value, dense.sigma]) * (dense.confidence > CONFIDENT)
    value, sigma = F.interpolate(both[None], (size[0] // STRIDE, size[1] // STRIDE), mode="nearest-exact")[0]
    return InvDepth(value, sigma)


def agreed_depth(inv_depth: Tensor, T_wc: Tensor, K: Tensor) -> Tensor:
    """(M, h, w) bool: where a depth is known and one of the COMPARED keyframes before and after measured the same.

    Args:
        inv_depth: (M, h, w), 0 unknown, 1 / map unit.
        T_wc: (M, 4, 4).
        K: (3, 3) intrinsics at h x w.
    """
    agreed = torch.zeros_like(inv_depth, dtype=torch.bool)
    M, h, w = inv_depth.shape
    for k in range(M):
        others = [j for j in range(max(0, k - COMPARED), min(M, k + COMPARED + 1)) if j != k]
        if not others:
            continue
        T_jk = se3.inverse(T_wc[others]) @ T_wc[k]
        uv, q, valid = reproject(inv_depth[k].expand(len(others), h, w), T_jk, K.expand(len(others), 3, 3))
        there = sample(inv_depth[others][:, None], uv, mode="nearest")[:, 0]
        same = inconsistency(inv_depth[k] / q[..., 2], there) < SAME_DEPTH
        agreed[k] = ((there > 0) & valid & in_image(uv, h, w) & same).any(0) & (inv_depth[k] > 0)
    return agreed


def _image(prepare: Preparation, frame: Frame) -> Tensor:
    """(3, H, W) uint8 of a frame."""
    return torch.from_numpy(prepare.image_and_depth(frame)[0]).permute(2, 0, 1).contiguous()
