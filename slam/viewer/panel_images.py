"""Images, depths and confidences at one size for the panel."""

import cv2
import numpy as np

from slam.viewer.view_state import ViewState

SIZE = (192, 256)  # rows, columns
BACKGROUND = 18  # gray level beside images of another shape


def panel_image(shown: ViewState) -> np.ndarray:
    """What the camera sees, depth and confidence of the newest keyframe drawn, one below the other, uint8 RGB."""
    return stacked(panel_images(shown), 3)


def panel_tiles(shown: ViewState) -> np.ndarray:
    """The same, depth and confidence side by side at half the size."""
    image, *maps = np.split(panel_image(shown), 3)
    rows, columns = SIZE
    halves = [cv2.resize(one, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA) for one in maps]
    return np.vstack([image, np.hstack(halves)])


def panel_images(shown: ViewState) -> list[np.ndarray]:
    """Image, depth and confidence, or those that there are, (H, W, 3) uint8 RGB each."""
    found = [np.zeros((1, 1, 3), np.uint8) if shown.image is None else shown.image]
    if shown.drawn:
        dense = shown.drawn[-1].dense.on_host()
        found += [depth_image(dense.value.numpy()), confidence_image(dense.confidence.numpy())]
    return found


def stacked(images: list[np.ndarray], count: int) -> np.ndarray:
    """Room for `count` images of SIZE one below the other, the first ones filled: scaled, not stretched.

    Args:
        images: (H, W, 3) uint8 each.
    """
    rows, columns = SIZE
    out = np.full((count * rows, columns, 3), BACKGROUND, np.uint8)
    for n, image in enumerate(images):
        H, W = image.shape[:2]
        ratio = min(rows / H, columns / W)
        h, w = max(1, round(ratio * H)), max(1, round(ratio * W))
        top, left = n * rows + (rows - h) // 2, (columns - w) // 2
        out[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    return out


def depth_image(inv_depth: np.ndarray) -> np.ndarray:
    """(h, w) inverse depths in colours, (h, w, 3) uint8 RGB: near is bright; unknown is black."""
    known = inv_depth > 0
    near = float(np.percentile(inv_depth[known], 98)) if known.any() else 1.0
    colors = cv2.applyColorMap((255 * np.clip(inv_depth / near, 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(colors[..., ::-1] * known[..., None].astype(np.uint8))


def confidence_image(confidence: np.ndarray) -> np.ndarray:
    """(h, w) confidences in [0, 1] as gray, (h, w, 3) uint8: white is sure."""
    return np.repeat(np.rint(255 * confidence).astype(np.uint8)[..., None], 3, axis=2)
