"""The keyframes of a run directory one after the other, with the part of their depth that can be relied on."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from slam.errors import SourceError
from slam.frames import Keyframe
from slam.io.run import KeyframeRecord, Run
from slam.mapping.fusion import FusionConfig

BEND = 0.04  # of the inverse depth: a plane has none, an occlusion edge has more
STEPS = (1, 2)  # pixels between those compared: edges of networks are up to four wide
MEDIAN_STRIDE = 4  # pixels between those whose median is taken


@dataclass(frozen=True, eq=False)
class AgreedView:
    """A keyframe and the depth that may enter a map."""

    record: KeyframeRecord
    keyframe: Keyframe
    depth: np.ndarray  # (h, w) float32 z-depth, map units, 0 where it is left out

    @property
    def T_wc(self) -> np.ndarray:
        """(4, 4) float64."""
        return self.keyframe.T_wc.numpy()

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 of the depth's size."""
        return self.keyframe.view.K.numpy()

    @property
    def rgb(self) -> np.ndarray:
        """(h, w, 3) uint8."""
        return self.keyframe.view.image.rgb


def usable_records(run: Run) -> list[KeyframeRecord]:
    """All keyframes, oldest first.

    Raises:
        SourceError: if there are none.
    """
    records = run.keyframe_records()
    if not records:
        raise SourceError(f"the map of {run.path} is empty: it has no keyframes")
    return records


def agreed_views(run: Run, config: FusionConfig) -> Iterator[AgreedView]:
    """Every keyframe with the pixels that are confident, that its neighbours in time confirm, and that lie on no
    occlusion edge. At most `2 config.neighbours + 1` keyframes are in memory.

    Raises:
        SourceError: if a file is missing or damaged, or the map is empty.
    """
    records = usable_records(run)
    held: dict[int, Measured] = {}
    for n, record in enumerate(records):
        order = sorted(range(len(records)), key=lambda m: (abs(m - n), m))[: config.neighbours + 1]
        held = {m: held[m] if m in held else Measured(run.keyframe(records[m])) for m in order}
        others = [held[m] for m in order if m != n]
        yield AgreedView(record, held[n].keyframe, agreed_depth(held[n], others, config))


class Measured:
    """What a keyframe measured, in the forms in which it is compared."""

    def __init__(self, keyframe: Keyframe) -> None:
        self.keyframe = keyframe
        self.T_wc, self.K = keyframe.T_wc.numpy(), keyframe.view.K.numpy()
        self.depth = keyframe.dense.depth().numpy()  # (h, w), 0 unknown
        sigma = keyframe.dense.sigma.numpy()
        self.weight = np.where(self.depth > 0, 1 / np.maximum(sigma, 1e-9) ** 2, 0)  # of the inverse depth


def agreed_depth(view: Measured, others: list[Measured], config: FusionConfig) -> np.ndarray:
    """(h, w) float32 depth, the mean of what this keyframe and those that confirm it measured, weighted by their
    variances; 0 where it is unconfident, unconfirmed or on an occlusion edge."""
    good = is_reliable(view.keyframe, config)
    z = view.depth[good].astype(np.float64)
    p_c = points_of(view.depth, view.K)[good]
    weight = view.weight[good].astype(np.float64)
    total, votes = weight / z, np.zeros(len(z), int)
    for other in others:
        T_jk = np.linalg.inv(other.T_wc) @ view.T_wc
        p_j = p_c @ T_jk[:3, :3].T + T_jk[:3, 3]
        v, u, seen = pixels_of(p_j, view.K, view.depth.shape)
        z_j = np.where(seen, other.depth[v, u], 0)  # unsure ones may confirm: they weigh little
        agrees = (z_j > 0) & (np.abs(z_j - p_j[:, 2]) < config.max_inconsistency * (z_j + p_j[:, 2]))
        on_ray = p_j * np.where(agrees, z_j / np.where(agrees, p_j[:, 2], 1), 1)[:, None]  # where the other sees it
        measured = (on_ray - T_jk[:3, 3]) @ T_jk[:3, 2]
        w = np.where(agrees & (measured > 0), other.weight[v, u], 0)
        total, weight, votes = total + w / np.where(w > 0, measured, 1), weight + w, votes + agrees
    enough = votes >= min(config.min_agreeing, len(others))
    depth = np.zeros(view.depth.shape, np.float32)
    depth[good] = np.where(enough, weight / total, 0)
    return depth


def is_reliable(keyframe: Keyframe, config: FusionConfig) -> np.ndarray:
    """(h, w) bool: known, sure enough, and on no occlusion edge."""
    return is_confident(keyframe, config) & ~occlusion_edges(keyframe.dense.value.numpy())


def pixels_of(p_c: np.ndarray, K: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and columns (N,) of the pixels that points (N, 3) fall on, and which do (N,); others get (0, 0)."""
    z = np.where(p_c[:, 2] > 0, p_c[:, 2], np.inf)
    u, v = (np.rint(K[n, n] * p_c[:, n] / z + K[n, 2]) for n in (0, 1))
    seen = (z < np.inf) & (u >= 0) & (v >= 0) & (u < size[1]) & (v < size[0])
    return np.where(seen, v, 0).astype(int), np.where(seen, u, 0).astype(int), seen


def is_confident(keyframe: Keyframe, config: FusionConfig) -> np.ndarray:
    """(h, w) bool: the depth is known and sure enough."""
    return keyframe.dense.known.numpy() & (keyframe.dense.confidence.numpy() >= config.min_confidence)


def occlusion_edges(inv_depth: np.ndarray) -> np.ndarray:
    """(h, w) bool: pixels beside a jump of depth, and the "flying" ones in between.

    The inverse depth of a plane is linear in the pixels, however it is slanted: the second difference is that of jumps.

    Args:
        inv_depth: (h, w), 0 unknown, which is no jump.
    """
    bent = np.zeros(inv_depth.shape, bool)
    for axis in (0, 1):
        for step in STEPS:
            here, before, after = (np.moveaxis(inv_depth, axis, 0)[part] for part in _parts(step))
            known = (here > 0) & (before > 0) & (after > 0)
            is_bent = np.abs(before - 2 * here + after) > BEND * here * step
            np.moveaxis(bent, axis, 0)[step:-step] |= known & is_bent
    return ndimage.grey_closing(bent.astype(np.uint8), 3, mode="nearest") > 0  # the middle of a ramp is straight


def _parts(step: int) -> tuple[slice, slice, slice]:
    return slice(step, -step), slice(None, -2 * step), slice(2 * step, None)


def median_depth(run: Run, config: FusionConfig) -> float:
    """Of the confident pixels of all keyframes, map units.

    Raises:
        SourceError: if there are none.
    """
    depths = []
    for record in usable_records(run):
        depth, confidence = (
            values[::MEDIAN_STRIDE, ::MEDIAN_STRIDE] for values in (run.depth(record), run.confidence(record))
        )
        known = depth[(depth > 0) & (confidence >= config.min_confidence)]
        if len(known):
            depths.append(float(np.median(known)))
    if not depths:
        raise SourceError(
            f"the map of {run.path} is empty: no keyframe has depth of confidence {config.min_confidence:g} or more"
        )
    return float(np.median(depths))


def points_of(depth: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(h, w, 3) float64 points in the camera frame of a depth map (h, w)."""
    h, w = depth.shape
    v, u = np.mgrid[:h, :w]
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones((h, w))], -1) * depth[..., None]
