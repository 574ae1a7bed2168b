"""Pose and scale of an image against a keyframe that it is far from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.frames import Keyframe, Keypoints
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.mapping.transforms import rescaled
from slam.recognition.keypoints import KeypointConfig, detect_keypoints
from slam.recognition.relative_pose import median_inv_depth, pose_from_keypoints, scale_ratio, turn_from_keypoints

CONFIG = KeypointConfig()


@pytest.fixture(scope="module")
def pair(world, wall_and_box) -> tuple[Keyframe, Keyframe]:
    """Half an image apart, and turned."""
    far = wall_and_box.moved(-1.0, 0.1, 0.1, 0, 0, 0.2)
    ends = [world.keyframe(wall_and_box.moved(), 0, 0), world.keyframe(far, 1, 1)]
    old, new = (replace(k, keypoints=detect_keypoints(k.view.image)) for k in ends)
    return old, new


def test_first_pose_over_a_large_motion(pair):
    """In the unit of the keyframe's depth."""
    old, new = pair
    K = old.view.K.numpy()
    for scale_change in (1.0, 2.0):
        T_no = pose_from_keypoints(rescaled(old, old.T_wc, scale_change), new.keypoints, K, CONFIG)
        truth = se3.inverse(new.T_wc) @ old.T_wc
        truth[:3, 3] *= scale_change
        assert T_no is not None and float(se3.log(truth).norm()) > 1
        assert float(se3.log(T_no @ se3.inverse(truth)).norm()) < 0.05 * scale_change


def test_depth_that_is_unknown_or_unsure_gives_no_pose(pair):
    old, new = pair
    K = old.view.K.numpy()
    unknown = replace(old, dense=InvDepth.unknown(old.dense.size))
    unsure = replace(old, dense=InvDepth.from_confidence(old.dense.value, torch.full_like(old.dense.value, 0.2)))
    assert pose_from_keypoints(unknown, new.keypoints, K, CONFIG) is None
    assert pose_from_keypoints(unsure, new.keypoints, K, CONFIG) is None
    assert pose_from_keypoints(old, Keypoints.none(), K, CONFIG) is None


def test_keypoints_at_the_very_edge_have_a_depth(pair):
    """SIFT puts keypoints up to half a pixel outside of the image's last pixel centre."""
    old, new = pair
    h, w = old.dense.size
    uv = np.concatenate([[[w - 0.5, h - 0.5], [-0.5, -0.5]], old.keypoints.uv[2:]]).astype(np.float32)
    edge = replace(old, keypoints=Keypoints(uv, old.keypoints.descriptors))
    assert pose_from_keypoints(edge, new.keypoints, old.view.K.numpy(), CONFIG) is not None


@pytest.mark.parametrize("scale_change", [(1.0, 1.0), (1.0, 1.5), (0.7, 2.0)])
def test_scale_ratio_is_units_of_the_old_for_one_of_the_new(pair, scale_change, world):
    old, new = (rescaled(k, k.T_wc, g) for k, g in zip(pair, scale_change, strict=True))
    T_no = se3.inverse(pair[1].T_wc) @ pair[0].T_wc
    T_no[:3, 3] *= scale_change[0]
    assert scale_ratio(old, new, T_no, world.flow.stride) == pytest.approx(scale_change[0] / scale_change[1], rel=0.01)


def test_without_common_surface_there_is_no_ratio(pair, world, wall_and_box):
    old, new = pair
    assert scale_ratio(old, new, wall_and_box.moved(ry=2.0), world.flow.stride) is None
    unsure = replace(new, coarse=InvDepth(new.coarse.value, new.coarse.value))
    assert scale_ratio(old, unsure, se3.inverse(new.T_wc) @ old.T_wc, world.flow.stride) is None


def test_median_depth_is_of_the_cells(pair):
    assert median_inv_depth(rescaled(pair[0], pair[0].T_wc, 4.0)) == pytest.approx(median_inv_depth(pair[0]) / 4)


def test_a_turn_is_found_without_depth(world, wall_and_box):
    """To the angle by which 5 cm move what is 2 m away; of another place none is found."""
    T_ba = wall_and_box.moved(0.05, 0, 0, 0.05, 0.35, -0.1)
    images = [world.view(T, n).image for n, T in enumerate((wall_and_box.moved(), T_ba))]
    a, b = (detect_keypoints(image) for image in images)
    K = wall_and_box.K.numpy()
    turn = turn_from_keypoints(a, b, K, CONFIG)
    assert turn is not None and not turn[:3, 3].any()
    assert float(se3.angle_rad(turn @ se3.inverse(T_ba))) < 0.03 < 0.3 < float(se3.angle_rad(T_ba))
    other = detect_keypoints(wall_and_box.World(seed=5).view(wall_and_box.moved(), 2).image)
    assert turn_from_keypoints(a, other, K, CONFIG) is None
    assert turn_from_keypoints(a, Keypoints.none(), K, CONFIG) is None
