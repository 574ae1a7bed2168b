"""Keyframes that left the active map: their images and depth lie on the disk and are paged in when asked for."""

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


class Archive:
    """A folder with a file for each keyframe, removed with `close`, or at the latest when the program ends."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is made at the first keyframe; None: a temporary one."""
        self.folder = folder
        self._remove: Callable[[], object] | None = None  # once there is something to remove

    def stored(self, keyframe: Keyframe) -> Keyframe:
        """The keyframe with its arrays in a file; without keypoints, prior and what stands still.

        Raises:
            OutputError: if the disk refuses.
        """
        dense, coarse = keyframe.dense.on_host(), keyframe.coarse.on_host()
        depths = (dense.value, dense.sigma, coarse.value, coarse.sigma)
        try:
            arrays = self._mapped(f"{keyframe.id}.raw", [*(d.float().numpy() for d in depths), keyframe.view.image.rgb])
        except (OSError, RuntimeError) as error:  # the latter of a map that cannot be made
            why = reason(error) if isinstance(error, OSError) else error
            raise OutputError(f"cannot write old keyframes to {self.folder}: {why}") from error
        return replace(
            keyframe,
            view=replace(keyframe.view, image=Image(arrays[4].numpy()), sensor_depth=None),
            dense=InvDepth(arrays[0], arrays[1]),
            coarse=InvDepth(arrays[2], arrays[3]),
            keypoints=None,
            prior=None,
            static=None,
        )

    def close(self) -> None:
        """Remove the files; keyframes from here are unusable afterwards."""
        if self._remove is not None:
            self._remove()

    def _mapped(self, name: str, arrays: list[np.ndarray]) -> list[Tensor]:
        """The arrays as maps of one file, changes private. `numpy.memmap` would hold a file open for each."""
        if self._remove is None:
            self.folder = Path(tempfile.mkdtemp(prefix="v2d-slam-")) if self.folder is None else self.folder
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        assert self.folder is not None
        path = self.folder / name
        path.write_bytes(b"".join(array.tobytes() for array in arrays))
        mapped = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)
        pieces = mapped.split([array.nbytes for array in arrays])
        return [
            piece.view(getattr(torch, array.dtype.name)).view(array.shape)
            for piece, array in zip(pieces, arrays, strict=True)
        ]
