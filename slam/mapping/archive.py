"""Keyframes that left the active map: their pictures and depth lie on the disk and are paged in when asked for."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slam.errors import OutputError
from slam.frames import Keyframe
from slam.geometry import se3
from slam.io.files import reason
from slam.mapping.transforms import grown, rescaled


@dataclass(frozen=True)
class Evicted:
    """A keyframe that follows another one."""

    keyframe: Keyframe  # as it was; its arrays are maps of files
    anchor_id: int
    T_ak: Tensor  # (4, 4) from it to the anchor's camera ...
    scale: float  # ... in the anchor's scale of that time
    growth: float = 1.0  # of its own depth, before it got this anchor

    def present(self, anchor: Keyframe) -> Keyframe:
        """As it is now that its anchor may have moved and grown."""
        growth = anchor.scale / self.scale
        return grown(self.keyframe, anchor.T_wc @ rescaled(self.T_ak, growth), self.growth * growth)

    def moved(self, anchor: Keyframe, other: Keyframe) -> "Evicted":
        """The same, following another keyframe."""
        growth = anchor.scale / self.scale
        T_ok = se3.inverse(other.T_wc) @ anchor.T_wc @ rescaled(self.T_ak, growth)
        return replace(self, anchor_id=other.id, T_ak=T_ok, scale=other.scale, growth=self.growth * growth)


class Archive:
    """A folder of arrays, removed with `close`."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is made at the first keyframe; None: a temporary one."""
        self._folder = folder
        self._made = False

    def stored(self, keyframe: Keyframe) -> Keyframe:
        """The keyframe with its arrays in files; without features and landmarks.

        Raises:
            OutputError: if the disk refuses.
        """
        try:
            if not self._made:
                self._folder = Path(tempfile.mkdtemp(prefix="v2d-slam-")) if self._folder is None else self._folder
                self._folder.mkdir(parents=True, exist_ok=True)
                self._made = True
            image = self._mapped(f"{keyframe.id}_image", keyframe.view.image)
            inv_depth, confidence, cell_inv_depth, cell_sigma = (
                torch.from_numpy(self._mapped(f"{keyframe.id}_{name}", getattr(keyframe, name).numpy()))
                for name in ("inv_depth", "confidence", "cell_inv_depth", "cell_sigma")
            )
        except OSError as error:
            raise OutputError(f"cannot write old keyframes to {self._folder}: {reason(error)}") from error
        view = replace(keyframe.view, image=image, features=None, sensor_depth=None)
        return replace(
            keyframe,
            view=view,
            inv_depth=inv_depth,
            confidence=confidence,
            cell_inv_depth=cell_inv_depth,
            cell_sigma=cell_sigma,
            landmarks=None,
        )

    def close(self) -> None:
        """Remove the files; keyframes from here are unusable afterwards."""
        if self._made and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _mapped(self, name: str, values: np.ndarray) -> np.ndarray:
        assert self._folder is not None
        path = self._folder / f"{name}.npy"
        np.save(path, values)
        return np.load(path, mmap_mode="c")  # private to this process: torch wants it writable
