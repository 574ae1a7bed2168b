"""Static probability on an analytic scene whose flow is computed here, point by point."""

import importlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from slam.geometry import se3
from slam.geometry.camera import pixel_grid
from slam.kernels.flow_deviations import FLOW_SIGMA
from slam.matching.movers import (
    CONTRADICTED,
    MIN_PARTNERS,
    STILL,
    Evidence,
    consensus,
    depth_evidence,
    flow_evidence,
    static_probability,
    static_share,
)
from slam.networks.storage import load_networks
from slam.sources.demo import DemoConfig

H, W = 36, 48
K = torch.tensor([[40.0, 0, 23.5], [0, 42.0, 17.5], [0, 0, 1]], dtype=torch.float64)
BOX = (slice(12, 22), slice(18, 30))  # rows and columns
INNER = (slice(14, 20), slice(20, 28))  # without the cells that smoothing mixes
PX = 0.25  # cells
CERTAIN = torch.sigmoid(torch.tensor(STILL)).item()


def scene() -> Tensor:
    """(H, W) float64 inverse depth between 0.3 and 0.8: a slope with waves."""
    u, v = pixel_grid(H, W, like=K).unbind(-1)
    return 0.5 + 0.006 * (v - 17.5) + 0.002 * (u - 23.5) + 0.08 * torch.sin(u / 5) * torch.cos(v / 6)


def moved_uv(inv_depth: Tensor, T_ji: Tensor) -> Tensor:
    """(H, W, 2) where the points of inverse depth (H, W) lie in view j."""
    uv1 = torch.cat([pixel_grid(H, W, like=K), torch.ones(H, W, 1, dtype=K.dtype)], -1)
    p_i = (torch.linalg.inv(K) @ uv1[..., None])[..., 0] / inv_depth[..., None]
    p_j = (T_ji[:3, :3] @ p_i[..., None])[..., 0] + T_ji[:3, 3]
    uvw = (K @ p_j[..., None])[..., 0]
    return uvw[..., :2] / uvw[..., 2:]


def motions(count: int) -> Tensor:
    """(count, 4, 4) T_ji: mostly sideways and ahead, with some rotation; parallax of several cells."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    xi = torch.tensor([0.15, 0.03, 0.05, 0.0, 0.02, 0.0]) + 0.02 * noise
    return se3.exp(xi)


def evidence(uv: Tensor, T_ji: Tensor, inv_depth: Tensor, relative_sigma: float = 0.02, weight: Tensor | None = None):
    """Of measured positions (E, H, W, 2), all of full weight, to the float32 of the system."""
    E = len(uv)
    d = inv_depth.float().expand(E, H, W)
    weight = torch.ones(E, H, W, 2) if weight is None else weight
    return flow_evidence(d, torch.full_like(d, relative_sigma), uv.float(), weight, T_ji, K)


def directions(inv_depth: Tensor, T_ji: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors (H, W, 2) in view j along the epipolar lines and across, by a difference of two depths."""
    along = torch.nn.functional.normalize(moved_uv(1.001 * inv_depth, T_ji) - moved_uv(inv_depth, T_ji), dim=-1)
    return along, torch.stack([-along[..., 1], along[..., 0]], -1)


def box(inside: float) -> Tensor:
    """(H, W) a value inside of BOX, 0 elsewhere."""
    mask = torch.zeros(H, W, dtype=torch.float64)
    mask[BOX] = inside
    return mask


def test_a_static_scene_is_static_everywhere():
    T_ji = motions(5)
    uv = torch.stack([moved_uv(scene(), T) for T in T_ji])
    found = evidence(uv, T_ji, scene())
    cells = static_probability(found, torch.zeros(5, dtype=torch.long), 1, depth_evidence(*like_stereo(scene())))
    assert found.speaks.float().mean() > 0.8 and not found.speaks.all()  # some have left the image
    assert float(found.log_odds[found.speaks].min()) > STILL - 0.01  # float32
    assert float(cells.probability.min()) > CERTAIN - 1e-3 > 0.98 and not cells.suspect.any()


def like_stereo(inv_depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse depth (1, H, W), 2 % of sigma, and a guess of a single picture: the scene's, in another unit."""
    d = inv_depth.float()[None]
    return d, torch.full_like(d, 0.02), 3 * scene().float()[None]


def test_what_moves_across_the_epipolar_lines_is_found_without_any_depth():
    """Depth says nothing: sigma is 20 times the depth. Two pixels are 8 standard deviations of the flow."""
    T_ji = motions(4)
    uv = torch.stack([moved_uv(scene(), T) + 2 * PX * box(1)[..., None] * directions(scene(), T)[1] for T in T_ji])
    p = static_probability(evidence(uv, T_ji, scene(), 20.0), torch.zeros(4, dtype=torch.long), 1).probability[0]
    assert float(p[INNER].max()) < 0.02
    outside = box(1) == 0
    assert float(p[:8].min()) > CERTAIN - 0.01 and float((p[outside] < 0.5).float().mean()) < 0.05  # the dilated rim


def test_sigma_of_depth_explains_what_lies_along_the_lines_and_nothing_else():
    T_ji = motions(1)
    along, across = directions(scene(), T_ji[0])
    exact = moved_uv(scene(), T_ji[0])
    amount = 2 * PX * box(1)[..., None]
    for direction, sigma, contradicted in ((along, 0.02, True), (along, 1.0, False), (across, 1.0, True)):
        found = evidence((exact + amount * direction)[None], T_ji, scene(), sigma)
        assert ((found.log_odds[0][BOX] < 0) == contradicted).all(), (sigma, contradicted)
    deviations = 2 * PX / FLOW_SIGMA  # of the residual across, by hand
    expected = torch.full((10, 12), STILL * (1 - deviations / CONTRADICTED))
    torch.testing.assert_close(found.log_odds[0][BOX], expected, rtol=0, atol=0.02)


def test_a_residual_of_the_whole_pair_is_put_down_to_its_pose_up_to_a_pixel():
    """Of 0.7 pixels everywhere, 2.8 standard deviations of the flow, and of 4.2 pixels, with depth exact."""
    T_ji = motions(1)
    exact = moved_uv(scene(), T_ji[0])
    slightly, wrong = (evidence((exact + n * PX * 0.5)[None], T_ji, scene(), 0.0) for n in (1, 6))
    m = 0.5 * PX * 2**0.5 / 1.1774  # of a Gaussian in two dimensions with this median
    deviations = 0.5 * PX * 2**0.5 / (FLOW_SIGMA**2 + m**2) ** 0.5
    torch.testing.assert_close(slightly.log_odds[0, 18, 24].item(), STILL * (1 - deviations / 3), rtol=0, atol=0.02)
    assert float(wrong.log_odds[wrong.speaks].max()) < 0
    moving = evidence((exact + PX * (0.5 + 4 * box(1)[..., None]))[None], T_ji, scene(), 0.0)
    assert float(moving.log_odds[0][BOX].max()) < -STILL  # against the others as before


def test_the_sigma_of_depth_moves_a_cell_as_far_as_another_depth_does():
    """A depth wrong by one sigma, whose flow error is far above the flow's own: one standard deviation."""
    T_ji, sigma = motions(1), 0.2
    T_ji[:, :3, 3] *= 4
    found = evidence(moved_uv((1 + sigma) * scene(), T_ji[0])[None], T_ji, scene(), sigma)
    one = STILL * (1 - 1 / CONTRADICTED)
    assert float((found.log_odds[found.speaks] - one).abs().median()) < 0.2  # the line is crossed at a curve


def test_what_moves_along_the_lines_is_found_by_the_depth_of_single_pictures_alone():
    """Stereo sees the box at 0.4 of its depth, which fits all the flow."""
    T_ji = motions(4)
    seen = scene() * (1 + box(1.5))
    flow = evidence(torch.stack([moved_uv(seen, T) for T in T_ji]), T_ji, seen)
    i = torch.zeros(4, dtype=torch.long)
    by_flow = static_probability(flow, i, 1).probability[0]
    by_both = static_probability(flow, i, 1, depth_evidence(*like_stereo(seen))).probability[0]
    assert float(by_flow.min()) > 0.95
    assert float(by_both[INNER].max()) < 0.15 and float((by_both < 0.5).float().mean()) < 1.6 * 10 * 12 / (H * W)


def test_the_fit_undoes_a_unit_a_power_and_a_bend_and_a_bad_guess_accuses_nobody():
    u, v = (2 * pixel_grid(H, W, like=K) / torch.tensor([W - 1, H - 1]) - 1).unbind(-1)
    seen = (scene() * (1 + box(1.0))).float()[None]
    sigma = torch.full_like(seen, 0.02)
    guess = (7 * scene() ** 0.6 * torch.exp(0.4 * u - 0.3 * v * v + 0.2 * u * v)).float()[None]
    found = depth_evidence(seen, sigma, guess)
    assert float(found.log_odds[0][INNER].max()) < 0 and float(found.log_odds[0, :, :12].min()) > STILL - 0.3
    noise = torch.randn(1, H, W, generator=torch.Generator().manual_seed(0))
    vague = depth_evidence(seen * torch.exp(0.5 * noise), sigma, guess)  # they disagree everywhere
    assert float((vague.log_odds[0] < 0)[box(1) == 0].float().mean()) < 0.02
    unsure = depth_evidence(seen, torch.full_like(seen, 0.5), guess)
    assert float(unsure.log_odds.min()) > 0  # stereo, this time
    flat = depth_evidence(seen, sigma, torch.ones_like(seen))
    assert flat.log_odds.isfinite().all()


@pytest.mark.parametrize("mistake", ["inverted pose", "swapped u and v", "negated translation"])
def test_a_mistaken_convention_makes_a_frame_suspect(mistake):
    T_ji = motions(4)
    uv = torch.stack([moved_uv(scene(), T) for T in T_ji])
    if mistake == "inverted pose":
        T_ji = se3.inverse(T_ji)
    elif mistake == "negated translation":
        T_ji[:, :3, 3] *= -1
    else:
        uv = uv.flip(-1)
    found = evidence(uv, T_ji, scene())
    cells = static_probability(found, torch.zeros(4, dtype=torch.long), 1)
    assert float((found.log_odds[found.speaks] < 0).float().mean()) > 0.7
    assert cells.suspect.tolist() == [True] and float(cells.probability.min()) == 1


def votes(against: int, silent: int, still: int, frame: int = 0) -> tuple[Evidence, Tensor]:
    """Pairs of one frame, each of one opinion on all cells of BOX and for the rest."""
    opinions = [-2 * STILL] * against + [0.0] * silent + [STILL] * still
    log_odds = torch.full((len(opinions), H, W), STILL)
    for n, opinion in enumerate(opinions):
        log_odds[(n, *BOX)] = opinion
    return Evidence(log_odds, log_odds != 0), torch.full((len(opinions),), frame)


@pytest.mark.parametrize(
    ("against", "silent", "still", "masked"),
    [
        (MIN_PARTNERS, 3, 0, True),
        (MIN_PARTNERS - 1, 3, 0, False),  # too few see it
        (MIN_PARTNERS - 1, 0, 0, True),  # but the frame has no more
        (1, 0, 6, False),
        (4, 0, 4, True),
    ],
)
def test_a_cell_is_masked_by_the_vote_of_enough_views(against, silent, still, masked):
    p = static_probability(*votes(against, silent, still), 1).probability[0]
    assert ((p[INNER] < 0.5) == masked).all() and float(p[:8].min()) == pytest.approx(CERTAIN)


def test_a_stray_cell_is_not_masked():
    log_odds = torch.full((4, H, W), STILL)
    log_odds[:, 18, 24] = -2 * STILL
    found = Evidence(log_odds, torch.ones_like(log_odds, dtype=torch.bool))
    assert float(static_probability(found, torch.zeros(4, dtype=torch.long), 1).probability.min()) > 0.9


def test_masks_grow_by_a_cell():
    p = static_probability(*votes(4, 0, 0), 1).probability[0] < 0.5
    rows, columns = p.any(1).nonzero().flatten(), p.any(0).nonzero().flatten()
    assert (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])) == (11, 22, 17, 30)


def test_a_frame_that_would_be_masked_for_the_most_part_is_left_alone():
    log_odds = torch.full((8, H, W), STILL)
    log_odds[:4, :23] = -STILL  # 64 % of frame 0
    log_odds[4:, :19] = -STILL  # 53 % of frame 1, 56 % with the rim
    i = torch.tensor([0] * 4 + [1] * 4)
    cells = static_probability(Evidence(log_odds, torch.ones_like(log_odds, dtype=torch.bool)), i, 3)
    assert cells.suspect.tolist() == [True, False, False]
    assert float(cells.probability[0].min()) == 1 and float(cells.probability[1, :18].max()) < 0.5
    assert float(cells.probability[2].min()) == pytest.approx(CERTAIN)  # of which nothing is known


def agreeing(uv: Tensor, T_ji: Tensor, weight: Tensor, scale: float = 5.0) -> Tensor:
    d = scene().float().expand(len(uv), H, W)
    return consensus(d, torch.full_like(d, 0.02), uv.float(), weight, T_ji, K, scale)


def test_a_flow_off_by_the_scale_weighs_a_quarter():
    """Across the epipolar line no depth explains it: the deviation is that of the flow alone."""
    T_ji = se3.exp(torch.tensor([[0.2, 0, 0, 0, 0, 0]], dtype=torch.float64))
    off = 4 * FLOW_SIGMA * box(1)
    uv = moved_uv(scene(), T_ji[0])[None] + torch.stack([0 * off, off], -1)
    weight = torch.ones(1, H, W, 2)
    weight[0, 3, 3] = 0
    found = agreeing(uv, T_ji, weight, scale=4.0)
    assert float(found[0, 15, 24]) == pytest.approx(0.25, abs=1e-3)
    assert float(found[0, 3, 3]) == 1 and float(found[0, 5, 5]) == pytest.approx(1, abs=1e-3)


def test_cells_that_move_share_little_with_the_rest_unless_most_do():
    T_ji = motions(4)
    i, weight = torch.tensor([0, 0, 1, 1]), torch.ones(4, H, W, 2)
    uv = torch.stack([moved_uv(scene(), T) for T in T_ji])
    uv[:2] += torch.stack([box(0), box(8 * PX)], -1)
    static = static_share(agreeing(uv, T_ji, weight), weight, i, 3)
    assert float(static[0][INNER].max()) < 0.1 and float(static[0, :10].min()) > 0.9
    assert float(static[1].min()) > 0.9 and bool((static[2] == 1).all())  # of the last nothing is known
    wrong = static_share(torch.full((4, H, W), 0.01), weight, i, 3)
    assert bool((wrong == 1).all())  # it is the poses that are wrong


def test_nothing_is_said_without_depth_flow_or_image():
    T_ji = motions(1)
    d = scene()
    d[3, 3] = 0
    weight = torch.ones(1, H, W, 2)
    weight[0, 5, 5] = 0
    uv = moved_uv(scene(), T_ji[0])
    uv[7, 7] = torch.tensor([-1.0, 4.0])
    found = evidence(uv[None], T_ji, d, weight=weight)
    for cell in ((3, 3), (5, 5), (7, 7)):
        assert not found.speaks[0][cell] and float(found.log_odds[0][cell]) == 0
    assert found.speaks[0, 20, 20] and found.log_odds.isfinite().all()


def test_flow_counts_in_the_direction_in_which_the_image_has_texture():
    T_ji = motions(1)
    uv = moved_uv(scene(), T_ji[0])[None] + torch.stack([box(0), box(2 * PX)], -1)
    sees_u, sees_v = torch.tensor([1.0, 0.0]).expand(1, H, W, 2), torch.tensor([0.0, 1.0]).expand(1, H, W, 2)
    blind, seeing = (evidence(uv, T_ji, scene(), 0.02, weight) for weight in (sees_u, sees_v))
    assert float(blind.log_odds[blind.speaks].min()) > 0.9 * STILL
    assert float(seeing.log_odds[0][BOX].max()) < 0


def test_the_unit_of_length_does_not_matter():
    T_ji = motions(4)
    seen = scene() * (1 + box(0.5))
    uv = torch.stack([moved_uv(scene(), T) + PX for T in T_ji])
    larger = T_ji.clone()
    larger[:, :3, 3] *= 2.7
    a, b = evidence(uv, T_ji, seen), evidence(uv, larger, seen / 2.7)
    torch.testing.assert_close(a.log_odds, b.log_odds, rtol=0, atol=2e-3)
    d, sigma, guess = like_stereo(seen)
    one, other = depth_evidence(d, sigma, guess), depth_evidence(d / 2.7, sigma, 5 * guess)
    torch.testing.assert_close(one.log_odds, other.log_odds, rtol=0, atol=2e-3)


def test_movers_of_a_rendered_clip_are_told_from_the_scene(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    bench = importlib.import_module("bench_movers")
    assert bench.auc(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([False, False, True, True])) == 0.875
    monkeypatch.setattr(bench, "EVERY", 6)
    with torch.inference_mode():
        clip = bench.measured(
            DemoConfig("living", seed=1, frames=20, width=256, height=192, movers="rigid"), load_networks("fast")
        )
        found = bench.scores([clip], with_depth=True)
    assert found["AUC"] > 0.9 and found["masked"] < 0.03
