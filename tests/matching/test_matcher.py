"""Matching real pixels to a view of known depth, and knowing when it failed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from slam.errors import ConfigError
from slam.frames import Image
from slam.geometry import se3
from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import in_image, reproject
from slam.inv_depth import InvDepth
from slam.kernels.normal_equations import trust_of
from slam.matching.matcher import Match, Matcher, MatcherConfig

F64 = torch.float64
EYE = torch.eye(4, dtype=F64)


def matched(world, T_cw: Tensor, coarse: InvDepth | None = None, guess: Tensor = EYE) -> Match:
    view_k, view_c = world.view(EYE, 0), world.view(T_cw, 1)
    return Matcher(world.flow).match(view_k, coarse or world.coarse(EYE), view_c, guess)


MOTIONS = [
    (0.1, 0.03, 0.0, 0, 0, 0),  # sideways: 7 px on the wall, 11 px on the box
    (0.0, 0.0, -0.15, 0, 0, 0),  # forward
    (0.04, -0.02, 0.03, 0.03, -0.04, 0.05),
    (0, 0, 0, 0.02, 0.05, -0.03),  # rotation alone
]


@pytest.mark.parametrize("motion", MOTIONS)
def test_pose_of_a_known_motion(world, wall_and_box, motion):
    T_ck = wall_and_box.moved(*motion)
    match = matched(world, T_ck)
    assert match.ok and match.inlier_ratio > 0.9
    error = se3.log(match.T_ck @ se3.inverse(T_ck))
    # 0.4 px: patches across the edge of the box see two motions; measured 0.0033 and 0.0017, a third of it without box
    assert float(error[:3].norm()) < 0.006
    assert float(error[3:].norm()) < 0.003


def test_what_is_measured_is_right(world, wall_and_box):
    """The wall is at depth about 2 and the camera moves by 0.2: 140 * 0.2 / 2 = 14 px on it, 21 px on the box."""
    T_ck = wall_and_box.moved(x=0.2)
    match = matched(world, T_ck)
    depth = world.cell_inv_depth(EYE)
    assert match.mean_flow_px == pytest.approx(28 * float(depth[:, :-4].mean()), rel=0.03)
    assert 0.85 < match.visible_ratio < 0.95
    cell_flow = match.target_uv[..., 0] - torch.arange(40.0)
    sure = trust_of(match.weight) > 0.5
    assert sure.float().mean() > 0.5
    error = (cell_flow - 7 * depth).abs()[sure]
    assert float(error.median()) * 4 < 0.1  # pixels


def test_inliers_are_counted_in_pixels_of_the_image(world, wall_and_box):
    """Between a quarter and all of the cells, so that another unit would show."""
    depth, T_ck = world.cell_inv_depth(EYE), wall_and_box.moved(0.1, 0.03)
    view = world.view(T_ck, 1)
    matcher = Matcher(world.flow, MatcherConfig(inlier_px=0.05, flow_sigma_px=10.0))  # unsure depth has no say
    match = matcher.match(world.view(EYE), world.coarse(EYE), view, EYE)
    uv, _, _ = reproject(depth[None], match.T_ck[None], scaled_intrinsics(view.K, 1 / 4)[None])
    inside = in_image(uv[0], 30, 40, -0.5)
    weight = trust_of(match.weight) * inside
    near = 4 * (match.target_uv - uv[0]).norm(dim=-1) < 0.05
    assert match.inlier_ratio == pytest.approx(float((weight * near).sum() / weight.sum()), abs=0.01)
    assert 0.2 < match.inlier_ratio < 0.8


@pytest.mark.parametrize(
    "strict", [{"min_inlier_ratio": 1.0, "inlier_px": 0.1}, {"min_visible_ratio": 0.99}, {"min_weight": 1e4}]
)
def test_each_demand_can_refuse_a_match(world, wall_and_box, strict):
    T_ck = wall_and_box.moved(0.1, 0.03)
    view, cells = world.view(T_ck, 1), world.coarse(EYE)
    assert Matcher(world.flow).match(world.view(EYE), cells, view, EYE).ok
    assert not Matcher(world.flow, MatcherConfig(**strict)).match(world.view(EYE), cells, view, EYE).ok


def test_the_wrong_depth_of_unsure_cells_does_no_harm(world, wall_and_box):
    depth = world.cell_inv_depth(EYE)
    sigma = 0.01 * depth
    depth[:, :15] *= 3
    sigma[:, :15] = depth[:, :15]
    T_ck = wall_and_box.moved(0.1, 0, 0.05)
    match = matched(world, T_ck, InvDepth(depth, sigma))
    assert match.ok and float(se3.log(match.T_ck @ se3.inverse(T_ck)).norm()) < 0.005


def test_weight_is_that_of_the_flow_not_of_the_depth(world, wall_and_box):
    T_ck = wall_and_box.moved(x=0.1)
    full = matched(world, T_ck, world.coarse(EYE))
    faint = matched(world, T_ck, world.coarse(EYE, relative_sigma=0.5))
    torch.testing.assert_close(faint.weight, full.weight, rtol=0, atol=1e-3)


def test_a_foreign_image_is_not_believed(world, wall_and_box):
    foreign = wall_and_box.World(seed=5).view(EYE, 1)
    match = Matcher(world.flow).match(world.view(EYE), world.coarse(EYE), foreign, EYE)
    assert not match.ok


def test_nothing_to_see_and_nothing_known_are_not_believed(world, wall_and_box):
    view, known = world.view(EYE), world.coarse(EYE)
    dark = replace(view, image=Image(np.full_like(view.image.rgb, 90)))
    for a, cells, b in [(view, known, dark), (dark, known, dark), (view, InvDepth.unknown(known.size), view)]:
        match = Matcher(world.flow).match(a, cells, b, EYE)
        assert not match.ok
        assert np.isfinite([match.inlier_ratio, match.visible_ratio, match.mean_weight, match.mean_flow_px]).all()


@pytest.mark.parametrize("wrong", [{"min_inlier_ratio": 0.0}, {"gn_steps": 0}])
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MatcherConfig(**wrong)
