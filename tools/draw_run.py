"""Images of a finished run: its keyframes with depth and confidence, and its map from above and from the side.

python tools/draw_run.py results/latest --out images/
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from slam.io.images import write_color
from slam.io.ply import PointCloud
from slam.io.run import Run

SKY = 250  # gray level of the background
PATH_COLOR = (220, 40, 40)


def keyframe_strip(run: Run, count: int) -> np.ndarray:
    """Colour, depth and confidence (rows) of `count` keyframes spread over the run (columns), (H, W, 3) uint8."""
    records = run.keyframe_records()
    columns = []
    for n in np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int):
        depth = run.depth(records[n])
        known = depth[depth > 0]
        low, high = np.quantile(1 / known, [0.02, 0.98]) if len(known) else (0.0, 1.0)
        near = np.where(depth > 0, (1 / np.maximum(depth, 1e-9) - low) / (high - low), 0).clip(0, 1)
        shaded = (255 * matplotlib.colormaps["turbo"](near)[..., :3] * (depth > 0)[..., None]).astype(np.uint8)
        confidence = (255 * run.confidence(records[n])).astype(np.uint8)
        columns.append(np.vstack([run.image(records[n]), shaded, np.repeat(confidence[..., None], 3, axis=2)]))
    return np.hstack(columns)


def map_view(cloud: PointCloud, path_p_w: np.ndarray, R_vw: np.ndarray, width: int = 1400) -> np.ndarray:
    """Orthographic image of a cloud and a camera path, (H, W, 3) uint8; rows of R_vw: right, down, away."""
    assert cloud.colors is not None
    points, path = cloud.points @ R_vw.T, path_p_w @ R_vw.T
    low, high = np.quantile(points, [0.01, 0.99], axis=0)
    low, high = np.minimum(low, path.min(0)), np.maximum(high, path.max(0))
    scale = (width - 1) / (high[0] - low[0])
    height = int(scale * (high[1] - low[1])) + 1
    image = np.full((height, width, 3), SKY, np.uint8)
    steps = np.linspace(path[:-1], path[1:], 20, axis=1).reshape(-1, 3)
    layers = [(points, cloud.colors), (steps, np.tile(np.array(PATH_COLOR, np.uint8), (len(steps), 1)))]
    for xyz, colors in layers:  # the path is drawn last, over the map
        order = np.argsort(-xyz[:, 2])  # nearest last
        uv = np.rint((xyz[order, :2] - low[:2]) * scale).astype(int)
        for du in (0, 1):
            for dv in (0, 1):
                u, v = uv[:, 0] + du, uv[:, 1] + dv
                inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
                image[v[inside], u[inside]] = colors[order][inside]
    even = image[: height // 2 * 2, : width // 2 * 2].astype(np.float32)
    return even.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3)).astype(np.uint8)  # drawn twice as large: smooth


def main() -> None:
    """Write keyframes.png, map_top.png and map_side.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--keyframes", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run(options.run)
    write_color(options.out / "keyframes.jpg", keyframe_strip(run, options.keyframes))
    cloud, path = run.cloud(), run.trajectory().T_wc[:, :3, 3]
    top = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # seen from above, the first camera looks up the page
    a = np.radians(35)
    tilt = np.array([[1.0, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])  # from behind and above
    write_color(options.out / "map_top.jpg", map_view(cloud, path, top))
    write_color(options.out / "map_tilted.jpg", map_view(cloud, path, tilt))


if __name__ == "__main__":
    main()
