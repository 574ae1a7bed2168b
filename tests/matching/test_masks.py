"""What a mask hides takes no part: in matches, keypoints, dense depth and the cloud."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.backend.densification import Densification
from slam.frames import Frame, Image, View
from slam.frontend.preparation import Preparation
from slam.geometry import se3
from slam.geometry.camera import Camera
from slam.inv_depth import InvDepth
from slam.mapping.fusion import fused_cloud
from slam.matching.matcher import MASK_MARGIN_PX, Matcher
from slam.recognition.keypoints import detect_keypoints

EYE = se3.identity()


def hidden_below(view: View, row: int) -> View:
    """The view with a mask that hides its rows from one on, where something else is pasted over the scene."""
    mask = np.ones(view.image.size, bool)
    mask[row:] = False
    rgb = view.image.rgb.copy()
    rgb[row:] = np.random.default_rng(0).integers(0, 255, rgb[row:].shape)
    return replace(view, image=Image(rgb, mask))


def test_masked_cells_weigh_nothing_and_the_others_as_before(world, wall_and_box):
    """What is pasted stands still; unmasked, its cells would say so with confidence."""
    T_ck = wall_and_box.moved(0.1, 0.03)
    views = [hidden_below(view, 60) for view in (world.view(EYE, 0), world.view(T_ck, 1))]
    match = Matcher(world.flow).match(views[0], world.coarse(EYE), views[1], EYE)
    first_hidden = (60 - MASK_MARGIN_PX) // 4
    assert not match.weight[first_hidden:].any() and match.weight[: first_hidden - 2].mean() > 0.3
    unmasked = [replace(view, image=Image(view.image.rgb)) for view in views]
    wrong = Matcher(world.flow).match(unmasked[0], world.coarse(EYE), unmasked[1], EYE)
    assert wrong.weight[first_hidden + 2 :].mean() > 0.3
    error = se3.log(match.T_ck @ se3.inverse(T_ck)).norm()
    assert match.ok and error < 0.01 and error < 0.2 * se3.log(wrong.T_ck @ se3.inverse(T_ck)).norm()
    assert match.visible_ratio > 0.85  # of what the mask leaves


def test_cells_that_land_behind_the_mask_of_the_other_view_weigh_nothing(world, wall_and_box):
    """Only the second view has one; the wall moves up by 14 px under it."""
    T_ck = wall_and_box.moved(0, 0.2)
    match = Matcher(world.flow).match(world.view(EYE), world.coarse(EYE), hidden_below(world.view(T_ck, 1), 60), EYE)
    assert not match.weight[match.target_uv[..., 1] > 15].any() and match.weight[:8].mean() > 0.3


def test_no_keypoints_behind_a_mask(world):
    view = hidden_below(world.view(EYE), 60)
    uv = detect_keypoints(view.image).uv
    assert len(uv) > 20 and (uv[:, 1] < 61).all()
    assert (detect_keypoints(Image(view.image.rgb)).uv[:, 1] > 70).sum() > 5  # of what is pasted


def test_dense_depth_is_unknown_behind_masks_and_never_in_the_cloud(world, wall_and_box):
    """Also where most neighbours cannot see: the camera moves down, so that what it sees moves up, out of the mask."""
    keyframes = []
    for n in range(4):
        k = world.keyframe(wall_and_box.moved(0.02 * n), n, n)
        keyframes.append(replace(k, view=hidden_below(k.view, 60)))

    def stereo(k, neighbours, T_jk):
        return InvDepth(k.dense.value, 0.01 * k.dense.value)

    dense = Densification(stereo).densify(tuple(keyframes), ends=True)
    assert len(dense) == 4
    for k in dense:
        assert not k.dense.known[60:].any() and k.dense.known[:55].float().mean() > 0.9
    cloud = fused_cloud(tuple(dense))
    points = torch.from_numpy(cloud.points).double()
    v = wall_and_box.K[1, 1] * points[:, 1] / points[:, 2] + wall_and_box.K[1, 2]
    assert len(points) > 500 and float(v.max()) < 61


@pytest.mark.parametrize("size", [(640, 480), (160, 120)])
@pytest.mark.parametrize("distortion", [(), (-0.2, 0.05, 0.0, 0.0)])
def test_a_mask_goes_the_way_of_its_image(size, distortion):
    """Black where it is masked: no pixel that is left may have caught any of that."""
    width, height = size
    camera = Camera(width, height, 0.8 * width, 0.8 * width, (width - 1) / 2, (height - 1) / 2, distortion)
    mask = np.ones((height, width), bool)
    mask[height // 3 : height // 2, width // 4 :] = False
    image = np.repeat(np.where(mask, 200, 0).astype(np.uint8)[..., None], 3, -1)
    prepared = Preparation(camera, 256 * 192).prepare(Frame(0, 0, image, camera, mask=mask)).image
    assert prepared.mask is not None and prepared.mask.shape == prepared.size
    assert prepared.rgb[prepared.mask].min() >= 189
    assert prepared.rgb[~prepared.mask].mean() < 40 and 0.05 < (~prepared.mask).mean() < 0.3


def test_a_mask_of_another_size_is_a_mistake_of_the_program():
    camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
    frame = Frame(0, 0, np.zeros((48, 64, 3), np.uint8), camera, mask=np.ones((24, 32), bool))
    with pytest.raises(ValueError, match="must have the shape"):
        Preparation(camera, 64 * 64).prepare(frame)
