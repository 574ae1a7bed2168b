import pytest
import torch

from slam.geometry.camera import scaled_intrinsics
from slam.geometry.flow import reproject
from slam.solvers.cascade import Cascade
from slam.solvers.flow_se3 import flow_se3

K = torch.tensor([[[40.0, 0, 31.5], [0, 40.0, 23.5], [0, 0, 1]]], dtype=torch.float64)
H, W = 48, 64
REST = torch.eye(4, dtype=torch.float64)[None]


class Known:
    """Correspondence that knows the true flow at its stride, plus an error of its own, pixels of the picture."""

    def __init__(self, stride: int, T_true: torch.Tensor, inv_depth: torch.Tensor, error_px: float = 0.0) -> None:
        self.stride = stride
        cells = torch.nn.functional.avg_pool2d(inv_depth, stride // 4) if stride % 4 == 0 else inv_depth
        self.target = reproject(cells, T_true, scaled_intrinsics(K, 1 / stride))[0] + error_px / stride
        self.seen: list[torch.Tensor] = []

    def encode(self, images):
        return [self.stride for _ in images]

    def start(self, features_i, features_j):
        return 0

    def update(self, state, uv):
        self.seen.append(uv)
        return state + 1, self.target - uv, torch.ones_like(uv)


def test_fine_correspondence_starts_where_the_coarse_one_ended_and_has_the_last_word():
    """The coarse one is 0.4 px off, the fine one exact: the pose ends exact, and the fine one began within 0.5 px."""
    T_true = torch.eye(4, dtype=torch.float64)[None].clone()
    T_true[0, :3, 3] = torch.tensor([0.2, -0.1, 0.05])
    depth = torch.full((1, H // 4, W // 4), 0.6, dtype=torch.float64)
    depth[0, ::3] *= 0.7  # not one plane, or rotation and translation are confused
    coarse, fine = Known(8, T_true, depth, 0.4), Known(4, T_true, depth)
    cascade = Cascade(coarse, fine, 2)
    features = cascade.encode(torch.zeros(2, 3, H, W))
    assert cascade.stride == 4 and (features[0].coarse, features[0].fine) == (8, 4)
    start = cascade.start(features[:1], features[1:])
    steps = flow_se3(cascade.update, start, depth, REST, scaled_intrinsics(K, 1 / 4), iters=4, gn_steps=3)
    assert (len(coarse.seen), len(fine.seen)) == (2, 2)
    assert 4 * (fine.seen[0] - fine.target).abs().mean() < 0.6
    torch.testing.assert_close(steps[-1].T_ji, T_true, rtol=0, atol=1e-5)


def test_cells_of_the_two_strides_share_their_centres():
    """At rest and with zero depth the coarse one must be asked at exactly its own grid."""
    coarse, fine = (Known(stride, REST, torch.zeros(1, H // 4, W // 4).double()) for stride in (8, 4))
    cascade = Cascade(coarse, fine, 1)
    state, residual_uv, weight = cascade.update(cascade.start([], []), fine.target)
    torch.testing.assert_close(coarse.seen[0], coarse.target)
    torch.testing.assert_close(residual_uv, torch.zeros_like(fine.target), rtol=0, atol=1e-9)
    assert weight.min() == 1 and state.updates == 1


def test_strides_must_fit():
    with pytest.raises(ValueError, match="multiple"):
        Cascade(*(Known(stride, REST, torch.ones(1, 4, 4).double()) for stride in (6, 4)))
