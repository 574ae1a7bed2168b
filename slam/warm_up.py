"""The first use of networks and loops, before a camera moves rather than after.

Weights are packed for an input's size when that comes first, and compiled loops are read from the disk: a second in
all, which would fall on the first frames that are tracked, and on the first keyframe.
"""

import numpy as np
import torch

from slam.backend.graph import KeyframeGraph
from slam.frames import Image, Keyframe, View, Window
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.parts import Parts
from slam.recognition.keypoints import with_keypoints
from slam.timing import StageTimes

EARLIER = -1000  # frame id, before any frame
BLOCK = 8  # pixels of the noise
SHIFT_M = 0.02  # from view to view, to the side, at depth 1


@torch.inference_mode()
def warm_up(parts: Parts) -> None:
    """Track, match, adjust, densify and guess the depth of three views of a wall of noise, in a graph of their own."""
    tracking, backend = parts.localiser.matcher, parts.backend
    keyframes = [_keyframe(n, parts) for n in range(3)]
    first, second = keyframes[:2]
    tracking.match(first.view, first.coarse, second.view, se3.inverse(second.T_wc))
    adjusted = backend.adjustment.adjust_window(KeyframeGraph(), Window(tuple(keyframes)), StageTimes())
    if backend.densification is not None:
        backend.densification.densify(adjusted)
    with_keypoints(first, backend.keypoints)
    if parts.prior is not None:
        parts.prior(first.view)


def _keyframe(n: int, parts: Parts) -> Keyframe:
    """The n-th view of the wall."""
    camera, stride = parts.preparation.camera, parts.localiser.matcher.stride
    h, w = camera.height, camera.width
    shift = round(n * SHIFT_M * camera.fx)
    noise = np.random.default_rng(0).integers(0, 255, (h // BLOCK, (w + 2 * shift) // BLOCK + 1, 3), np.uint8)
    wall = noise.repeat(BLOCK, 0).repeat(BLOCK, 1)
    image = Image(np.ascontiguousarray(wall[:h, shift : shift + w]))
    device = parts.start.device
    dense, coarse = (
        InvDepth(torch.ones(size), torch.full(size, 0.1)).to(device) for size in ((h, w), (h // stride, w // stride))
    )
    T_wc = se3.exp(torch.tensor([n * SHIFT_M, 0, 0, 0, 0, 0], dtype=torch.float64))
    return Keyframe(n, View(EARLIER + n, n, image, camera.matrix()), T_wc, dense, coarse, parent_id=n - 1)
