"""What every correspondence promises: features are computed once and kept for a while."""

from typing import Any

import numpy as np
import pytest
import torch

from slam.frames import Image
from slam.geometry.camera import pixel_grid
from slam.matching.correspondence import KEPT_IMAGES, Correspondence
from slam.matching.dis import DisFlow
from slam.matching.learned_flow import LearnedFlow
from slam.matching.photometric import PhotometricRefinement
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import FlowSE3, MotionNetConfig

H, W = 48, 64


def image(number: int) -> Image:
    return Image(np.random.default_rng(number).integers(0, 255, (H, W, 3), np.uint8))


def learned_flow() -> LearnedFlow:
    torch.manual_seed(0)
    encoder = EncoderConfig(8, 8, 8, matching=8, fine=8, stereo=8, image=8)
    return LearnedFlow(FlowSE3(encoder, MotionNetConfig(8, 8, levels=2, radius=2)))


CORRESPONDENCES = {
    "DIS": DisFlow,
    "learned": learned_flow,
    "DIS, refined": lambda: PhotometricRefinement(DisFlow()),
    "learned, refined": lambda: PhotometricRefinement(learned_flow()),
}


@pytest.fixture(params=CORRESPONDENCES)
def correspondence(request) -> Correspondence[Any, Any]:
    return CORRESPONDENCES[request.param]()


@torch.inference_mode()
def test_an_update_gives_a_flow_and_a_confidence_for_each_cell_of_each_edge(correspondence):
    a, b, c = correspondence.encode([image(n) for n in range(3)])
    h, w = H // correspondence.stride, W // correspondence.stride
    uv = pixel_grid(h, w, like=torch.zeros(1)).expand(2, -1, -1, -1)
    state = correspondence.start([a, a], [b, c])
    updates = 0
    while updates < correspondence.max_updates and not correspondence.finished(state):
        updates += 1
        state, residual_uv, confidence = correspondence.update(state, uv)
        of_axes, coupling = confidence.tensor_split([2], -1)
        assert residual_uv.shape == of_axes.shape == (2, h, w, 2) and coupling.shape[-1] <= 1
        assert torch.isfinite(residual_uv).all() and of_axes.min() >= 0
        assert (coupling.square().sum(-1) <= of_axes.prod(-1) + 1e-5).all()  # an information, positive semidefinite
    assert updates >= 2


@torch.inference_mode()
def test_features_of_the_images_used_last_are_kept_and_the_others_computed_again(correspondence):
    """A map has hundreds of images, and the features of one take two megabytes."""
    images = [image(n) for n in range(KEPT_IMAGES + 1)]
    first, second = correspondence.encode(images[:2])
    assert correspondence.encode(images[:1])[0] is first
    correspondence.encode(images[1:])  # one more than are kept; the second was used after the first
    assert correspondence.encode(images[1:2])[0] is second
    assert correspondence.encode(images[:1])[0] is not first


def test_an_image_is_equal_to_itself_alone():
    one = image(0)
    assert one == one and one != Image(one.rgb) and len({one, Image(one.rgb)}) == 2


def test_gray_is_the_brightness_of_itu_r_bt_601():
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert Image(colors).gray.tolist() == [[76, 150, 29, 255]]


@torch.inference_mode()
def test_features_under_a_refinement_are_those_of_the_flow():
    flow = learned_flow()
    a = image(0)
    assert PhotometricRefinement(flow).encode([a])[0].flow is flow.encode([a])[0]
