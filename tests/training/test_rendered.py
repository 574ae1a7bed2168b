"""Pairs of rendered views to learn depth from one picture: sizes, lenses, roll, and what both views see."""

import torch

from slam.geometry import se3
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import MotionNetConfig
from slam.networks.prior import PriorNetConfig
from slam.networks.stereo import StereoNetConfig
from slam.networks.storage import NetworkConfig, Networks
from slam.training.clips import Clip
from slam.training.losses import agreement_loss
from slam.training.rendered import WIDEST, RenderedPairs
from slam.training.validation import validate_prior

PIXELS = 96 * 64
TINY = NetworkConfig(
    "tiny",
    96,
    64,
    EncoderConfig(8, 8, 8, blocks_8=1, matching=8, fine=8, stereo=8, image=8),
    MotionNetConfig(8, 8, levels=2, radius=2),
    StereoNetConfig(4, 8, 8),
    PriorNetConfig(8, 8, 8, 8),
)


def pairs(count: int, seed: int = 3) -> list[Clip]:
    make, generator = RenderedPairs(PIXELS, torch.device("cpu")), torch.Generator().manual_seed(seed)
    return [clip for _ in range(count) for clip in make(generator)]


def test_pairs_have_several_shapes_and_lenses_and_true_depths_and_poses():
    found = pairs(14)
    sizes = {tuple(clip.images.shape[-2:]) for clip in found}
    assert len(sizes) >= 2 and all(side % 32 == 0 for size in sizes for side in size)
    assert all(0.6 * PIXELS < h * w < 1.6 * PIXELS for h, w in sizes)
    focal = torch.tensor([float(clip.K[0, 0]) / max(clip.images.shape[-2:]) for clip in found])
    assert focal.min() >= WIDEST and focal.min() < 0.7 and focal.max() > 0.9
    agree = []
    for clip in found:
        assert len(clip.images) == 2 and (clip.inv_depth > 0).float().mean() > 0.95
        T_ba = se3.inverse(clip.T_wc[1:]) @ clip.T_wc[:1]
        both = [d[None] for d in clip.inv_depth]
        assert agreement_loss(both, both, T_ba, clip.K[None]) < 0.01
        agree.append(agreement_loss([torch.ones_like(d) for d in both], both, T_ba, clip.K[None]))
    assert torch.stack(agree).max() > 0.01  # they overlap and move: a constant depth does not agree


def test_a_view_is_rolled_like_a_hand_does_and_both_of_a_pair_alike():
    """The world's y axis is down: its angle in the image is the roll."""
    rolls = []
    for clip in pairs(10, seed=4):
        down = clip.T_wc[:, 1, :2]  # the world's y in camera x, y
        rolls.append(torch.atan2(down[:, 0], down[:, 1]))
    rolls = torch.stack(rolls)
    assert 0.02 < float(rolls.abs().median()) < 0.5
    assert float((rolls[:, 0] - rolls[:, 1]).abs().median()) < 0.1


def test_validation_of_an_untrained_prior_is_that_of_a_constant_depth():
    """One scale a picture alone is free of units; in metres a constant depth of 1 is what its error says."""
    clips = pairs(3, seed=6)
    networks = Networks(TINY)
    scores = validate_prior(networks.motion, networks.prior, clips)
    assert abs(scores["prior_abs_rel"] - scores["constant_abs_rel"]) < 1e-6
    metric = [(d[d > 0] - 1).abs().mean() for d in (clip.inv_depth for clip in clips)]
    assert abs(scores["prior_abs_rel_in_metres"] - float(torch.stack(metric).mean())) < 1e-5
    assert scores["prior_abs_rel_one_scale_a_clip"] >= scores["prior_abs_rel"] - 0.02
    with torch.no_grad():
        networks.prior.scale.bias += 1.0
    again = validate_prior(networks.motion, networks.prior, clips)
    assert abs(again["prior_abs_rel"] - scores["prior_abs_rel"]) < 1e-5
    assert again["prior_abs_rel_in_metres"] != scores["prior_abs_rel_in_metres"]
