import pytest
import torch
import torch.nn.functional as F

from slam.kernels.feature_sweep import correlation_volume
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import FlowSE3
from slam.networks.stereo import (
    MAX_REACH,
    MIN_REACH,
    StereoNet,
    StereoNetConfig,
    convex_upsample,
    near_hypotheses,
    wide_hypotheses,
)

FOCAL, BASELINE = 24.0, 0.25


def wall(
    inv_depth: float, baselines: list[float]
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Smooth random features on a wall, seen by cameras shifted along x: features shift by f * b * inv_depth pixels."""
    torch.manual_seed(0)
    h, w = 12, 24
    texture = F.interpolate(torch.randn(1, 8, 6, 40), (h, 4 * w), mode="bicubic", align_corners=True)
    columns = torch.arange(w) + 1.5 * w

    def view(b: float) -> torch.Tensor:
        place = columns + FOCAL * b * inv_depth
        low = place.floor().long()
        share = (place - low).float()
        return texture[..., low] * (1 - share) + texture[..., low + 1] * share

    T_jk = torch.eye(4, dtype=torch.float64).repeat(1, len(baselines), 1, 1)
    T_jk[0, :, 0, 3] = -torch.tensor(baselines, dtype=torch.float64)
    K = torch.tensor([[[FOCAL, 0, (w - 1) / 2], [0, FOCAL, (h - 1) / 2], [0, 0, 1]]], dtype=torch.float64)
    return view(0.0), [view(b) for b in baselines], T_jk, K


def test_sweep_with_true_poses_peaks_at_the_true_plane():
    """Planes every 0.1 of inverse depth move features by 0.6 px; normalised features correlate best at the truth."""
    matching_k, matching_j, T_jk, K = wall(0.8, [BASELINE, -BASELINE])
    matching_k, matching_j = F.normalize(matching_k, dim=1), [F.normalize(m, dim=1) for m in matching_j]
    hypotheses = wide_hypotheses(torch.tensor([0.1]), torch.tensor([1.6]), 16)
    volume = correlation_volume(matching_k, matching_j, T_jk, K, hypotheses, groups=2)
    assert volume.shape == (1, 16, 12, 24, 3)
    best = hypotheses.flatten()[volume[..., :2].sum(-1).argmax(1)]
    inner = best[:, 1:-1, 8:-8]  # both views see these
    assert (inner - 0.8).abs().max() < 0.051
    assert (volume[0, 7, 1:-1, 8:-8, 2] == 1).all() and volume[0, 7, 6, 0, 2] == 0.5  # share of views that see it


def test_order_of_the_views_does_not_matter_and_their_number_is_free():
    matching_k, matching_j, T_jk, K = wall(0.8, [BASELINE, -BASELINE, 2 * BASELINE])
    hypotheses = wide_hypotheses(torch.tensor([0.1]), torch.tensor([1.6]), 8)
    order = [2, 0, 1]
    a = correlation_volume(matching_k, matching_j, T_jk, K, hypotheses, 4)
    b = correlation_volume(matching_k, [matching_j[m] for m in order], T_jk[:, order], K, hypotheses, 4)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    one = correlation_volume(matching_k, matching_j[:1], T_jk[:, :1], K, hypotheses, 4)
    doubled = correlation_volume(matching_k, matching_j[:1] * 2, T_jk[:, [0, 0]], K, hypotheses, 4)
    torch.testing.assert_close(one, doubled, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width", "planes"), [(16, 24, 8), (40, 56, 12), (48, 64, 16)])
def test_network_output_stays_inside_the_hypotheses_at_any_size(height: int, width: int, planes: int):
    torch.manual_seed(0)
    config = EncoderConfig(8, 16, 24, matching=24, stereo=8, image=8)
    motion, stereo = (
        FlowSE3(config),
        StereoNet(config, StereoNetConfig(groups=4, width=8, planes=planes, near_planes=8)),
    )
    images = torch.rand(6, 3, height, width)
    maps = motion.encode_for_stereo(motion.encode(images), images)
    T_jk = torch.eye(4, dtype=torch.float64).repeat(2, 2, 1, 1)
    T_jk[..., 0, 3] = 0.1
    K = torch.tensor([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    views = maps[:2], [maps[2:4], maps[4:]], T_jk, K
    low, high = torch.tensor([0.2, 0.4]), torch.tensor([1.0, 2.0])
    found = stereo(*views, low, high)
    inv_depth, sigma = found.inv_depth, found.sigma
    assert inv_depth.shape == sigma.shape == (2, height, width)
    first, _ = stereo.wide(*views, wide_hypotheses(low, high, planes))
    for b in range(2):
        assert first[b].min() >= low[b] - 1e-5 and first[b].max() <= high[b] + 1e-5
        assert inv_depth[b].min() >= (1 - MAX_REACH) * low[b] - 1e-5
        assert inv_depth[b].max() <= (1 + MAX_REACH) * high[b] + 1e-5
    assert sigma.min() > 0 and torch.isfinite(sigma).all()


def test_upsampling_reproduces_constants_and_selects_neighbours():
    """Any mask keeps a constant; a mask for the left neighbour gives the coarse image shifted right by one cell."""
    torch.manual_seed(0)
    logits = torch.randn(1, 144, 3, 5)
    torch.testing.assert_close(convex_upsample(torch.full((1, 1, 3, 5), 2.5), logits), torch.full((1, 1, 12, 20), 2.5))
    values = torch.rand(1, 1, 3, 5)
    left = torch.full((1, 9, 16, 3, 5), -100.0)
    left[:, 3] = 100.0  # row 1, column 0 of the 3x3 cells
    fine = convex_upsample(values, left.view(1, 144, 3, 5))
    expected = F.pad(values, (1, 0, 0, 0), mode="replicate")[..., :-1]
    torch.testing.assert_close(fine, expected.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_hypotheses_are_even_over_the_range_or_around_what_the_first_sweep_found():
    wide = wide_hypotheses(torch.tensor([0.1]), torch.tensor([0.4]), 4)
    torch.testing.assert_close(wide.flatten(), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    inv_depth, sigma = torch.tensor([[[2.0, 2.0, 2.0]]]), torch.tensor([[[0.2, 0.0, 5.0]]])
    near = near_hypotheses(inv_depth, sigma, 5)
    assert near.shape == (1, 5, 1, 3)
    torch.testing.assert_close(near[0, :, 0, 0], torch.tensor([1.4, 1.7, 2.0, 2.3, 2.6]))  # three sigma
    torch.testing.assert_close(near[0, [0, -1], 0, 1], 2 * torch.tensor([1 - MIN_REACH, 1 + MIN_REACH]))
    torch.testing.assert_close(near[0, [0, -1], 0, 2], 2 * torch.tensor([1 - MAX_REACH, 1 + MAX_REACH]))
