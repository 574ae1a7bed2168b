"""A rendered video with true depth and poses, at pixels and at cells, and the flow that follows from these."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slam.frames import Keyframe, Trajectory, View
from slam.frontend.preparation import Preparation
from slam.geometry.camera import pixel_grid, sample, scaled_intrinsics
from slam.inv_depth import InvDepth
from slam.networks.prior import STRIDE
from slam.networks.storage import Networks
from slam.refinement.clip import Clip
from slam.refinement.constraints import Constraints
from slam.refinement.flows import Flows, mismatch
from slam.sources.demo import DemoConfig, DemoSource
from tests.training.tiny import TINY

ATTIC = DemoConfig("attic", "orbit", frames=24, width=128, height=96, fps=10.0)
PLANAR = 2e-3  # relative: inverse depth of a plane is the mean of its neighbours, up to this


@dataclass(frozen=True, eq=False)
class Room:
    """N frames with truth; a cell is STRIDE pixels wide."""

    clip: Clip
    inv_depth: Tensor  # (N, H, W) float32
    cells: Tensor  # (N, h, w) the same at the centres of the cells
    off_edges: Tensor  # (N, h, w) bool: the cell and those around it show one plane
    moving: Tensor  # (N, h, w) bool: the cell shows something that moves

    @property
    def K_cells(self) -> Tensor:
        """(3, 3) float64 intrinsics at cells."""
        return scaled_intrinsics(self.clip.K, 1 / STRIDE)

    def uv(self, i: Tensor, j: Tensor) -> Tensor:
        """(E, h, w, 2) float64 where the cells of frames i (E,) lie in frames j, by the definition of a pinhole."""
        h, w = self.cells.shape[1:]
        K = self.K_cells
        uv1 = F.pad(pixel_grid(h, w, like=K), (0, 1), value=1.0)
        p_c = (uv1 @ torch.linalg.inv(K).mT) / self.cells[i].double()[..., None]
        p_w = p_c @ self.clip.T_wc[i, None, :3, :3].mT + self.clip.T_wc[i, None, None, :3, 3]
        p_j = (p_w - self.clip.T_wc[j, None, None, :3, 3]) @ self.clip.T_wc[j, None, :3, :3]
        p_j = p_j @ K.mT
        return p_j[..., :2] / p_j[..., 2:].clamp_min(1e-3)

    def flows(self, pairs: Sequence[tuple[int, int]]) -> Flows:
        """Exact flow of pairs and of the same pairs the other way."""
        index = torch.tensor([*pairs, *((j, i) for i, j in pairs)])
        uv = self.uv(*index.unbind(1)).float()
        mutual = mismatch(uv, torch.cat([uv[len(pairs) :], uv[: len(pairs)]])) * STRIDE < 1
        displacement = uv - pixel_grid(*self.cells.shape[1:], like=uv)
        return Flows(index, displacement.half(), torch.ones_like(uv).half(), mutual)

    def constraints(self, pairs: Sequence[tuple[int, int]]) -> Constraints:
        """Of exact flow and poses, all at rest."""
        flows = self.flows(pairs)
        T_ji = self.clip.motion(*flows.index.unbind(1)).float()
        return Constraints(flows, T_ji, self.K_cells.float(), torch.ones_like(self.cells), STRIDE)

    def clean(self, flows: Flows) -> Tensor:
        """(E, h, w) bool: off edges in both frames, and seen in both."""
        i, j = flows.index.unbind(1)
        there = sample(self.off_edges[j, None].float(), flows.uv(torch.arange(len(flows))))[:, 0]
        return flows.mutual & self.off_edges[i] & (there > 0.999)

    def keyframes(self, step: int, scale: Tensor | None = None) -> list[Keyframe]:
        """Every `step`-th frame with its true depth, or that divided by `scale` (N, H, W)."""
        d = self.inv_depth if scale is None else self.inv_depth * scale
        return [
            Keyframe(n, self.clip.views[n], self.clip.T_wc[n], InvDepth(d[n], 0.05 * d[n]), InvDepth.unknown((0, 0)))
            for n in range(0, len(self.clip), step)
        ]

    def trajectory(self) -> Trajectory:
        """True poses."""
        times = torch.tensor([view.time_ns for view in self.clip.views])
        return Trajectory(times.numpy(), self.clip.T_wc.numpy())


def rendered_room(config: DemoConfig) -> Room:
    """Frames of the demo, prepared as a run prepares them."""
    source = DemoSource(config, with_depth=True)
    frames = list(source)
    assert all(frame.depth is not None for frame in frames)
    inv_depth = torch.stack([1 / torch.from_numpy(frame.depth) for frame in frames])
    prepare = Preparation(source.camera, config.width * config.height)
    views = [prepare.prepare(frame) for frame in frames]
    views = [View(v.frame_id, v.time_ns, v.image, v.K) for v in views]  # without the depth of a sensor
    clip = Clip(tuple(views), torch.from_numpy(source.groundtruth().T_wc))
    # the same camera with pixels as large as cells: both cover the same field of view
    coarse = DemoSource(replace(config, width=config.width // STRIDE, height=config.height // STRIDE), with_depth=True)
    torch.testing.assert_close(coarse.camera.matrix(), scaled_intrinsics(clip.K, 1 / STRIDE))
    cells = torch.stack([1 / torch.from_numpy(frame.depth) for frame in coarse])
    moving = F.avg_pool2d(torch.from_numpy(source.mover_masks(0, config.frames))[:, None].float(), STRIDE)[:, 0] > 0.5
    around = F.avg_pool2d(cells[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    is_bent = F.pad((around / cells - 1).abs()[:, 1:-1, 1:-1] > PLANAR, (1, 1, 1, 1), value=True)
    off_edges = F.max_pool2d(is_bent[:, None].float(), 3, 1, 1)[:, 0] == 0
    return Room(clip, inv_depth, cells, off_edges, moving)


@pytest.fixture(scope="session")
def room() -> Room:
    """24 frames of an attic, 0.7 m from the first to the last: planes that meet, none hides another."""
    return rendered_room(ATTIC)


@pytest.fixture(scope="session")
def passage() -> Room:
    """The same attic with things that move along their epipolar lines: a tenth of the cells show them."""
    return rendered_room(replace(ATTIC, movers="epipolar"))


@pytest.fixture(scope="session")
def untrained() -> Networks:
    """Small networks that know nothing."""
    torch.manual_seed(0)
    return Networks(TINY).eval()
