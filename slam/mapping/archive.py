"""Keyframes that left the active map: their images and depth lie on the disk and are paged in when asked for."""

import math
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slam.errors import OutputError
from slam.frames import Image, Keyframe
from slam.inv_depth import InvDepth
from slam.reading import reason

NO_IMAGE = Image(np.zeros((0, 0, 3), np.uint8))
NO_DEPTH = InvDepth(torch.zeros(0, 0), torch.zeros(0, 0))


class Archive:
    """A folder with a file for each keyframe, removed with `close`, or at the latest when the program ends."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is made at the first keyframe; None: a temporary one."""
        self.folder = folder
        self._remove: Callable[[], object] | None = None  # once there is something to remove

    def store(self, keyframe: Keyframe) -> None:
        """Write a keyframe, without keypoints, prior and what stands still; nothing of it stays in memory.

        Raises:
            OutputError: if the disk refuses.
        """
        dense, coarse = keyframe.dense.on_host(), keyframe.coarse.on_host()
        depths = (dense.value, dense.sigma, coarse.value, coarse.sigma)
        arrays = [*(d.float().numpy() for d in depths), keyframe.view.image.rgb]
        small = replace(
            keyframe,
            view=replace(keyframe.view, image=NO_IMAGE, sensor_depth=None),
            dense=NO_DEPTH,
            coarse=NO_DEPTH,
            keypoints=None,
            prior=None,
            static=None,
        )
        try:
            folder = self._made()
            (folder / f"{keyframe.id}.raw").write_bytes(b"".join(array.tobytes() for array in arrays))
            kinds = [(array.shape, array.dtype.name) for array in arrays]
            (folder / f"{keyframe.id}.pickle").write_bytes(pickle.dumps((small, kinds)))
        except OSError as error:
            raise OutputError(f"cannot write old keyframes to {self.folder}: {reason(error)}") from error

    def load(self, keyframe_id: int) -> Keyframe:
        """A keyframe as it was stored; its arrays are maps of a file, paged in where they are read.

        Raises:
            OutputError: if its files are gone.
        """
        assert self.folder is not None, "nothing was stored"
        try:
            small, kinds = pickle.loads((self.folder / f"{keyframe_id}.pickle").read_bytes())
            *depths, rgb = _mapped(self.folder / f"{keyframe_id}.raw", kinds)
        except OSError as error:
            raise OutputError(f"cannot read old keyframes from {self.folder}: {reason(error)}") from error
        return replace(
            small,
            view=replace(small.view, image=Image(rgb.numpy())),
            dense=InvDepth(*depths[:2]),
            coarse=InvDepth(*depths[2:]),
        )

    def close(self) -> None:
        """Remove the files; keyframes from here are unusable afterwards."""
        if self._remove is not None:
            self._remove()

    def _made(self) -> Path:
        """The folder, made where it was not yet."""
        if self._remove is None or self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="v2d-slam-")) if self.folder is None else self.folder
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        return self.folder


def _mapped(path: Path, kinds: list[tuple[tuple[int, ...], str]]) -> list[Tensor]:
    """Arrays of these shapes and types as maps of one file, changes private. `numpy.memmap` would hold a file open for
    each."""
    mapped = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
    pieces = mapped.split([math.prod(shape) * np.dtype(name).itemsize for shape, name in kinds])
    return [piece.view(getattr(torch, name)).view(shape) for piece, (shape, name) in zip(pieces, kinds, strict=True)]
