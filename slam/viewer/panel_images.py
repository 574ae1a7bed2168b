"""Images, depths and confidences at one size for the panel."""

import cv2
import numpy as np

SIZE = (192, 256)  # rows, columns
BACKGROUND = 18  # gray level beside images of another shape


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
