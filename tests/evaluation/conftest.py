"""Two short videos with true depth and poses: a rendered room, and a slanted wall by formula."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.geometry import se3
from slam.geometry.flow import rays
from slam.sources.demo import DemoConfig, DemoSource

F64 = torch.float64


@dataclass(frozen=True, eq=False)
class Video:
    """N frames."""

    images: Tensor  # (N, 3, h, w)
    inv_depth: Tensor  # (N, h, w) float32
    T_wc: Tensor  # (N, 4, 4)
    K: Tensor  # (3, 3)
    off_edges: Tensor  # (N, h, w) bool


@pytest.fixture(scope="session")
def room() -> Video:
    """12 frames around a desk, up to 0.8 m and 30 degrees apart."""
    config = DemoConfig("office", "orbit", frames=12, width=96, height=72, fps=5.0, noise=0.0, exposure_drift_stops=0.0)
    source = DemoSource(config, with_depth=True)
    frames = list(source)
    images = torch.stack([torch.from_numpy(frame.image).permute(2, 0, 1) / 255 for frame in frames])
    d = torch.stack([1 / torch.from_numpy(frame.depth) for frame in frames])
    # inverse depth of a plane is linear in the image: off edges it is the mean of its neighbours
    around = F.avg_pool2d(d[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    is_bent = F.pad((around / d - 1).abs()[:, 1:-1, 1:-1] > 2e-3, (1, 1, 1, 1), value=True)
    off_edges = F.max_pool2d(is_bent[:, None].float(), 3, 1, 1)[:, 0] == 0
    return Video(images, d, torch.from_numpy(source.groundtruth().T_wc), source.camera.matrix(), off_edges)


@pytest.fixture(scope="session")
def wall() -> Video:
    """12 frames of a wall `n . p = 2` of smooth colours, by a camera that moves and turns about every axis."""
    N, h, w = 12, 48, 64
    K = torch.tensor([[55.0, 0, 30.0], [0, 60.0, 25.0], [0, 0, 1]], dtype=F64)
    normal = torch.tensor([0.3, -0.2, 1.0], dtype=F64)
    s = torch.linspace(0, 1, N, dtype=F64)[:, None]
    T_wc = se3.exp(
        s * torch.tensor([0.5, -0.3, 0.35, 0.15, 0.1, 0.2], dtype=F64) + torch.tensor([0.2, 0.1, 0.1, 0, 0, 0])
    )
    ray = rays(K.expand(N, 3, 3), h, w) @ T_wc[:, None, :3, :3].mT
    t = T_wc[:, None, None, :3, 3]
    d = (ray @ normal) / (2 - t @ normal)
    p_w = t + ray / d[..., None]
    waves = torch.tensor([[5.0, 3, 0], [-3, 6, 0], [2, -5, 0]], dtype=F64)
    images = (0.5 + 0.4 * (p_w @ waves.mT).sin()).permute(0, 3, 1, 2)
    return Video(images.float(), d.float(), T_wc, K, torch.ones(N, h, w, dtype=torch.bool))


MUTANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "t negated": lambda T: se3.from_rt(T[:, :3, :3], -T[:, :3, 3]),
    "camera from world": se3.inverse,
    "R transposed": lambda T: se3.from_rt(T[:, :3, :3].mT, T[:, :3, 3]),
    "other frames' poses": lambda T: T.flip(0),
}


@pytest.fixture(params=MUTANTS)
def mutant(request: pytest.FixtureRequest) -> Callable[[Tensor], Tensor]:
    """A mistake of convention, done to poses."""
    return MUTANTS[request.param]


@pytest.fixture(params=["room", "wall"])
def video(request: pytest.FixtureRequest) -> Video:
    """Each of the videos."""
    return request.getfixturevalue(request.param)
