"""Training clips of rendered scenes, made as training goes on."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from slam.rendering.effects import Effects, EffectsConfig
from slam.rendering.paths import clip_poses
from slam.rendering.renderer import render
from slam.rendering.scenes import SCENE_KINDS, make_scene, stack
from slam.training.clips import Clip, ClipPool, fill
from slam.training.data import uniform

VALIDATION_SEED = 20_000_000
VALIDATION_CLIPS = 24
VALIDATION_KINDS = ("office", "living", "corridor", "desk", "bare", "clutter", "tags")  # fixed: scores stay comparable
LEAST_MOTION, MOST_MOTION = 0.1, 0.5  # motion_scale of a clip


def random_intrinsics(width: int, height: int, generator: torch.Generator) -> Tensor:
    """(3, 3) float64 intrinsics of an ordinary camera: 45 to 80 degrees across, centre a little off."""
    focal = width * uniform((), 0.6, 1.2, generator).item()
    du, dv = (torch.randn(2, generator=generator) * 0.015 * width).tolist()
    centre = ((width - 1) / 2 + du, (height - 1) / 2 + dv)
    return torch.tensor([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]], dtype=torch.float64)


@dataclass(frozen=True)
class RenderedClips:
    """Makes one clip of a new scene at each call."""

    width: int
    height: int
    device: torch.device
    views: int = 6
    kinds: tuple[str, ...] = SCENE_KINDS

    @torch.no_grad()
    def __call__(self, generator: torch.Generator) -> list[Clip]:
        """One clip of a random scene; everything random comes from the generator."""
        kind = self.kinds[int(torch.randint(len(self.kinds), (), generator=generator))]
        scenes = stack([make_scene(kind, generator, self.device)])
        K = random_intrinsics(self.width, self.height, generator)
        motion_scale = uniform((), LEAST_MOTION, MOST_MOTION, generator).item()
        T_wc = clip_poses(scenes, self.views, generator, motion_scale, K, self.height, self.width)[0]
        rendered = render(scenes, T_wc, K, self.height, self.width)
        strength = uniform((), 0, 1, generator).item()  # from a clean image to a cheap camera in bad light
        images = Effects(EffectsConfig().scaled(strength))(rendered.image[None], generator)[0]
        return [Clip.pack(images, rendered.depth, T_wc, K)]


def validation_clips(folder: Path, render_clips: RenderedClips) -> list[Clip]:
    """The same clips each time, never trained on; kept in a folder."""
    pool = ClipPool(VALIDATION_CLIPS, folder)
    generator = torch.Generator().manual_seed(VALIDATION_SEED + len(pool))
    held_out = replace(render_clips, kinds=VALIDATION_KINDS)
    fill(pool, VALIDATION_CLIPS, lambda _: held_out(generator))
    return pool.clips
