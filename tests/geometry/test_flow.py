"""Projection, induced flow and its derivatives."""

import math

import pytest
import torch

from slam.geometry import flow, se3

F64 = torch.float64
K = torch.tensor([[[50.0, 0, 30.2], [0, 55.0, 24.9], [0, 0, 1]]], dtype=F64)
H, W = 6, 8


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def poses(n, angle=0.3, move=0.2, seed=0):
    xi = torch.randn(n, 6, dtype=F64, generator=seeded(seed))
    return se3.exp(xi * torch.tensor([move] * 3 + [angle] * 3, dtype=F64))


def backproject(depth, K):
    """Depth (B, H, W) -> points (B, H, W, 3) in the camera frame."""
    return depth[..., None] * flow.rays(K, *depth.shape[1:])


def test_sideways_motion_past_a_wall_gives_constant_flow():
    """Wall at depth d, camera moved right by tx: every pixel moves by -fx * tx / d."""
    fx, d, tx = 500.0, 2.0, 0.1
    K = torch.tensor([[[fx, 0, 32], [0, fx, 24], [0, 0, 1]]], dtype=F64)
    p_i = backproject(torch.full((1, 48, 64), d, dtype=F64), K)
    p_j = p_i - torch.tensor([tx, 0.0, 0.0], dtype=F64)
    moved = flow.project(p_j, K) - flow.project(p_i, K)
    expected = torch.tensor([-fx * tx / d, 0.0], dtype=F64)
    torch.testing.assert_close(moved, expected.expand_as(moved), rtol=0, atol=1e-9)


def test_the_principal_point_looks_straight_ahead():
    K = torch.tensor([[[50.0, 0, 3], [0, 55.0, 2], [0, 0, 1]]], dtype=F64)
    points = backproject(torch.full((1, H, W), 3.0, dtype=F64), K)
    assert points[0, 2, 3].tolist() == [0, 0, 3]
    assert points[0, 2, 4].tolist() == pytest.approx([3 / 50, 0, 3])  # one column right: x
    assert points[0, 3, 3].tolist() == pytest.approx([0, 3 / 55, 3])  # one row down: y


def test_project_undoes_backproject():
    depth = 0.5 + 5 * torch.rand(3, H, W, dtype=F64, generator=seeded())
    Ks = K * torch.tensor([1.0, 1.1, 0.7], dtype=F64)[:, None, None]
    Ks[:, 2, 2] = 1
    v, u = torch.meshgrid(torch.arange(H, dtype=F64), torch.arange(W, dtype=F64), indexing="ij")
    uv = flow.project(backproject(depth, Ks), Ks)
    torch.testing.assert_close(uv, torch.stack([u, v], -1).expand_as(uv), rtol=0, atol=1e-11)


def test_projecting_loose_points_and_maps_agree():
    points = torch.rand(2, H, W, 3, dtype=F64, generator=seeded()) + torch.tensor([0, 0, 1.0], dtype=F64)
    Ks = torch.cat([K, 2 * K])
    loose = flow.project(points.flatten(1, 2), Ks)
    torch.testing.assert_close(loose, flow.project(points, Ks).flatten(1, 2), rtol=0, atol=0)


def test_reproject_is_backproject_move_project():
    depth = 1 + 3 * torch.rand(4, H, W, dtype=F64, generator=seeded())
    T_ji, Ks = poses(4), K.expand(4, 3, 3)
    uv, q, valid = flow.reproject(1 / depth, T_ji, Ks)
    p_j = backproject(depth, Ks) @ T_ji[:, None, :3, :3].mT + T_ji[:, None, None, :3, 3]
    assert valid.all()
    torch.testing.assert_close(uv, flow.project(p_j, Ks), rtol=0, atol=1e-10)
    torch.testing.assert_close(q * depth[..., None], p_j, rtol=0, atol=1e-12)
    torch.testing.assert_close((1 / depth) / q[..., 2], 1 / p_j[..., 2], rtol=0, atol=1e-12)


def test_a_point_at_infinity_moves_by_rotation_alone():
    T_ji = poses(1)
    turned = T_ji.clone()
    turned[:, :3, 3] = 0
    far = torch.zeros(1, H, W, dtype=F64)
    near = torch.full((1, H, W), 0.4, dtype=F64)
    torch.testing.assert_close(flow.reproject(far, T_ji, K)[0], flow.reproject(near, turned, K)[0], rtol=0, atol=1e-10)


def test_there_and_back_again():
    """View j holds the depth of the points of view i; reprojecting a pixel back gives the pixel."""
    depth = torch.full((1, H, W), 2.0, dtype=F64)
    T_ji = poses(1, angle=0.05, move=0.05)
    uv, q, _ = flow.reproject(1 / depth, T_ji, K)
    depth_j = q[..., 2] * depth
    xy = (uv - K[0, :2, 2]) / torch.stack([K[0, 0, 0], K[0, 1, 1]])
    p_j = depth_j[..., None] * torch.cat([xy, torch.ones_like(xy[..., :1])], -1)
    T_ij = se3.inverse(T_ji)
    back = flow.project(p_j @ T_ij[:, None, :3, :3].mT + T_ij[:, None, None, :3, 3], K)
    uv_i, _, _ = flow.reproject(1 / depth, torch.eye(4, dtype=F64)[None], K)
    torch.testing.assert_close(back, uv_i, rtol=0, atol=1e-10)


def test_points_behind_the_camera_are_invalid_and_finite():
    inv_depth = torch.full((1, H, W), 0.5, dtype=F64)
    T_ji = torch.eye(4, dtype=F64)[None].clone()
    T_ji[:, 2, 3] = -3.0  # walked 3 m ahead, past the wall at 2 m
    uv, q, valid = flow.reproject(inv_depth, T_ji, K)
    assert not valid.any()
    assert torch.isfinite(uv).all() and torch.isfinite(q).all()
    T_ji[:, 2, 3] = -1.8  # 0.2 m before the wall: a tenth of the depth is left
    assert flow.reproject(inv_depth, T_ji, K)[2].all()
    about = se3.exp(torch.tensor([[0, 0, 0, 0, math.pi, 0]], dtype=F64))
    assert not flow.reproject(inv_depth, about, K)[2].any()


@pytest.mark.parametrize(
    ("angle", "move", "inv_depths"),
    [
        (0.3, 0.2, (0.2, 1.5)),
        (1e-9, 1e-9, (0.2, 1.5)),  # no motion
        (0.3, 0.2, (0.0, 1e-6)),  # at infinity
        (0.05, 0.02, (5.0, 20.0)),  # very near
        (0.3, 0.0, (0.5, 1.0)),  # pure rotation
    ],
)
def test_jacobians_agree_with_automatic_differentiation(angle, move, inv_depths):
    B, (low, high) = 3, inv_depths
    T_ji, Ks = poses(B, angle, move, seed=7), K.expand(B, 3, 3)
    inv_depth = low + (high - low) * torch.rand(B, H, W, dtype=F64, generator=seeded(8))
    _, q, valid = flow.reproject(inv_depth, T_ji, Ks)
    assert valid.float().mean() > 0.5
    J_pose, J_depth = flow.reprojection_jacobians(q, inv_depth, T_ji, Ks)

    def moved(xi, inv_depth):
        return flow.reproject(inv_depth, se3.exp(xi) @ T_ji, Ks)[0]

    xi = torch.zeros(B, 6, dtype=F64)
    by_pose = torch.func.jacrev(moved, argnums=0)(xi, inv_depth)  # (B, H, W, 2, B, 6)
    by_depth = torch.func.jacrev(moved, argnums=1)(xi, inv_depth)  # (B, H, W, 2, B, H, W)
    for b in range(B):
        ok = valid[b]
        torch.testing.assert_close(J_pose[b][ok], by_pose[b, ..., b, :][ok], rtol=1e-9, atol=1e-9)
        diagonal = torch.einsum("hwchw->hwc", by_depth[b, :, :, :, b])
        torch.testing.assert_close(J_depth[b][ok], diagonal[ok], rtol=1e-9, atol=1e-9)


def test_float32_images_with_float64_poses_stay_float32_and_near():
    inv_depth = 0.2 + torch.rand(2, H, W, dtype=F64, generator=seeded())
    T_ji, Ks = poses(2), K.expand(2, 3, 3)
    exact = flow.reproject(inv_depth, T_ji, Ks)[0]
    single = flow.reproject(inv_depth.float(), T_ji, Ks)[0]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-3)  # a thousandth of a pixel


def test_in_image_counts_the_outermost_centres():
    uv = torch.tensor([[0.0, 0.0], [7.0, 5.0], [-0.1, 0.0], [7.1, 0.0], [0.0, 5.1], [1.0, 1.0]])
    assert flow.in_image(uv, H, W).tolist() == [True, True, False, False, False, True]
    assert flow.in_image(uv, H, W, margin=1.0).tolist() == [False, False, False, False, False, True]


def test_holes_continue_their_neighbours_and_what_is_known_stays():
    inv_depth = torch.rand(2, 8, 10, generator=torch.Generator().manual_seed(0)) + 0.5
    assert flow.inpainted_holes(inv_depth) is inv_depth
    holed = inv_depth.clone()
    holed[0, 3, 4] = 0
    holed[0, 0, 0] = 0
    holed[1] = 0
    closed = flow.inpainted_holes(holed)
    assert torch.equal(closed[holed > 0], holed[holed > 0]) and not closed[1].any()
    around = holed[0, 2:5, 3:6]
    torch.testing.assert_close(closed[0, 3, 4], around.sum() / 8)
    torch.testing.assert_close(closed[0, 0, 0], (holed[0, 0, 1] + holed[0, 1, 0] + holed[0, 1, 1]) / 3)
