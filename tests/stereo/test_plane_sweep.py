"""The plane sweep on textured planes whose views are exact: each pixel of each view is a ray cut with the planes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from slam.errors import ConfigError
from slam.kernels.plane_sweep import parallax, project, semi_global, winners, zncc_cost
from slam.stereo.plane_sweep import PlaneSweepConfig, SweepResult, plane_sweep

H, W = 96, 128
K = np.array([[110.0, 0, 63.5], [0, 110.0, 47.5], [0, 0, 1]])
RANGE = (0.15, 1.2)
# planes n . p = 1 in the keyframe's frame: a slanted wall 2.5 m away and a floor 0.9 m below
WALL, FLOOR = np.array([0.1, 0.0, 0.4]), np.array([0.0, 1.1, 0.0])
# five looks from places around the keyframe
CENTRES = {"right": (0.2, 0.0, 0.0), "left": (-0.2, 0.0, 0.0), "up": (0.0, -0.2, 0.05), "still": (0.0, 0.0, 0.0)}


def noise_texture(seed: int, contrast: float = 60.0) -> np.ndarray:
    """(512, 512) gray with detail of several sizes, repeated outside."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.normal(size=(512, 512)).astype(np.float32), (0, 0), s) * s for s in (3, 6, 12)]
    texture = sum(layers)
    return (128 + contrast * texture / (2 * texture.std())).astype(np.float32)


def view(T_jk: np.ndarray, contrast: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Gray uint8 and inverse depth (H, W) of the two planes from camera j."""
    v, u = np.mgrid[:H, :W]
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T  # (H, W, 3) in camera j
    T_kj = np.linalg.inv(T_jk)
    turned, centre = rays @ T_kj[:3, :3].T, T_kj[:3, 3]
    gray, inv_depth = np.zeros((H, W), np.float32), np.zeros((H, W))
    for seed, n in enumerate((WALL, FLOOR)):
        inverse = turned @ n / (1 - centre @ n)  # of the depth along the ray
        points = centre + turned / np.maximum(inverse, 1e-6)[..., None]  # (H, W, 3) in the keyframe
        uv = points[..., [0, 1]] if n is WALL else points[..., [0, 2]]
        colour = cv2.remap(
            noise_texture(seed, contrast),
            (uv[..., 0] * 120 + 256).astype(np.float32),
            (uv[..., 1] * 120 + 256).astype(np.float32),
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_WRAP,
        )
        nearer = inverse > inv_depth
        gray, inv_depth = np.where(nearer, colour, gray), np.where(nearer, inverse, inv_depth)
    return np.clip(gray + 0.5, 0, 255).astype(np.uint8), inv_depth


def looking_from(centre: tuple[float, float, float], turn_rad: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """T_jk of a camera at `centre` of the keyframe's frame."""
    T_kj = np.eye(4)
    T_kj[:3, :3] = cv2.Rodrigues(np.array(turn_rad, float))[0]
    T_kj[:3, 3] = centre
    return np.linalg.inv(T_kj)


POSES = [
    looking_from(CENTRES["right"], (0, -0.05, 0.02)),
    looking_from(CENTRES["left"], (0.02, 0.04, 0)),
    looking_from(CENTRES["up"]),
]


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Keyframe, three neighbours, true inverse depth."""
    gray, truth = view(np.eye(4))
    return gray, [view(T)[0] for T in POSES], truth


@pytest.fixture(scope="module")
def result(scene) -> SweepResult:
    gray, grays, _ = scene
    return plane_sweep(gray, grays, K, POSES, RANGE)


def relative_error(inv_depth: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs(inv_depth / truth - 1)


def test_slanted_planes_are_found_to_a_percent(scene, result):
    """0.2 m of baseline at 2.5 m are 9 pixels: 1 % of depth is a tenth of a pixel."""
    error = relative_error(result.inv_depth, scene[2])
    assert np.median(error) < 0.01
    assert np.mean(error < 0.05) > 0.95


def test_confidence_and_sigma_tell_of_the_error(scene, result):
    _, _, truth = scene
    error = relative_error(result.inv_depth, truth)
    confident = result.confidence >= 0.5
    assert confident.mean() > 0.7
    assert error[confident].mean() < 0.01
    assert error[~confident].mean() > 2 * error[confident].mean()
    # an exact scene is better than the real ones that sigma was fitted to, but not by an order of magnitude
    ratio = np.median(np.abs(result.inv_depth - truth) / result.sigma)
    assert 0.1 < ratio < 1.0


def test_one_neighbour_is_enough_in_front_of_texture(scene):
    gray, grays, truth = scene
    one = plane_sweep(gray, grays[:1], K, POSES[:1], RANGE)
    inside = relative_error(one.inv_depth, truth)[8:-8, 24:-24]  # the sides leave the neighbour's image
    assert np.median(inside) < 0.02


def test_exposure_does_not_matter(scene, result):
    """Half the gain and another offset: ZNCC is blind to both, up to rounding to 8 bits."""
    gray, grays, _ = scene
    darker = [(0.5 * grays[0] + 20).astype(np.uint8), *grays[1:]]
    changed = plane_sweep(gray, darker, K, POSES, RANGE)
    assert np.mean(np.abs(changed.inv_depth / result.inv_depth - 1) < 0.02) > 0.95


def test_unit_of_the_poses_is_the_unit_of_depth(scene, result):
    gray, grays, _ = scene
    far = [T.copy() for T in POSES]
    for T in far:
        T[:3, 3] *= 1000  # millimetres
    other = plane_sweep(gray, grays, K, far, (RANGE[0] / 1000, RANGE[1] / 1000))
    np.testing.assert_allclose(other.inv_depth * 1000, result.inv_depth, rtol=0.02)
    np.testing.assert_allclose(other.confidence, result.confidence, atol=0.1)


def test_floats_and_bytes_give_the_same(scene, result):
    gray, grays, _ = scene
    floats = plane_sweep(gray.astype(np.float32), [g.astype(np.float32) for g in grays], K, POSES, RANGE)
    assert floats.inv_depth.tobytes() == result.inv_depth.tobytes()


def test_same_input_gives_same_bytes(scene, result):
    gray, grays, _ = scene
    again = plane_sweep(gray, grays, K, POSES, RANGE)
    for name in ("inv_depth", "sigma", "confidence"):
        assert getattr(again, name).tobytes() == getattr(result, name).tobytes()


def test_plain_walls_are_not_believed():
    """Noise of one gray level, different in each view, and nothing else."""
    rng = np.random.default_rng(3)
    plain = [np.clip(np.rint(128 + rng.normal(size=(H, W))), 0, 255).astype(np.uint8) for _ in range(4)]
    noisy = plane_sweep(plain[0], plain[1:], K, POSES, RANGE)
    assert np.mean(noisy.confidence >= 0.5) < 0.01
    blank = np.full((H, W), 128, np.uint8)
    assert plane_sweep(blank, [blank] * 3, K, POSES, RANGE).confidence.max() < 0.2


@pytest.mark.parametrize("turn_rad", [(0.0, 0.0, 0.0), (0.0, 0.05, 0.0)])
def test_without_baseline_nothing_is_measured(turn_rad):
    gray, _ = view(np.eye(4))
    T_jk = looking_from(CENTRES["still"], turn_rad)
    still = plane_sweep(gray, [view(T_jk)[0]] * 2, K, [T_jk] * 2, RANGE)
    assert still.confidence.max() == 0
    assert np.isfinite(still.inv_depth).all() and (still.inv_depth > 0).all() and (still.sigma > 0.5).all()


def test_without_neighbours_nothing_is_measured():
    alone = plane_sweep(view(np.eye(4))[0], [], K, [], RANGE)
    assert alone.confidence.max() == 0
    assert np.isfinite(alone.inv_depth).all() and (alone.inv_depth > 0).all()


def test_a_still_view_among_moved_ones_does_no_harm(scene, result):
    """Identical to the keyframe it fits at every depth; counted, it would be the best view everywhere."""
    gray, grays, _ = scene
    more = plane_sweep(gray, [gray, *grays], K, [np.eye(4), *POSES], RANGE)
    assert more.inv_depth.tobytes() == result.inv_depth.tobytes()


def test_what_no_view_sees_has_no_confidence():
    """Turned by 0.5 rad to the right: the left 43 % of the keyframe are outside (tan 0.5 = 0.546, half width 0.577)."""
    gray, truth = view(np.eye(4))
    T_jk = looking_from((0.2, 0.0, 0.0), (0.0, 0.5, 0.0))
    side = plane_sweep(gray, [view(T_jk)[0]], K, [T_jk], RANGE)
    assert side.confidence[:, :40].max() == 0
    assert np.mean(side.confidence[:, 90:] >= 0.5) > 0.3
    assert np.median(relative_error(side.inv_depth, truth)[:, 90:]) < 0.03


def test_an_occluded_view_is_left_out(scene):
    """A patch of foreign texture in one of three views: the other two decide, and their error is that of two views."""
    gray, grays, truth = scene
    region = np.s_[20:70, 30:90]
    blocked = grays[0].copy()
    blocked[region] = noise_texture(9)[:50, :60].astype(np.uint8)
    errors = {}
    for dropped in (0, 1):
        swept = plane_sweep(gray, [blocked, *grays[1:]], K, POSES, RANGE, PlaneSweepConfig(dropped_views=dropped))
        errors[dropped] = relative_error(swept.inv_depth, truth)[region].mean()
    assert errors[1] < 0.01
    assert errors[1] < 0.8 * errors[0]  # counted, the foreign texture pulls at the minimum


def test_cost_is_zncc_by_its_definition():
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(0, 255, (20, 24)).astype(np.float32) for _ in range(2))
    mean, square = (cv2.blur(x, (5, 5), borderType=cv2.BORDER_REPLICATE) for x in (a, a * a))
    u, v = np.meshgrid(np.arange(24, dtype=np.float32), np.arange(20, dtype=np.float32))
    u[3, 4] = 23.5  # outside
    cost = np.empty_like(a)
    zncc_cost(a, mean, square - mean * mean, b, u, v, 1e-3, cost)
    for y, x in [(2, 2), (10, 7), (17, 21), (8, 12)]:
        p, q = (w[y - 2 : y + 3, x - 2 : x + 3].ravel() for w in (a, b))
        assert cost[y, x] == pytest.approx((1 - np.corrcoef(p, q)[0, 1]) / 2, abs=1e-4)
    assert cost[3, 4] == -1


def test_smoothing_agrees_with_its_definition():
    """The recursion of Hirschmüller's eq. 13, written with plain loops over eight directions."""
    rng = np.random.default_rng(1)
    volume = rng.uniform(0, 1, (6, 7, 9)).astype(np.float32)
    gray = rng.uniform(0, 40, (6, 7)).astype(np.float32)
    p1, p2, edge = 0.1, 0.9, 5.0
    expected = np.zeros(volume.shape)
    for dy, dx in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]:
        path = np.zeros(volume.shape)
        for y in range(6) if dy >= 0 else range(5, -1, -1):
            for x in range(7) if dx >= 0 else range(6, -1, -1):
                yb, xb = y - dy, x - dx
                path[y, x] = volume[y, x]
                if 0 <= yb < 6 and 0 <= xb < 7:
                    before = np.pad(path[yb, xb], 1, constant_values=np.inf)
                    jump = max(p1, p2 / (1 + abs(gray[y, x] - gray[yb, xb]) / edge))
                    lowest = before.min()
                    best = np.min([before[1:-1], before[:-2] + p1, before[2:] + p1, np.full(9, lowest + jump)], 0)
                    path[y, x] += best - lowest
        expected += path / 8
    np.testing.assert_allclose(semi_global(volume, gray, p1, p2, edge), expected, atol=1e-5)


def test_the_minimum_of_a_parabola_is_found_between_hypotheses():
    """Costs 0.3 (d - 4.3)^2 + 0.1: minimum at 4.3, second difference 2 * 0.3."""
    costs = (0.3 * (np.arange(9) - 4.3) ** 2 + 0.1).astype(np.float32)[None, None]
    position, cost, curvature = (np.empty((1, 1), np.float32) for _ in range(3))
    winners(costs, costs, position, cost, curvature)
    assert position[0, 0] == pytest.approx(4.3, abs=1e-5)
    assert cost[0, 0] == pytest.approx(0.3 * 0.3**2 + 0.1, abs=1e-5)
    assert curvature[0, 0] == pytest.approx(0.6, abs=1e-5)


def test_parallax_is_the_derivative_of_the_projection():
    """Against a central difference, in a view that moved sideways, forwards and turned."""
    T_jk = looking_from((0.2, -0.1, 0.6), (0.02, -0.03, 0.1))
    A, b = (K @ T_jk[:3, :3] @ np.linalg.inv(K)).astype(np.float32), (K @ T_jk[:3, 3]).astype(np.float32)
    inv_depth = np.random.default_rng(0).uniform(0.3, 0.5, (H, W)).astype(np.float32)
    gain, seen = np.empty((H, W), np.float32), np.empty((H, W), np.float32)
    parallax(A[None], b[None], inv_depth, gain, seen)
    step = np.float32(1e-2)
    ends = np.empty((2, 2, H, W), np.float32)
    for k, d in enumerate((inv_depth - step, inv_depth + step)):
        project(A, b, d, ends[k, 0], ends[k, 1])
    expected = np.linalg.norm(ends[1] - ends[0], axis=0) / (2 * step)
    assert seen.mean() > 0.3
    np.testing.assert_allclose(gain[seen > 0], expected[seen > 0], rtol=0.01, atol=0.1)  # third order of the step
    assert gain[seen == 0].max() == 0


@pytest.mark.parametrize("shape", [(90, 122), (97, 131)])
def test_any_size_is_swept(shape):
    """Sides that no power of two divides; the principal point stays, so the crop is at the top left."""
    gray, truth = view(np.eye(4))
    grays = [view(T)[0] for T in POSES]
    h, w = shape
    if h > H:
        gray, *grays = (cv2.copyMakeBorder(g, 0, h - H, 0, w - W, cv2.BORDER_REFLECT) for g in (gray, *grays))
        truth = np.pad(truth, ((0, h - H), (0, w - W)), mode="edge")
    cropped = plane_sweep(gray[:h, :w], [g[:h, :w] for g in grays], K, POSES, RANGE)
    assert cropped.inv_depth.shape == shape
    assert np.median(relative_error(cropped.inv_depth, truth[:h, :w])) < 0.01


@pytest.mark.parametrize(
    "bad",
    [
        {"hypotheses": 4},
        {"dropped_views": 3},
        {"noise": 0.0},
        {"noise": float("nan")},
        {"small_step": 3.0},
        {"edge": -1.0},
    ],
)
def test_a_configuration_out_of_range_is_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        replace(PlaneSweepConfig(), **bad)


def test_arguments_that_do_not_fit_are_refused(scene):
    gray, grays, _ = scene
    with pytest.raises(ValueError, match="3 images and 2 poses"):
        plane_sweep(gray, grays, K, POSES[:2], RANGE)
    with pytest.raises(ValueError, match="size of the keyframe"):
        plane_sweep(gray, [grays[0][:-1]], K, POSES[:1], RANGE)
    with pytest.raises(ValueError, match="low < high"):
        plane_sweep(gray, grays, K, POSES, (1.0, 1.0))
    with pytest.raises(ValueError, match="finite"):
        plane_sweep(gray, grays, K, [np.full((4, 4), np.nan), *POSES[1:]], RANGE)
