"""DIS flow with Lucas-Kanade: sub-pixel flow of known warps, and a weight that knows where it is wrong."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.frames import Image
from slam.matching.dis import DisConfig, DisFeatures, DisFlow, as_exposed, cell_centres, grid

H, W, STRIDE = 120, 160, 4
SHIFT = np.float64([[1, 0, 2.3], [0, 1, -1.7]])
FAR_SHIFT = np.float64([[1, 0, 14.4], [0, 1, 6.7]])
AFFINE = np.float64([[1.03, 0.04, -3], [-0.03, 0.98, 2.5]])


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) float32 RGB of mean 128, detail of 1.5 to 10 pixels."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    layers = (cv2.GaussianBlur(noise, (0, 0), sigma) for sigma in (1.5, 4, 10))
    return 128 + 26 * sum(layer / layer.std() for layer in layers)


def pair(M: np.ndarray, height: int = H, width: int = W) -> tuple[np.ndarray, np.ndarray]:
    """Two images; the pixel p of the first lies at M (p, 1) in the second."""
    big = texture(height + 80, width + 80)
    inverse = cv2.invertAffineTransform(M)
    y, x = np.mgrid[:height, :width]
    source = np.stack([x, y], -1) @ inverse[:, :2].T + inverse[:, 2] + 40
    second = cv2.remap(big, source.astype(np.float32), None, cv2.INTER_CUBIC)
    return big[40 : 40 + height, 40 : 40 + width], second


def encoded(dis: DisFlow, *images: np.ndarray) -> list[DisFeatures]:
    return dis.encode([Image(np.clip(image, 0, 255).round().astype(np.uint8)) for image in images])


def flow(first: np.ndarray, second: np.ndarray, start: Tensor | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Flow (h, w, 2) of the cells in pixels, and the weight (h, w, 2) of u and v."""
    dis = DisFlow()
    cells = torch.from_numpy(grid(first.shape[0] // STRIDE, first.shape[1] // STRIDE))[None]
    uv = cells + start
    state = dis.start(encoded(dis, first), encoded(dis, second))
    _, residual, weight = dis.update(state, uv)
    return (STRIDE * (uv + residual - cells))[0].numpy(), weight[0, ..., :2].numpy()


def truth(M: np.ndarray, height: int = H, width: int = W, margin: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """True flow (h, w, 2) of the cell centres, and which of them end inside the image."""
    pixels = STRIDE * grid(height // STRIDE, width // STRIDE) + (STRIDE - 1) / 2
    end = pixels @ M[:, :2].T + M[:, 2]
    inside = ((end > margin) & (end < [width - 1 - margin, height - 1 - margin])).all(-1)
    return end - pixels, inside


@pytest.mark.parametrize("M", [SHIFT, FAR_SHIFT, AFFINE], ids=["shift", "far shift", "affine"])
def test_known_motion_to_a_fraction_of_a_pixel(M):
    found, weight = flow(*pair(M))
    true, inside = truth(M)
    error = np.linalg.norm(found - true, axis=-1)
    assert np.median(error[inside]) < 0.1  # measured 0.04 to 0.07
    assert np.quantile(error[inside], 0.95) < 0.3
    assert np.median(weight[inside]) > 0.5 and weight.min() >= 0 and weight.max() <= 1


@pytest.mark.parametrize(("gain", "offset"), [(1.1, 0), (0.9, 0), (1.0, 12), (0.8, 20)])
@pytest.mark.parametrize("M", [SHIFT, AFFINE], ids=["shift", "affine"])
def test_exposure_may_change(M, gain, offset):
    """Measured 0.04 to 0.09 px; 0.7 to 0.9 px where equal brightness is taken for granted."""
    first, second = pair(M)
    found, weight = flow(first, gain * second + offset)
    true, inside = truth(M)
    assert np.median(np.linalg.norm(found - true, axis=-1)[inside]) < 0.12
    assert np.median(weight[inside]) > 0.5


def test_exposure_is_measured_despite_a_patch_that_changed():
    """A fifth of the second image shows something else, much brighter."""
    first, second = pair(np.float64([[1, 0, 0], [0, 1, 0]]))
    second = 0.9 * second
    second[:, :32] = 250
    gray = [features.gray for features in encoded(DisFlow(), first, second)]
    pixels = STRIDE * grid(H // STRIDE, W // STRIDE) + 1.5
    exposed = as_exposed(*gray, pixels, pixels).astype(float)
    assert np.median(np.abs(exposed - gray[1])[:, 36:]) <= 1
    plain = np.full((H, W), 90, np.uint8)
    assert as_exposed(plain, gray[1], pixels, pixels) is plain


def test_a_start_near_a_motion_too_far_to_be_found_is_used():
    M = np.float64([[1, 0, 41.0], [0, 1, 0]])
    first, second = pair(M)
    true, inside = truth(M)
    found, weight = flow(first, second, torch.tensor([10.0, 0.0]))
    assert np.median(np.linalg.norm(found - true, axis=-1)[inside]) < 0.1 and np.median(weight[inside]) > 0.5


def test_what_leaves_the_image_has_no_weight():
    M = np.float64([[1, 0, 30], [0, 1, 0]])
    _, weight = flow(*pair(M), torch.tensor([7.0, 0.0]))
    assert weight[:, -7:].mean() < 0.02 < 0.5 < weight[:, 5:-11].mean()


def test_plain_walls_have_no_weight_and_lines_have_texture_only_across():
    plain = np.full((H, W, 3), 90.0)
    found, weight = flow(plain, plain)
    assert weight.max() < 1e-6 and np.isfinite(found).all()
    stripes = plain + 60 * np.sin(0.5 * np.arange(W))[None, :, None]
    across, along, _ = encoded(DisFlow(), stripes)[0].texture[3:-3, 3:-3].transpose(2, 0, 1)
    assert across.min() > 0.8 and along.max() < 1e-6
    assert flow(stripes, stripes)[1][..., 1].max() < 1e-6


@pytest.mark.parametrize("angle", [0.5, 2.2])
def test_a_slanted_line_tells_of_the_motion_across_it_alone(angle: float):
    v, u = np.mgrid[:H, :W]
    across = np.array([np.cos(angle), np.sin(angle)])
    stripes = np.full((H, W, 3), 90.0) + 60 * np.sin(0.5 * (across[0] * u + across[1] * v))[..., None]
    uu, vv, uv = encoded(DisFlow(), stripes)[0].texture[3:-3, 3:-3].transpose(2, 0, 1)
    information = np.stack([np.stack([uu, uv], -1), np.stack([uv, vv], -1)], -1)
    along = np.array([-across[1], across[0]])
    assert (information @ across @ across).min() > 0.8 and (information @ along @ along).max() < 0.05


def test_noise_of_a_camera_is_no_texture():
    """Two gray levels of noise on a plain wall: the gradient's square is about 1, the weight's half at 25."""
    rng = np.random.default_rng(1)
    first, second = (90 + 2 * rng.standard_normal((H, W, 3)) for _ in range(2))
    _, weight = flow(first, second)
    assert weight.mean() < 0.03


def test_what_is_hidden_in_the_second_image_has_low_weight():
    first, second = pair(SHIFT)
    second = second.copy()
    second[40:80, 60:110] = texture(40, 50, seed=9)
    _, weight = flow(first, second)
    assert weight[12:18, 17:25].mean() < 0.1  # cells at least 6 px within the patch
    assert weight[2:-2, 2:12].mean() > 0.5


def test_images_without_anything_in_common_have_little_weight():
    _, weight = flow(texture(H, W, 1), texture(H, W, 2))
    assert weight.mean() < 0.1


def test_the_way_back_undoes_the_way():
    first, second = pair(AFFINE)
    forth, weight = flow(first, second)
    back, _ = flow(second, first)
    pixels = STRIDE * grid(H // STRIDE, W // STRIDE) + (STRIDE - 1) / 2
    end = (pixels + forth - (STRIDE - 1) / 2) / STRIDE
    there = cv2.remap(back.astype(np.float32), end.astype(np.float32), None, cv2.INTER_LINEAR)
    sure = (weight.mean(-1) > 0.5) & truth(AFFINE)[1]
    assert sure.mean() > 0.6
    assert np.median(np.linalg.norm(forth + there, axis=-1)[sure]) < 0.1


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -3e38])
def test_a_nonsense_guess_gives_finite_flow(nonsense):
    """A diverged pose reprojects to anywhere; OpenCV's DIS reads outside of its images where the start is NaN."""
    dis, (first, second) = DisFlow(), pair(SHIFT)
    uv = torch.from_numpy(grid(H // STRIDE, W // STRIDE))[None].clone()
    uv[0, 4:12, 5:20] = nonsense
    state, _, weight = dis.update(dis.start(encoded(dis, first), encoded(dis, second)), uv)
    assert torch.isfinite(state.target_uv).all() and torch.isfinite(weight).all()


def test_later_updates_return_the_same_target():
    dis, (first, second) = DisFlow(), pair(SHIFT)
    uv = torch.from_numpy(grid(H // STRIDE, W // STRIDE))[None]
    state = dis.start(encoded(dis, first), encoded(dis, second))
    state, residual, weight = dis.update(state, uv)
    _, again, weight_again = dis.update(state, uv + 0.7)
    torch.testing.assert_close(again + 0.7, residual, rtol=0, atol=1e-5)
    assert torch.equal(weight, weight_again)


def test_edges_of_a_batch_are_those_alone_and_the_same_every_time():
    dis = DisFlow()
    features = encoded(dis, *(image for M in (SHIFT, AFFINE) for image in pair(M)))
    uv = torch.from_numpy(grid(H // STRIDE, W // STRIDE)).expand(2, -1, -1, -1)
    state = dis.start([features[0], features[2]], [features[1], features[3]])
    _, residual, weight = dis.update(state, uv)
    assert (*residual.shape, *weight.shape[-1:]) == (2, H // STRIDE, W // STRIDE, 2, 3)
    for e, (i, j) in enumerate([(0, 1), (2, 3)]):
        _, alone, weight_alone = DisFlow().update(dis.start([features[i]], [features[j]]), uv[:1])
        assert torch.equal(alone[0], residual[e]) and torch.equal(weight_alone[0], weight[e])


@pytest.mark.parametrize(("height", "width"), [(72, 200), (200, 72), (56, 104)])
def test_any_aspect_whose_sides_are_multiples_of_eight(height, width):
    found, weight = flow(*pair(SHIFT, height, width))
    true, inside = truth(SHIFT, height, width)
    assert found.shape == weight.shape == (height // 4, width // 4, 2)
    assert np.median(np.linalg.norm(found - true, axis=-1)[inside]) < 0.1


def test_cell_centres_are_between_the_four_middle_pixels():
    v, u = np.mgrid[:12, :16]
    at = cell_centres(np.stack([u, v], -1).astype(np.float32), 4)
    np.testing.assert_array_equal(at, 4 * grid(3, 4) + 1.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"updates": 0},
        {"finest_scale": 4},
        {"patch_px": 8},
        {"patch_px": 3},
        {"patch_px": 65},
        {"descent_steps": 0},
        {"variational_steps": -1},
        {"texture": 0.0},
        {"forward_backward_px": 0.0},
        {"forward_backward_ratio": float("nan")},
        {"max_refinement_px": -1.0},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DisConfig(**wrong)
