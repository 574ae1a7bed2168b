"""Training clips of RGB-D recordings in TUM layout with ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from slam.errors import SourceError
from slam.frontend.preparation import Preparation
from slam.sources.groundtruth import read_groundtruth
from slam.sources.tum import TumSource
from slam.training.clips import Clip, ClipMaker

MAX_POSE_NS = 20_000_000  # between a frame and its true pose


@dataclass(frozen=True, eq=False)
class RgbdFolder:
    """A recording in memory at network size, half a megabyte a frame; only frames with a true pose."""

    frames: Clip  # all of them, in order
    has_depth: np.ndarray  # (N,) bool

    @staticmethod
    def read(folder: Path, pixels: int) -> "RgbdFolder":
        """Read a folder in TUM layout.

        Args:
            folder: with `rgb.txt`, `depth.txt`, `groundtruth.txt` and a calibration.
            pixels: width times height of the network's images.

        Raises:
            SourceError: if it is not of this layout, or no frame has depth and a pose.
        """
        source, truth = TumSource(folder, with_depth=True), read_groundtruth(folder)
        images, depths, poses, prepare = [], [], [], None
        for frame in source:
            nearest = int(np.abs(truth.time_ns - frame.time_ns).argmin())
            if abs(int(truth.time_ns[nearest]) - frame.time_ns) > MAX_POSE_NS:
                continue
            prepare = prepare or Preparation(frame.camera, pixels)
            image, depth = prepare.image_and_depth(frame)
            images.append(torch.from_numpy(image).permute(2, 0, 1))
            depths.append(torch.from_numpy(np.zeros(image.shape[:2], np.float32) if depth is None else depth))
            poses.append(torch.from_numpy(truth.T_wc[nearest]))
        has_depth = np.array([bool((d > 0).any()) for d in depths], bool)
        if prepare is None or has_depth.sum() < 2:
            raise SourceError(f"{folder} has no two frames with depth and a true pose; give an RGB-D folder with truth")
        K = prepare.camera.matrix()
        return RgbdFolder(Clip.pack(torch.stack(images) / 255, torch.stack(depths), torch.stack(poses), K), has_depth)

    def clip(self, chosen: Sequence[int]) -> Clip:
        """The frames of these indices."""
        index = torch.tensor(list(chosen))
        f = self.frames
        return Clip(f.images[index], f.inv_depth_q[index], f.T_wc[index], f.K)


@dataclass(frozen=True)
class RgbdClips:
    """Makes clips of recordings: views with depth, a random number of frames apart."""

    folders: Sequence[RgbdFolder]
    views: int = 6
    max_gap: int = 6  # frames with depth from one view to the next

    def __call__(self, generator: torch.Generator) -> list[Clip]:
        """One clip of a random recording."""
        folder = self.folders[int(torch.randint(len(self.folders), (), generator=generator))]
        usable = folder.has_depth.nonzero()[0]
        most = max(1, min(self.max_gap, (len(usable) - 1) // (self.views - 1)))
        gap = int(torch.randint(1, most + 1, (), generator=generator))
        room = max(1, len(usable) - gap * (self.views - 1))
        start = int(torch.randint(room, (), generator=generator))
        chosen = [int(usable[min(start + gap * v, len(usable) - 1)]) for v in range(self.views)]
        return [folder.clip(chosen)]


@dataclass(frozen=True)
class Mixture:
    """Clips of two makers by chance."""

    first: ClipMaker
    second: ClipMaker
    share: float  # of the first, in [0, 1]

    def __call__(self, generator: torch.Generator) -> list[Clip]:
        """Clips of the one or the other."""
        return (self.first if torch.rand((), generator=generator) < self.share else self.second)(generator)
