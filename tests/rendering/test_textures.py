"""The atlas: seamless patterns, mip levels, trilinear reading."""

import numpy as np
import pytest
import torch

from slam.rendering.builder import SceneBuilder
from slam.rendering.patterns import PATTERNS
from slam.rendering.primitives import stack
from slam.rendering.renderer import render
from slam.rendering.textures import build_atlas, default_atlas, sample


def ramp_atlas() -> object:
    """One 8x8 texture whose red is its column / 8 and green its row / 8."""
    y, x = np.mgrid[:8, :8] / 8
    return build_atlas(np.stack([x, y, 0 * x], -1)[None], ("ramp",))


def test_reading_at_texel_centres_gives_the_texels_and_between_them_the_mean():
    atlas = ramp_atlas()
    index, level = torch.zeros(3, dtype=torch.long), torch.zeros(3)
    u, v = torch.tensor([2.5, 3.0, 8.5]) / 8, torch.tensor([5.5, 6.0, -0.5]) / 8
    red, green, blue = sample(atlas, index, u, v, level)
    # 8-bit texels: half a step
    torch.testing.assert_close(red, torch.tensor([2.0, 2.5, 0.0]) / 8, rtol=0, atol=0.003)
    torch.testing.assert_close(green, torch.tensor([5.0, 5.5, 7.0]) / 8, rtol=0, atol=0.003)
    assert (blue == 0).all()


def test_levels_are_means_and_the_level_between_is_between():
    atlas = default_atlas()
    for k in range(1, 4):
        fine = torch.nn.functional.avg_pool2d(atlas.level(k - 1), 2)
        torch.testing.assert_close(atlas.level(k), fine, rtol=0, atol=1.01 / 255)  # both are rounded
    index, at = torch.tensor([atlas.indices("tag")[0]]), torch.tensor([0.37])
    low, high = (sample(atlas, index, at, at, torch.tensor([float(k)]))[0] for k in (2, 3))
    middle = sample(atlas, index, at, at, torch.tensor([2.25]))[0]
    torch.testing.assert_close(middle, 0.75 * low + 0.25 * high)


def test_distant_fine_texture_is_gray_and_near_is_not():
    """Mip selection: a chessboard of 1 cm squares, a pixel covers 8 cm; without mips it would be black and white."""
    K = torch.tensor([[50.0, 0, 31.5], [0, 50, 31.5], [0, 0, 1]])
    squares = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((4, 4)))
    atlas = build_atlas(np.repeat(squares[None, ..., None], 3, -1), ("chess",))
    spread = []
    for distance_m in (4.0, 0.1):
        b = SceneBuilder(np.random.default_rng(0), atlas)
        b.room(20, 20, 20, [b.material("chess", 0.16)] * 6)
        b.light((0, -10, 0), (0, 0, 0))
        T = torch.eye(4)
        T[:3, 3] = torch.tensor([0, -10, 10 - distance_m])
        image = render(stack([b.finish("test", "cpu")]), T[None], K, 64, 64).image[0]
        spread.append(float(image[:, 24:40, 24:40].std()))
    assert spread[0] < 0.01 and spread[1] > 0.2


def test_patterns_are_colours_and_differ_from_seed_to_seed():
    for name, (pattern, count) in PATTERNS.items():
        first = pattern(np.random.default_rng(0), 64)
        assert first.shape == (64, 64, 3) and count >= 1, name
        assert np.isfinite(first).all() and first.min() > -0.5 and first.max() < 2, name
        if name != "checker":
            assert not np.array_equal(first, pattern(np.random.default_rng(5), 64)), name


def test_an_atlas_needs_square_power_of_two_textures():
    with pytest.raises(ValueError, match="power of two"):
        build_atlas(np.zeros((1, 6, 6, 3)), ("a",))
