"""What a wrong sign or convention would break in the disagreement of two frames of known poses."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry import se3
from slam.geometry.camera import pixel_grid, sample
from slam.geometry.flow import reproject
from slam.networks.prior import STRIDE
from slam.refinement.clip import Clip
from slam.refinement.constraints import Constraints
from slam.refinement.flows import Flows, mismatch
from slam.refinement.losses import ConsistencyWeights, consistency_loss, pair_errors, reference_loss

F64 = torch.float64
PAIRS = ((0, 1), (3, 7), (20, 12), (2, 18))  # frames of the room; forth and back in time, near and far
MUTANTS = {
    "t negated": lambda T_ji: se3.from_rt(T_ji[:, :3, :3], -T_ji[:, :3, 3]),
    "i from j": se3.inverse,
    "R transposed": lambda T_ji: se3.from_rt(T_ji[:, :3, :3].mT, T_ji[:, :3, 3]),
}


@pytest.fixture(scope="module")
def exact(room) -> Constraints:
    return room.constraints(PAIRS)


@pytest.fixture(scope="module")
def clean(room, exact) -> Tensor:
    """(E, h, w) bool."""
    found = room.clean(exact.flows)
    assert (found.float().mean((1, 2)) > 0.1).all()
    return found


def errors_of(room, exact: Constraints, T_ji: Tensor, uv: Tensor | None = None):
    """Disagreement at cells by the true depth, all flow taken as it is."""
    i, j = exact.flows.index.unbind(1)
    uv = exact.flows.uv(torch.arange(len(exact))) if uv is None else uv
    return pair_errors(room.cells[i], room.cells[j], uv, T_ji, exact.K, STRIDE)


def losses_of(errors, mask: Tensor) -> tuple[float, float]:
    """The reference's loss, and the one that is optimised."""
    ones = torch.ones_like(errors.spatial_px)
    # a point out of the image of a wrong pose does not count: all that should count do
    return float(reference_loss(errors, mask.float())), float(consistency_loss(errors, ones, mask.float())[0])


def test_the_truth_agrees_with_itself(room, exact, clean):
    """Half precision of the flow is 1/64 px at a displacement of 8 cells; inverse depth is linear off edges."""
    errors = errors_of(room, exact, exact.T_ji)
    assert errors.valid[clean].all()
    assert errors.spatial_px[clean].max() < 0.05
    assert errors.disparity_px[clean].mean() < 0.05 and errors.disparity_px[clean].quantile(0.99) < 0.1
    assert errors.log_ratio[clean].mean() < 1e-3


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_convention_of_the_motion_does_not(room, exact, clean, name):
    right = losses_of(errors_of(room, exact, exact.T_ji), clean)
    wrong = losses_of(errors_of(room, exact, MUTANTS[name](exact.T_ji.double()).float()), clean)
    assert all(w > 10 * r for w, r in zip(wrong, right, strict=True))
    assert wrong[0] > 0.5  # pixels


def test_nor_do_poses_the_wrong_way_round(room, exact, clean):
    """Camera from world where world from camera is expected."""
    wrong_clip = Clip(room.clip.views, se3.inverse(room.clip.T_wc))
    T_ji = wrong_clip.motion(*exact.flows.index.unbind(1)).float()
    right = losses_of(errors_of(room, exact, exact.T_ji), clean)
    wrong = losses_of(errors_of(room, exact, T_ji), clean)
    assert all(w > 10 * r for w, r in zip(wrong, right, strict=True))


def test_nor_does_the_flow_of_the_other_way(room, exact, clean):
    other = torch.cat([torch.arange(len(PAIRS)) + len(PAIRS), torch.arange(len(PAIRS))])
    right = losses_of(errors_of(room, exact, exact.T_ji), clean)
    wrong = losses_of(errors_of(room, exact, exact.T_ji, exact.flows.uv(other)), clean)
    assert all(w > 10 * r for w, r in zip(wrong, right, strict=True))


def test_the_constraints_of_a_clip_know_which_frame_is_which(room, exact, clean):
    """As optimisation sees them; the depths of i and j exchanged disagree."""
    edges = torch.arange(len(exact))
    i, j = exact.flows.index.unbind(1)
    errors = exact.errors(edges, room.cells[i], room.cells[j])
    assert errors.spatial_px[clean].max() < 0.05 and errors.log_ratio[clean].mean() < 1e-3
    swapped = exact.errors(edges, room.cells[j], room.cells[i])
    assert swapped.log_ratio[clean].mean() > 10 * errors.log_ratio[clean].mean()
    assert swapped.spatial_px[clean].mean() > 0.5


def test_the_unit_of_length_is_free(room, exact, clean):
    """Depth and translation times 3: inverse depths, and with them the disparities, are a third."""
    i, j = exact.flows.index.unbind(1)
    uv = exact.flows.uv(torch.arange(len(exact)))
    d = (1.1 * room.cells[i], 0.95 * room.cells[j])  # wrong, for errors that can be compared
    before = pair_errors(*d, uv, exact.T_ji, exact.K, STRIDE)
    scaled = se3.from_rt(exact.T_ji[:, :3, :3], 3 * exact.T_ji[:, :3, 3])
    after = pair_errors(d[0] / 3, d[1] / 3, uv, scaled, exact.K, STRIDE)
    for name, factor in (("spatial_px", 1), ("log_ratio", 1), ("disparity_px", 1 / 3)):
        torch.testing.assert_close(getattr(after, name), factor * getattr(before, name), rtol=1e-3, atol=1e-4)
    only_depth = pair_errors(d[0] / 3, d[1] / 3, uv, exact.T_ji, exact.K, STRIDE)
    assert only_depth.spatial_px[clean].mean() > 10 * errors_of(room, exact, exact.T_ji).spatial_px[clean].mean()


def test_it_does_not_matter_which_way_time_runs(room, exact):
    """The video backwards, and the two frames of each pair exchanged; the depths are wrong, and so are masks."""
    N, E = len(room.clip), len(PAIRS)
    generator = torch.Generator().manual_seed(0)
    log_inv_depth = room.cells.log() + 0.1 * torch.randn(room.cells.shape, generator=generator)
    static = torch.rand(room.cells.shape, generator=generator)
    flows = exact.flows
    there = Constraints(flows, exact.T_ji, exact.K, static, STRIDE)
    other = torch.cat([torch.arange(E) + E, torch.arange(E)])
    backwards = Flows(N - 1 - flows.index[other], *(x[other] for x in list(vars(flows).values())[1:]))
    back = Constraints(backwards, exact.T_ji[other], exact.K, static.flip(0), STRIDE)
    losses = []
    for constraints, logs in ((there, log_inv_depth), (back, log_inv_depth.flip(0))):
        i, j = constraints.flows.index.unbind(1)
        losses.append(constraints.loss(torch.arange(2 * E), logs[i], logs[j], ConsistencyWeights())[0])
    torch.testing.assert_close(losses[0], losses[1])
    assert losses[0] > 0.1


def test_the_loss_of_a_pair_counts_only_what_is_at_rest_in_both_frames(room, exact):
    """Cells that move are left out of the sum at both ends of the flow."""
    i, j = exact.flows.index.unbind(1)
    logs = room.cells.log() + 0.2 * torch.sin(torch.arange(room.cells[0].numel()).view_as(room.cells[0]).float())
    edges = torch.arange(len(exact))
    for end in (i, j):
        static = torch.ones_like(room.cells)
        static[end[0]] = 0
        constraints = Constraints(exact.flows, exact.T_ji, exact.K, static, STRIDE)
        assert constraints.loss(edges[:1], logs[i[:1]], logs[j[:1]], ConsistencyWeights())[0] == 0
        assert constraints.weight(edges[:1], exact.flows.uv(edges[:1])).max() == 0
    assert exact.loss(edges[:1], logs[i[:1]], logs[j[:1]], ConsistencyWeights())[0] > 0.1
    assert exact.weight(edges, exact.flows.uv(edges)).min() > 0.99


def test_a_mask_is_read_where_the_cells_are_compared(room, exact):
    """Where the flow is wrong that is where depth and pose say, not where the flow ends."""
    i, j = exact.flows.index[:1].unbind(1)
    edge = torch.arange(1)
    static = torch.ones_like(room.cells)
    static[j, :, 8:12] = 0
    nowhere = replace(exact.flows, displacement=exact.flows.displacement + 3, mutual=exact.flows.mutual & False)
    constraints = replace(exact, flows=nowhere, static=static)
    errors = constraints.errors(edge, room.cells[i], room.cells[j])
    expected = replace(exact, static=static).weight(edge, exact.flows.uv(edge))
    close = (errors.uv - exact.flows.uv(edge)).abs().amax(-1) < 0.05
    assert close.float().mean() > 0.9
    torch.testing.assert_close(constraints.weight(edge, errors.uv)[close], expected[close], atol=0.06, rtol=0)


def test_a_flow_that_does_not_come_back_is_not_believed(room, exact):
    """Wherever it ends: what is compared there are the depths alone."""
    i, j = exact.flows.index.unbind(1)
    logs, edges = room.cells.log(), torch.arange(len(exact))
    doubtful = ~exact.flows.mutual
    assert doubtful.float().mean() > 0.05
    flows = exact.flows
    wrong = Flows(flows.index, flows.displacement + 3 * doubtful[..., None], flows.confidence, flows.mutual)
    found = [
        Constraints(f, exact.T_ji, exact.K, exact.static, STRIDE).loss(edges, logs[i], logs[j], ConsistencyWeights())[0]
        for f in (flows, wrong)
    ]
    torch.testing.assert_close(found[0], found[1])


# a plane before the camera


K = torch.tensor([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]], dtype=F64)
SIZE = (24, 32)
WAYS = {
    "right": (0.2, 0, 0),
    "left": (-0.2, 0, 0),
    "up": (0, -0.2, 0),
    "down": (0, 0.2, 0),
    "forward": (0, 0, -0.3),
    "back": (0, 0, 0.3),
    "askew": (0.2, -0.1, 0.2),
}


@pytest.mark.parametrize("factor", [1 / 1.25, 1.25])
@pytest.mark.parametrize("way", WAYS)
def test_depth_too_near_moves_out_and_too_far_moves_in(way: str, factor: float):
    """A wall 2 away by camera i. One step of the gradient: on the depth of i by the flow alone; and on the depths of
    both, wrong by the same factor, by the whole loss there and back."""
    T_ji = se3.identity()[None].clone()
    T_ji[0, :3, 3] = torch.tensor(WAYS[way], dtype=F64)
    d_i, d_j = (torch.full((1, *SIZE), 1 / z, dtype=F64) for z in (2, 2 + WAYS[way][2]))
    uv, _, _ = reproject(d_i, T_ji, K[None])
    uv_back, _, _ = reproject(d_j, se3.inverse(T_ji), K[None])
    log_i, log_j = ((d / factor).log().requires_grad_() for d in (d_i, d_j))
    there = pair_errors(log_i.exp(), log_j.exp(), uv, T_ji, K)
    back = pair_errors(log_j.exp(), log_i.exp(), uv_back, se3.inverse(T_ji), K)
    assert min(there.valid.float().mean(), back.valid.float().mean()) > 0.6
    ones = torch.ones_like(d_i)
    for loss in (lambda errors: reference_loss(errors, ones), lambda errors: consistency_loss(errors, ones, ones)[0]):
        both = torch.autograd.grad(loss(there) + loss(back), (log_i, log_j), retain_graph=True)
        assert sum(-g.sum() for g in both) * (factor - 1) > 0  # too far: the inverse depth grows
    flow_alone = consistency_loss(there, ones, ones, ConsistencyWeights(ratio=0))[0]
    (to_i,) = torch.autograd.grad(flow_alone, log_i)
    assert ((-to_i * (factor - 1))[there.valid] >= 0).all() and -to_i.sum() * (factor - 1) > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_frame_that_alone_is_too_near_is_pushed_out_by_the_depth_of_the_other(way: str):
    """By the ratio of depths, though the flow says nothing."""
    T_ji = se3.identity()[None].clone()
    T_ji[0, :3, 3] = torch.tensor(WAYS[way], dtype=F64)
    d_i, d_j = (torch.full((1, *SIZE), 1 / z, dtype=F64) for z in (2, 2 + WAYS[way][2]))
    uv, _, _ = reproject(d_i, T_ji, K[None])
    for near_i, near_j in ((1.2, 1.0), (1.0, 1.2)):
        log_i, log_j = (near_i * d_i).log().requires_grad_(), (near_j * d_j).log().requires_grad_()
        errors = pair_errors(log_i.exp(), log_j.exp(), uv, T_ji, K)
        ratio = consistency_loss(errors, torch.zeros_like(d_i), torch.ones_like(d_i))[0]
        to_i, to_j = torch.autograd.grad(ratio, (log_i, log_j))
        assert to_i.mean() * (near_i - near_j) > 0 and to_j.mean() * (near_j - near_i) > 0


def test_a_plane_is_sampled_exactly_between_pixels():
    """Inverse depth 0.1 + 0.02 u - 0.01 v is linear in the image. Sampled depth would be 1 % off where the slope is
    steep; pixels taken for their corners would be off by half a pixel, 0.01."""
    grid = pixel_grid(*SIZE, like=K)
    still = se3.identity()[None]
    for shift in ((0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (-0.5, 0.25)):
        uv = grid + torch.tensor(shift, dtype=F64)
        d_i, d_j = (0.4 + 0.02 * x[..., 0] - 0.01 * x[..., 1] for x in (uv, grid))
        errors = pair_errors(d_i[None], d_j[None], uv[None], still, K)
        assert errors.log_ratio[errors.valid].max() < 1e-6  # both are the inverse depth at uv
        assert errors.disparity_px[errors.valid].max() < 1e-6
        torch.testing.assert_close(
            errors.spatial_px, torch.full_like(errors.spatial_px, sum(s**2 for s in shift) ** 0.5)
        )


def test_spatial_and_disparity_errors_are_pixels_of_the_image():
    """A cell of four pixels that is half a cell off is off by two; u |1/2 - 1/2.5| of a focal length of 120 is 12."""
    grid = pixel_grid(*SIZE, like=K)[None]
    d_i, d_j = (torch.full((1, *SIZE), 1 / z, dtype=F64) for z in (2.0, 2.5))
    errors = pair_errors(d_i, d_j, grid + torch.tensor([0.5, 0.0]), se3.identity()[None], K, stride=4)
    torch.testing.assert_close(errors.spatial_px, torch.full_like(d_i, 2.0))
    torch.testing.assert_close(errors.disparity_px, torch.full_like(d_i, 12.0))
    torch.testing.assert_close(errors.log_ratio, torch.full_like(d_i, 1.25).log())
    ones = torch.ones_like(d_i)
    torch.testing.assert_close(reference_loss(errors, ones), torch.tensor(2.0 + 0.1 * 12.0, dtype=F64))


def test_what_does_not_count_changes_nothing_not_even_as_nan():
    """Behind the camera, outside the image, or masked; the gradient stays finite."""
    grid = pixel_grid(*SIZE, like=K)[None]
    d = torch.full((1, *SIZE), 0.5, dtype=F64).requires_grad_()
    turned = se3.exp(torch.tensor([[0, 0, 0, 0, 3.1, 0.0]], dtype=F64))
    behind = pair_errors(d, d, grid, turned, K)
    outside = pair_errors(d, d, grid + 100.0, se3.identity()[None], K)
    ones = torch.ones_like(d)
    for errors in (behind, outside):
        loss = reference_loss(errors, ones) + consistency_loss(errors, ones, ones)[0]
        (gradient,) = torch.autograd.grad(loss, d, retain_graph=True)
        assert loss == 0 and (gradient == 0).all()


# there and back


def test_exact_flow_there_and_back_ends_where_it_began(room, exact, clean):
    """Off edges; the flow between cells is linear up to what perspective bends."""
    uv, E = exact.flows.uv(torch.arange(len(exact))), len(PAIRS)
    back = mismatch(uv, torch.cat([uv[E:], uv[:E]])) * STRIDE
    assert back[clean].mean() < 0.05 and back[clean].quantile(0.99) < 0.25
    assert (mismatch(uv, uv) * STRIDE)[clean].median() > 1  # the flow of one way twice


def test_flow_to_where_something_hides_the_point_does_not_come_back(world, wall_and_box):
    """A box before a wall, from two places 0.4 apart: it moves by 15 px against the wall, and hides as much of it."""
    T_cw = torch.stack([wall_and_box.moved(x=x) for x in (-0.2, 0.2)])
    d = torch.stack([world.inv_depth(T) for T in T_cw])
    T_ji = T_cw.flip(0) @ se3.inverse(T_cw)
    uv, q, _ = reproject(d, T_ji, wall_and_box.K.expand(2, 3, 3))
    farthest = -F.max_pool2d(-d.flip(0)[:, None], 5, 1, 2)  # of the inverse depths around a pixel, that of the farthest
    hidden = sample(farthest, uv)[:, 0] * q[..., 2] / d > 1.2
    back = mismatch(uv, uv.flip(0))
    assert (hidden.sum((1, 2)) > 100).all()
    assert (back[hidden] > 5).all()
    outside = (uv < 0).any(-1) | (uv > torch.tensor([d.shape[2] - 1, d.shape[1] - 1])).any(-1)
    assert outside.any() and back[outside].isinf().all() and back[~outside].isfinite().all()
    assert back[~outside].median() < 0.01
