"""Draw what refinement changed: frames of a run's preview, and how one row of the image goes on over time.

python tools/draw_refined.py results/latest refined.jpg

Each column is a panel of `refined/preview.mp4`: colour, depth before, depth after. Below the frames, time runs
downwards: a surface that flickers has rough edges there, and steps where the depth changed from frame to frame.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from slam.errors import SourceError
from slam.io.images import write_color
from slam.io.preview import PREVIEW
from slam.io.refined import REFINED

GAP = 4  # rows of white between the parts


def main() -> None:
    """Read the preview, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a refined run")
    parser.add_argument("out", type=Path, help="picture")
    parser.add_argument("--frames", type=int, nargs="*", default=None, help="those shown (default: three)")
    parser.add_argument("--row", type=float, default=0.6, help="of the image whose course is shown, 0 top to 1 bottom")
    options = parser.parse_args()
    video = np.stack(read_video(options.run / REFINED / PREVIEW))
    count, height = video.shape[:2]
    chosen = options.frames or [count // 6, count // 2, 5 * count // 6]
    course = video[:, min(int(options.row * height), height - 1)]
    white = np.full((GAP, *video.shape[2:]), 255, np.uint8)
    parts = [part for n in chosen for part in (video[min(n, count - 1)], white)]
    write_color(options.out, np.concatenate([*parts, course]))


def read_video(path: Path) -> list[np.ndarray]:
    """All frames (H, W, 3) uint8 RGB.

    Raises:
        SourceError: if there are none.
    """
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, image = capture.read()
        if not good:
            break
        frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    capture.release()
    if not frames:
        raise SourceError(f"no video {path}; run v2d-refine first")
    return frames


if __name__ == "__main__":
    main()
