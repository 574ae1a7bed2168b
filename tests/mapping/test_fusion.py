"""The dense map: what several keyframes agree on, in the right place and colour."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import ConfigError
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.mapping.fusion import FusionConfig, agreement, first_in_voxels, fused_cloud, keyframe_cloud, nearest_keyframes


@pytest.fixture(scope="module")
def keyframes(world, wall_and_box):
    """Three true keyframes; the first has planted errors in a patch of wall."""
    poses = [wall_and_box.moved(0.08 * n, 0.02 * n, -0.08 * n, 0, -0.02 * n) for n in range(3)]
    first, *others = (world.keyframe(T_cw, n, n) for n, T_cw in enumerate(poses))
    wrong = first.dense.value.clone()
    wrong[80:100, 60:90] *= 1.15  # (1.15 - 1) / (1.15 + 1) = 0.07 > 0.05
    return (replace(first, dense=InvDepth(wrong, first.dense.sigma)), *others)


def test_true_pixels_are_confirmed_and_planted_ones_are_not(keyframes, world, wall_and_box):
    votes = agreement(keyframes[0], list(keyframes[1:]))
    assert not votes[82:98, 62:88].any()
    rest = np.ones(votes.shape, bool)
    rest[80:100, 60:90] = False
    in_both = (votes == 2) & rest
    assert in_both.sum() > 0.7 * rest.sum()
    # wall at the right of the box: it hides 140 * 0.16 * (1 / 1.3 - 1 / 2) = 6 px from the third view
    on_box = world.cast(se3.inverse(keyframes[0].T_wc), wall_and_box.K, wall_and_box.H, wall_and_box.W)[2].numpy()
    edge = np.nonzero(on_box[60])[0].max()
    assert (votes[60, edge - 10 : edge - 1] == 2).all()
    assert (votes[60, edge + 2 : edge + 5] < 2).all() and (votes[60, edge + 9 : edge + 14] == 2).all()


def test_the_limit_is_of_the_relative_difference(keyframes):
    first, *others = keyframes
    for factor, kept in ((1.08, True), (1.13, False)):  # 0.0385 and 0.061 of |a - b| / (a + b)
        k = replace(first, dense=others[0].dense.rescaled(1 / factor), T_wc=others[0].T_wc)
        votes = agreement(k, [others[0]])
        assert (votes == int(kept)).mean() > 0.99


def test_cloud_lies_on_the_surfaces_with_their_colours(keyframes):
    first = keyframes[0]
    cloud = keyframe_cloud(first, list(keyframes[1:]), FusionConfig(stride=1))
    assert len(cloud) > 0.6 * first.dense.value.numel()
    K = first.view.K.numpy()
    uv = cloud.points @ K.T
    uv = np.rint(uv[:, :2] / uv[:, 2:]).astype(int)
    np.testing.assert_array_equal(cloud.colors, first.view.image.rgb[uv[:, 1], uv[:, 0]])
    np.testing.assert_allclose(1 / cloud.points[:, 2], first.dense.value.numpy()[uv[:, 1], uv[:, 0]], rtol=1e-5)
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
    assert np.isfinite(alone.points).all() and len(alone) == 30 * 80


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
    voxel = np.floor(cloud.points / (0.02 * float(np.median(np.concatenate([c.points[:, 2] for c in separate])))))
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
