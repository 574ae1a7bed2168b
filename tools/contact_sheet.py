"""Images of what the renderer makes: `python tools/contact_sheet.py out.png [--compare DIR/rgb]`."""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import image as images

from slam.rendering.effects import Effects
from slam.rendering.paths import clip_poses
from slam.rendering.renderer import render
from slam.rendering.scenes import SCENE_KINDS, make_scene, stack
from slam.rendering.viewpoints import default_intrinsics

HEIGHT, WIDTH = 192, 256


def main() -> None:
    """Write a sheet: a row per kind of scene (clean, with effects, depth), a clip, real frames if given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--compare", type=Path, nargs="*", default=[], help="folders of real frames")
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(SCENE_KINDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(args.seed)
    K = default_intrinsics(HEIGHT, WIDTH)
    effects = Effects()
    rows = []
    for kind in args.kinds:
        scenes = stack([make_scene(kind, generator) for _ in range(args.columns)])
        views = render(scenes, clip_poses(scenes, 1, generator).flatten(0, 1), K, HEIGHT, WIDTH)
        rows += [_row(views.image), _row(effects(views.image[:, None], generator)[:, 0]), _depth_row(views.depth)]
    scene = stack([make_scene("living", generator)])
    clip = render(scene, clip_poses(scene, args.columns, generator, 0.6)[0], K, HEIGHT, WIDTH)
    rows.append(_row(effects(clip.image[None], generator)[0]))
    for folder in args.compare:
        files = sorted(p for p in folder.iterdir() if p.suffix in (".png", ".jpg"))
        chosen = [files[i] for i in np.linspace(0, len(files) - 1, args.columns).astype(int)]
        rows.append(np.concatenate([_read(path) for path in chosen], 1))
    images.imsave(args.output, np.concatenate(rows))


def _row(batch: torch.Tensor) -> np.ndarray:
    return np.concatenate(list(batch.permute(0, 2, 3, 1).clamp(0, 1).numpy()), 1)


def _depth_row(depth: torch.Tensor) -> np.ndarray:
    small = depth[:, ::2, ::2].log().clamp(np.log(0.2), np.log(12))
    value = (small - np.log(0.2)) / (np.log(12) - np.log(0.2))
    coloured = matplotlib.colormaps["turbo"](1 - value.numpy())[..., :3]
    return np.concatenate([np.pad(one, ((0, 0), (0, WIDTH // 2), (0, 0))) for one in coloured], 1)


def _read(path: Path) -> np.ndarray:
    image = images.imread(path)
    image = image / 255 if image.dtype == np.uint8 else image
    image = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image[..., :3]
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(tensor, (HEIGHT, WIDTH), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


if __name__ == "__main__":
    main()
