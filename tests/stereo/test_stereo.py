"""Stereo in the system: its range, and the features that tracking has computed already."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.frames import Image, Keyframe, View
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.matching.learned_flow import LearnedFlow
from slam.matching.photometric import PhotometricRefinement
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import FlowSE3
from slam.networks.stereo import StereoNet, StereoNetConfig
from slam.stereo.stereo import MIN_CELLS, UNKNOWN_RANGE, LearnedStereo, inv_depth_range

H, W = 48, 64
ENCODER = EncoderConfig(8, 8, 8, matching=8, fine=8, stereo=8, image=8)


def view(number: int) -> View:
    image = Image(np.random.default_rng(number).integers(0, 255, (H, W, 3), np.uint8))
    K = torch.tensor([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]], dtype=torch.float64)
    return View(number, number, image, K)


def keyframe(v: View) -> Keyframe:
    dense, coarse = (InvDepth(torch.full(s, 0.5), torch.full(s, 0.05)) for s in ((H, W), (H // 4, W // 4)))
    return Keyframe(v.frame_id, v, torch.eye(4, dtype=torch.float64), dense, coarse)


@torch.inference_mode()
def test_learned_stereo_reads_the_features_of_tracking_and_stays_near_the_range_of_the_cells():
    """The encoder runs once an image, whoever asks: tracking by the refined flow, then stereo again and again."""
    torch.manual_seed(0)
    motion, network = FlowSE3(ENCODER), StereoNet(ENCODER, StereoNetConfig(4, 8, 8, 8))
    encoded = []
    encode = motion.encode
    motion.encode = lambda images: encoded.append(len(images)) or encode(images)
    flow = LearnedFlow(motion)
    tracking, stereo = PhotometricRefinement(flow), LearnedStereo(flow, network)
    views = [view(n) for n in range(4)]
    tracking.encode([v.image for v in views[:3]])
    assert len(encoded) == 3
    T_jk = [se3.exp(torch.tensor([0.1 * s, 0, 0, 0, 0, 0], dtype=torch.float64)) for s in (1, -1)]
    first = stereo(keyframe(views[1]), [views[0], views[2]], T_jk)
    again = stereo(keyframe(views[1]), [views[0], views[2]], T_jk)
    assert len(encoded) == 3 and torch.equal(first.value, again.value)
    stereo(keyframe(views[2]), [views[1], views[3]], T_jk)
    assert len(encoded) == 4  # only the one that tracking has not seen
    assert first.size == first.sigma.shape == (H, W)
    assert first.value.min() > 0 and first.value.max() < 2 * 0.5 * 1.6
    assert first.sigma.min() > 0


def test_the_range_spans_what_the_certain_cells_have_and_a_margin():
    """Half of the cells are certain, from 0.2 to 0.8; the others say 10, and are asked nothing."""
    value = torch.linspace(0.2, 0.8, 192).view(12, 16)
    value[::2] = 10.0
    sigma = 0.05 * value
    sigma[::2] = 5.0
    low, high = inv_depth_range(replace(keyframe(view(0)), coarse=InvDepth(value, sigma)))
    assert low == pytest.approx(0.4 * 0.25, rel=0.1) and high == pytest.approx(1.6 * 0.8, rel=0.1)


@pytest.mark.parametrize("certain", [0, MIN_CELLS - 1])
def test_the_range_about_a_guess_is_wide(certain):
    """A prior may be wrong by a factor, in all of it and from place to place; a few certain cells are no range."""
    value = torch.linspace(0.1, 0.9, 192).view(12, 16)
    relative = torch.full((192,), 0.4)
    relative[:certain] = 0.01
    coarse = InvDepth(value, relative.view(12, 16) * value)
    low, high = inv_depth_range(replace(keyframe(view(0)), coarse=coarse))
    middle = float(value.median())
    assert (low, high) == pytest.approx((middle / UNKNOWN_RANGE, middle * UNKNOWN_RANGE)) and UNKNOWN_RANGE == 4
