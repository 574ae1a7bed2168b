"""Training clips of rendered scenes, made as training goes on."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from slam.geometry import se3
from slam.rendering.effects import Effects, EffectsConfig
from slam.rendering.paths import clip_poses
from slam.rendering.primitives import Scenes
from slam.rendering.renderer import render
from slam.rendering.scenes import SCENE_KINDS, make_scene, stack
from slam.training.clips import Clip, ClipPool, fill
from slam.training.data import uniform

VALIDATION_SEED = 20_000_000
VALIDATION_CLIPS = 24
VALIDATION_KINDS = ("office", "living", "corridor", "desk", "bare", "clutter", "tags")  # fixed: scores stay comparable
LEAST_MOTION, MOST_MOTION = 0.1, 0.5  # motion_scale of a clip
WIDEST = 0.5  # focal length of the widest lens of pictures, in longer sides: 90 degrees across
SHAPES, SHAPE_ODDS = (4 / 3, 3 / 4, 16 / 9), (0.75, 0.15, 0.1)  # width over height of pictures, and how often
ROLL_RAD = 0.1  # standard deviation of the roll of a picture ...
ANY_ROLL_CHANCE = 0.05  # ... but for some that are held anyhow


def random_intrinsics(width: int, height: int, generator: torch.Generator, shortest: float = 0.6) -> Tensor:
    """(3, 3) float64 intrinsics of an ordinary camera, 45 degrees across and more, centre a little off.

    `shortest`: focal length of the widest lens, in longer sides of the image; 0.6 is 80 degrees.
    """
    side = max(width, height)
    focal = side * uniform((), shortest, 1.2, generator).item()
    du, dv = (torch.randn(2, generator=generator) * 0.015 * side).tolist()
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
        scenes = _random_scene(self.kinds, generator, self.device)
        K = random_intrinsics(self.width, self.height, generator)
        motion_scale = uniform((), LEAST_MOTION, MOST_MOTION, generator).item()
        T_wc = clip_poses(scenes, self.views, generator, motion_scale, K, self.height, self.width)[0]
        return [_pictured(scenes, T_wc, K, self.height, self.width, generator)]


def _random_scene(kinds: tuple[str, ...], generator: torch.Generator, device: torch.device) -> Scenes:
    """A batch of one new scene of a random kind."""
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    return stack([make_scene(kind, generator, device)])


def _pictured(scenes: Scenes, T_wc: Tensor, K: Tensor, height: int, width: int, generator: torch.Generator) -> Clip:
    """What a camera sees of a scene, from a clean image to a cheap camera in bad light."""
    rendered = render(scenes, T_wc, K, height, width)
    strength = uniform((), 0, 1, generator).item()
    images = Effects(EffectsConfig().scaled(strength))(rendered.image[None], generator)[0]
    return Clip.pack(images, rendered.depth, T_wc, K)


@dataclass(frozen=True)
class RenderedPairs:
    """Makes one pair of views of a new scene at each call, to learn depth from one picture: whole scenes, lenses from
    45 to 90 degrees, any roll, several shapes of image. The two views overlap."""

    pixels: int
    device: torch.device
    kinds: tuple[str, ...] = SCENE_KINDS

    @torch.no_grad()
    def __call__(self, generator: torch.Generator) -> list[Clip]:
        """One clip of two views; everything random comes from the generator."""
        scenes = _random_scene(self.kinds, generator, self.device)
        width, height = _random_size(self.pixels, generator)
        K = random_intrinsics(width, height, generator, WIDEST)
        motion_scale = uniform((), LEAST_MOTION, MOST_MOTION, generator).item()
        T_wc = clip_poses(scenes, 2, generator, motion_scale, K, height, width)[0]
        roll = torch.zeros(6, dtype=torch.float64)
        roll[5] = torch.randn((), generator=generator) * ROLL_RAD
        if torch.rand((), generator=generator) < ANY_ROLL_CHANCE:
            roll[5] = uniform((), -torch.pi, torch.pi, generator)
        T_wc = T_wc @ se3.exp(roll)
        return [_pictured(scenes, T_wc, K, height, width, generator)]


def _random_size(pixels: int, generator: torch.Generator) -> tuple[int, int]:
    """Width and height, multiples of 32, of about so many pixels: mostly 4:3, some upright, some wide."""
    shape = SHAPES[int(torch.multinomial(torch.tensor(SHAPE_ODDS), 1, generator=generator))]
    width = round((pixels * shape) ** 0.5 / 32) * 32
    return width, round(width / shape / 32) * 32


def validation_clips(folder: Path, render_clips: RenderedClips) -> list[Clip]:
    """The same clips each time, never trained on; kept in a folder."""
    pool = ClipPool(VALIDATION_CLIPS, folder)
    generator = torch.Generator().manual_seed(VALIDATION_SEED + len(pool))
    held_out = replace(render_clips, kinds=VALIDATION_KINDS)
    fill(pool, VALIDATION_CLIPS, lambda _: held_out(generator))
    return pool.clips
