"""The dense map: what several keyframes agree on, in the right place and colour."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import ConfigError, UsageError
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.mapping.fusion import (
    FusionConfig,
    agreed_depth,
    fused_cloud,
    keyframe_cloud,
    median_depth,
    nearest_keyframes,
    normals_of,
    occlusion_edges,
    points_of,
)
from slam.mapping.voxels import VoxelMeans, first_in_voxels


@pytest.fixture(scope="module")
def keyframes(world, wall_and_box):
    """Three true keyframes; the first has planted errors in a patch of wall."""
    poses = [wall_and_box.moved(0.08 * n, 0.02 * n, -0.08 * n, 0, -0.02 * n) for n in range(3)]
    first, *others = (world.keyframe(T_cw, n, n) for n, T_cw in enumerate(poses))
    wrong = first.dense.value.clone()
    wrong[80:100, 60:90] *= 1.15  # (1.15 - 1) / (1.15 + 1) = 0.07 > 0.05
    return (replace(first, dense=InvDepth(wrong, first.dense.sigma)), *others)


def test_true_pixels_are_confirmed_and_planted_ones_are_not(keyframes, world, wall_and_box):
    agreed = agreed_depth(keyframes[0], keyframes[1:], FusionConfig(min_agreeing=2)) > 0
    assert not agreed[80:100, 60:90].any()
    rest = np.ones(agreed.shape, bool)
    rest[80:100, 60:90] = False
    in_both = agreed & rest
    assert in_both.sum() > 0.7 * rest.sum()
    # wall at the right of the box: it hides 140 * 0.16 * (1 / 1.3 - 1 / 2) = 6 px from the third view
    on_box = world.cast(se3.inverse(keyframes[0].T_wc), wall_and_box.K, wall_and_box.H, wall_and_box.W)[2].numpy()
    edge = np.nonzero(on_box[60])[0].max()
    assert agreed[60, edge - 10 : edge - 3].all() and agreed[60, edge + 9 : edge + 14].all()
    assert not agreed[60, edge - 1 : edge + 5].any()  # the edge itself, and what it hides


def test_the_limit_is_of_the_relative_difference(keyframes):
    first, *others = keyframes
    for factor, kept in ((1.05, True), (1.08, False)):  # 0.024 and 0.038 of |a - b| / (a + b)
        k = replace(first, dense=others[0].dense.rescaled(1 / factor), T_wc=others[0].T_wc)
        agreed = agreed_depth(k, [others[0]]) > 0
        assert agreed.mean() > 0.9 if kept else not agreed.any()


def test_depth_is_the_mean_of_those_that_agree_by_their_variances(keyframes):
    """One view measured three times, 2 % too near, 2 % too far, and as far off but a tenth as sure."""
    true = keyframes[1]
    scales = ((0.98, 0.01), (1.02, 0.01), (1.02, 0.1))
    views = [
        replace(true, dense=InvDepth(s * true.dense.value, torch.full_like(true.dense.value, sigma)))
        for s, sigma in scales
    ]
    depth = agreed_depth(views[0], views[1:])
    mean = (1 * 0.98 + 1 * 1.02 + 0.01 * 1.02) / 2.01
    known = depth > 0
    assert known.mean() > 0.9
    np.testing.assert_allclose(depth[known] * true.dense.value.numpy()[known], 1 / mean, rtol=1e-4)


def test_cloud_lies_on_the_surfaces_with_their_colours(keyframes):
    first = keyframes[0]
    cloud = keyframe_cloud(first, list(keyframes[1:]), FusionConfig(stride=1))
    assert len(cloud) > 0.6 * first.dense.value.numel()
    K = first.view.K.numpy()
    uv = cloud.points @ K.T
    uv = np.rint(uv[:, :2] / uv[:, 2:]).astype(int)
    np.testing.assert_array_equal(cloud.colors, first.view.image.rgb[uv[:, 1], uv[:, 0]])
    ratio = cloud.points[:, 2] * first.dense.value.numpy()[uv[:, 1], uv[:, 0]]  # others sample it half a pixel beside
    assert np.abs(ratio - 1).max() < 0.02 and np.abs(np.median(ratio) - 1) < 1e-3
    assert not ((uv[:, 0] > 61) & (uv[:, 0] < 88) & (uv[:, 1] > 81) & (uv[:, 1] < 98)).any()
    subsampled = keyframe_cloud(first, list(keyframes[1:]), FusionConfig(stride=2))
    assert 0.2 < len(subsampled) / len(cloud) < 0.3


def test_confidence_and_unknown_depth_keep_pixels_out(keyframes):
    first = keyframes[0]
    confidence = torch.ones_like(first.dense.confidence)
    confidence[:, :80] = 0.4
    half = keyframe_cloud(
        replace(first, dense=InvDepth.from_confidence(first.dense.value, confidence)), list(keyframes[1:])
    )
    assert len(half) > 0 and (half.points[:, 0] > 0).all()  # the principal point is at 79.5
    unknown = first.dense.value.clone()
    unknown[:60] = 0
    alone = keyframe_cloud(
        replace(first, dense=InvDepth(unknown, first.dense.sigma)), []
    )  # nobody to ask: all that is known
    assert np.isfinite(alone.points).all() and 0.9 * 30 * 80 < len(alone) <= 30 * 80  # but for the edges of the box


def test_fewer_keyframes_than_wanted_are_enough_if_there_are_no_more(keyframes):
    one = keyframe_cloud(keyframes[1], [keyframes[2]])
    assert len(one) > 0.7 * 60 * 80
    assert len(keyframe_cloud(keyframes[1], [keyframes[2]], FusionConfig(min_agreeing=1))) == len(one)


def test_fused_cloud_is_in_the_world_and_thinned(keyframes, wall_and_box):
    config = FusionConfig(stride=1, voxel_ratio=0.02)
    cloud = fused_cloud(keyframes, config)
    assert cloud.colors is not None and len(cloud.colors) == len(cloud)
    distance = [np.abs(cloud.points @ n.numpy() - d) for n, d in (wall_and_box.WALL, wall_and_box.BOX)]
    off = np.minimum(*distance)
    assert float(np.quantile(off, 0.999)) < 1e-3  # planted errors are 0.2 off
    separate = [keyframe_cloud(k, [o for o in keyframes if o is not k], config) for k in keyframes]
    assert len(cloud) < 0.5 * sum(map(len, separate))
    voxel = np.floor(cloud.points.astype(np.float64) / (0.02 * median_depth(keyframes)))
    assert len(np.unique(voxel, axis=0)) == len(cloud)


def test_distinct_voxels_never_merge():
    """Every voxel of a block around the origin; an XOR of multiples had merged those that mirror each other."""
    voxels = np.stack(np.meshgrid(*[np.arange(-60, 60, 7)] * 3), -1).reshape(-1, 3)
    points = (0.01 * (voxels + 0.5)).astype(np.float32)
    assert first_in_voxels(points, 0.01).tolist() == list(range(len(points)))
    twice = np.concatenate([points, points + np.float32(0.002)])
    assert first_in_voxels(twice, 0.01).tolist() == list(range(len(points)))


def test_no_keyframes_no_points():
    assert len(fused_cloud(())) == 0


def test_means_of_voxels_are_exact_and_merge():
    """Two parts of a voxel that come at different times, and a voxel below zero."""
    voxels = VoxelMeans(0.5)
    white, up = np.full((1, 3), 200, np.uint8), np.array([[0.0, 1, 0]])
    for x, rgb in ((0.1, white), (0.3, white // 2), (-0.2, white)):
        voxels.add(np.array([[x, 0.1, 0.1]]), rgb, up)
    cloud = voxels.cloud()
    np.testing.assert_allclose(sorted(cloud.points[:, 0].tolist()), [-0.2, 0.2], atol=1e-6)
    assert sorted(cloud.colors[:, 0].tolist()) == [150, 200]


def test_too_many_voxels_are_doubled_and_their_means_stay_exact():
    rng = np.random.default_rng(0)
    points, rgb = rng.uniform(-3, 3, (5000, 3)), rng.integers(0, 255, (5000, 3)).astype(np.uint8)
    normals = np.tile([0.0, 0, -1], (5000, 1))
    small, whole = VoxelMeans(0.25, max_voxels=1000), VoxelMeans(1.0)
    for part in np.array_split(np.arange(5000), 7):
        for voxels in (small, whole):
            voxels.add(points[part], rgb[part], normals[part])
            voxels.cloud()
    assert small.side == 1.0
    np.testing.assert_allclose(small.cloud().points, whole.cloud().points, atol=1e-5)
    np.testing.assert_array_equal(small.cloud().colors, whole.cloud().colors)


def test_a_fixed_side_is_kept_or_refused():
    """Also where the last points, which still wait, are too many."""
    rgb, normals = np.zeros((50, 3), np.uint8), np.tile([0.0, 0, -1], (50, 1))
    voxels = VoxelMeans(0.01, is_fixed=True, max_voxels=20)
    voxels.add(np.random.default_rng(0).uniform(-1, 1, (50, 3)), rgb, normals)
    with pytest.raises(UsageError, match="too small"):
        voxels.cloud()
    with pytest.raises(UsageError, match="too small"):
        VoxelMeans(1e-7, is_fixed=True).add(np.ones((50, 3)), rgb, normals)
    free = VoxelMeans(1e-7)
    free.add(np.ones((50, 3)), rgb, normals)
    assert len(free.cloud()) == 0


def test_normals_of_a_slanted_plane():
    """n . p = 2 with n = (0.3, -0.2, 1) / |n|; the camera is on the other side."""
    n = np.array([0.3, -0.2, 1.0])
    K = np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]])
    v, u = np.mgrid[:48, :64]
    depth = 2 / (n[0] * (u - 31.5) / 50 + n[1] * (v - 23.5) / 50 + n[2])
    normals = normals_of(points_of(depth, K))[1:-1, 1:-1]
    np.testing.assert_allclose(normals, np.broadcast_to(-n / np.linalg.norm(n), normals.shape), atol=1e-9)


def test_occlusion_edges_are_found_and_planes_left_alone():
    v, u = np.mgrid[:40, :60]
    steep = 0.2 + 0.02 * u + 0.005 * v  # inverse depth: from 5 to 0.7 units within the image
    assert not occlusion_edges(steep).any()
    step = np.where(u < 30, 1.0, 0.5)
    step[:, 30] = 0.75  # the flying pixel in between
    edges = occlusion_edges(step)
    assert edges[:, 30].all() and edges[:, 29].all() and edges[:, 31].all()
    assert not edges[:, :27].any() and not edges[:, 34:].any()


def test_nearest_keyframes_in_time(keyframes):
    five = tuple(replace(keyframes[0], id=n) for n in range(5))
    assert [k.id for k in nearest_keyframes(five, 2, 3)] == [1, 3, 0]
    assert [k.id for k in nearest_keyframes(five, 0, 9)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_confidence": 1.5},
        {"stride": 0},
        {"neighbours": 0},
        {"voxel_ratio": 0.0},
        {"min_agreeing": -1},
        {"max_inconsistency": float("nan")},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FusionConfig(**wrong)
