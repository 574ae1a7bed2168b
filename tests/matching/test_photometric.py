"""Photometric alignment on warped textures: exact shifts, exposure, what cannot be measured, and who has the word."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.frames import Image
from slam.geometry.camera import pixel_grid, sample
from slam.kernels.lucas_kanade import UNKNOWN, photometric_step, warp
from slam.matching.dis import grid
from slam.matching.photometric import (
    STRIDE,
    PhotometricAlignment,
    PhotometricRefinement,
    RefinementConfig,
    smoothed,
)

H, W = 96, 128
CELLS = grid(H // STRIDE, W // STRIDE)
INNER = (slice(4, -4), slice(4, -4))
SHIFT = np.array([0.6, -0.4], np.float32)  # of the second image's content, pixels


def texture(shift: np.ndarray = np.zeros(2)) -> np.ndarray:
    """(H, W) float32 of mean 128; the content at p of the unshifted one lies at p + shift."""
    noise = np.random.default_rng(0).standard_normal((H + 40, W + 40)).astype(np.float32)
    layers = [cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (1.5, 4)]
    big = 128 + 25 * sum(layer / layer.std() for layer in layers)
    y, x = np.mgrid[:H, :W].astype(np.float32)
    return cv2.remap(big, x + 20 - np.float32(shift[0]), y + 20 - np.float32(shift[1]), cv2.INTER_LANCZOS4)


def image(gray: np.ndarray) -> Image:
    """An image without colour."""
    return Image(np.clip(gray, 0, 255).round().astype(np.uint8)[..., None].repeat(3, -1))


def step(first: np.ndarray, second: np.ndarray, uv: np.ndarray = CELLS) -> tuple[np.ndarray, np.ndarray]:
    gray_i, gray_j = (smoothed(np.clip(g, 0, 255).round().astype(np.uint8)) for g in (first, second))
    given = (torch.from_numpy(x)[None] for x in (gray_i, gray_j, uv))
    shift, covariance = photometric_step(*given, 6, 0.5)
    return shift[0].numpy(), covariance[0, ..., :2].numpy()


@pytest.mark.parametrize("gain, offset", [(1.0, 0.0), (1.2, -20.0)], ids=["same exposure", "brighter"])
def test_two_steps_find_a_shift_below_a_pixel(gain, offset):
    """The first is right to second order, the second to a thirtieth of a pixel."""
    first, second = texture(), gain * texture(SHIFT) + offset
    shift, _ = step(first, second)
    assert np.abs(np.median(shift[INNER] - SHIFT, (0, 1))).max() < 0.06
    more, _ = step(first, second, CELLS + SHIFT / STRIDE * 0.9)
    error = more[INNER] - 0.1 * SHIFT
    assert np.abs(np.median(error, (0, 1))).max() < 0.03
    assert np.quantile(np.linalg.norm(error, axis=-1), 0.9) < 0.2


def test_the_variance_tells_good_patches_from_bad_ones():
    """Where the second image shows something else the fit is bad; where there is no texture, nothing is known."""
    first, second = texture(), texture(SHIFT)
    second[:, W // 2 :] = texture(np.array([0.0, 17.0]))[:, W // 2 :]
    first[: H // 3], second[: H // 3] = 128, 128
    shift, variance = step(first, second)
    good, other = variance[12:-4, 4 : W // 8 - 3], variance[12:-4, W // 8 + 3 : -4]
    plain = variance[2 : H // 12 - 2, 4:-4]
    assert np.median(other) > 10 * np.median(good) and plain.min() > 2 * np.median(good)
    assert np.abs(shift[2 : H // 12 - 2, 4:-4]).max() < 1e-3


def test_what_lies_outside_of_the_other_view_is_unknown():
    shift, variance = step(texture(), texture(), CELLS + np.float32([W / (2 * STRIDE), 0]))
    assert (variance[:, W // (2 * STRIDE) + 2 :] == UNKNOWN).all() and not shift[:, W // (2 * STRIDE) + 2 :].any()
    assert (variance[INNER][:, : W // (2 * STRIDE) - 8] < UNKNOWN).all()
    nowhere, unknown = step(texture(), texture(), np.full_like(CELLS, np.nan))
    assert np.isfinite(nowhere).all() and np.isfinite(unknown).all()


def test_the_warp_reads_where_the_interpolated_cells_say():
    rng = np.random.default_rng(1)
    gray, offset = texture(), rng.uniform(-6, 6, CELLS.shape).astype(np.float32)
    warped, seen = np.empty_like(gray), np.empty_like(gray)
    warp(gray, offset, warped, seen)
    full = torch.nn.functional.interpolate(
        torch.from_numpy(offset).permute(2, 0, 1)[None], (H, W), mode="bilinear", align_corners=False
    )
    position = full.permute(0, 2, 3, 1) + pixel_grid(H, W, like=full)
    expected = sample(torch.from_numpy(gray)[None, None], position, padding="border")[0, 0].numpy()
    np.testing.assert_allclose(warped, expected, atol=0.3)  # the last column is read a thousandth further in
    u, v = position[0].unbind(-1)
    inside = (u >= 1) & (v >= 1) & (u <= W - 2) & (v <= H - 2)
    assert (seen.astype(bool) == inside.numpy()).mean() > 0.999


class Rough:
    """A flow of stride 8 that is wrong by a constant, pixels, and counts its updates."""

    stride = 8
    max_updates = 3

    def __init__(self, error_px: float, confidence: float = 0.5) -> None:
        self.updates, self.error_px, self.confidence = 0, error_px, confidence

    def encode(self, images: list[Image]) -> list[int]:
        return [0] * len(images)

    def start(self, features_i: list[int], features_j: list[int]) -> None:
        return None

    def update(self, state: None, uv: Tensor) -> tuple[None, Tensor, Tensor]:
        self.updates += 1
        h, w = uv.shape[1:3]
        true = pixel_grid(h, w, like=uv) + torch.from_numpy((SHIFT + self.error_px) / self.stride).to(uv)
        return state, true - uv, torch.full_like(uv, self.confidence)


def aligned(flow: Rough, uv: Tensor, follow: bool = True) -> tuple[Tensor, Tensor]:
    """Flow (h, w, 2), pixels, and weight after the last update; the reprojection follows the flow, or stays."""
    correspondence = PhotometricRefinement(flow, RefinementConfig(settled_px=0.5))
    features = correspondence.encode([image(texture(shift)) for shift in (np.zeros(2), SHIFT)])
    state = correspondence.start(features[:1], features[1:])
    while not correspondence.finished(state):
        state, residual, weight = correspondence.update(state, uv)
        target = uv + residual
        uv = uv + residual.mean((1, 2), keepdim=True) if follow else uv
    return ((target - pixel_grid(H // STRIDE, W // STRIDE, like=uv)) * STRIDE)[0], weight[0, ..., :2]


def test_the_flow_has_its_turn_until_it_settles_and_the_images_the_last_word():
    flow = Rough(0.7)
    found, weight = aligned(flow, torch.from_numpy(CELLS)[None])
    assert flow.updates == 2  # the first moved the reprojection, the second did not
    error = (found[INNER] - torch.from_numpy(SHIFT)).norm(dim=-1)
    assert error.median() < 0.1  # the flow alone is off by 1
    assert weight.mean() == pytest.approx(flow.confidence, rel=1e-4) and weight.min() >= 0


def test_a_flow_of_coarser_cells_is_asked_at_their_own_centres():
    """A shift of the fine cells is the same shift, in pixels, of the coarse ones, and so is what comes back."""

    class Heard(Rough):
        def update(self, state: None, uv: Tensor) -> tuple[None, Tensor, Tensor]:
            self.uv = uv
            return super().update(state, uv)

    flow, shift_px = Heard(0.0), torch.tensor([3.0, -2.0])
    correspondence = PhotometricRefinement(flow)
    features = correspondence.encode([image(texture())])
    uv = torch.from_numpy(CELLS)[None] + shift_px / STRIDE
    _, residual, _ = correspondence.update(correspondence.start(features, features), uv)
    torch.testing.assert_close(flow.uv, pixel_grid(H // 8, W // 8, like=uv)[None] + shift_px / 8)
    torch.testing.assert_close(residual * STRIDE, (torch.from_numpy(SHIFT) - shift_px).expand_as(residual))


def test_where_the_depth_is_wrong_the_flow_is_the_start():
    """A reprojection 12 px off is out of reach; the flow is 0.4 px off and within."""
    start = torch.from_numpy(CELLS)[None] + 12 / STRIDE
    found, _ = aligned(Rough(0.3), start, follow=False)
    error = (found[INNER] - torch.from_numpy(SHIFT)).norm(dim=-1)
    assert error.median() < 0.15


def test_it_goes_on_after_a_bounded_number_of_updates():
    class Restless(Rough):
        def update(self, state: None, uv: Tensor) -> tuple[None, Tensor, Tensor]:
            self.updates += 1
            return state, torch.ones_like(uv), torch.ones_like(uv)

    flow = Restless(0.0)
    aligned(flow, torch.from_numpy(CELLS)[None])
    assert flow.updates == RefinementConfig().max_flow_updates


@pytest.mark.parametrize("wrong", [{"patch_px": 5}, {"patch_px": 64}, {"updates": 0}, {"sigma_px": 0.0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RefinementConfig(**wrong)


def test_strides_must_fit():
    flow = Rough(0.0)
    flow.stride = 6
    with pytest.raises(ValueError, match="multiple"):
        PhotometricRefinement(flow)


def test_alignment_alone_finds_a_shift_and_weighs_patches_by_what_they_show():
    first, second = texture(), texture(SHIFT)
    first[: H // 3], second[: H // 3] = 128, 128
    alone = PhotometricAlignment()
    images = alone.encode([image(first), image(second)])
    state, uv = alone.start(images[:1], images[1:]), torch.from_numpy(CELLS)[None]
    for _ in range(alone.max_updates):
        state, residual_uv, weight = alone.update(state, uv)
        uv = uv + residual_uv
    shown, plain = (slice(H // 12 + 2, -4), slice(4, -4)), (slice(2, H // 12 - 2), slice(4, -4))
    found = STRIDE * (uv[0].numpy() - CELLS)
    assert np.abs(np.median(found[shown] - SHIFT, (0, 1))).max() < 0.03
    assert weight[0][shown].median() > 0.5 and weight[0][plain].max() < 0.5 * weight[0][shown].median()
