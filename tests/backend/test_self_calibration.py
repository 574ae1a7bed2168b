"""The camera asked of the map: found from flows, left alone where they do not tell, compared where it was given."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.backend.graph import SUBSAMPLING, Edge, KeyframeGraph
from slam.backend.self_calibration import SelfCalibration, geman_mcclure, verdict
from slam.frames import Image, Keyframe, View
from slam.frontend import preparation
from slam.geometry import se3
from slam.geometry.camera import Camera, Optics, pixel_grid
from slam.geometry.flow import in_image
from slam.inv_depth import InvDepth
from slam.mapping.recalibration import cells_of_pixels, pixels_of_cells

TRUE = Camera(320, 240, 300.0, 300.0, 159.5, 119.5, (-0.1, 0.0, 0.0, 0.0))
GUESS = Camera(320, 240, 240.0, 240.0, 159.5, 119.5, is_guess=True)
PIXELS, STRIDE, COUNT = 160 * 120, 4, 8
NOISE_PX = 0.1
F64 = torch.float64


def optics_of(camera: Camera) -> Optics:
    return preparation.optics_of(camera, PIXELS)


def poses(turn: float) -> torch.Tensor:
    """T_wc of a camera that moves and turns about all axes."""
    xi = torch.randn(COUNT, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    return se3.exp(xi * torch.tensor([0.15] * 3 + [turn] * 3, dtype=F64))


def graph_of(believed: Camera, turn: float = 0.15) -> KeyframeGraph:
    """Keyframes as of a camera that is believed, true poses, and flows that the true camera saw, with noise."""
    optics, true = optics_of(believed), optics_of(TRUE)
    generator = torch.Generator().manual_seed(1)
    T_wc, hc, wc = poses(turn), 30, 40
    graph = KeyframeGraph()
    values = [0.5 + torch.rand(hc, wc, generator=generator) for _ in range(COUNT)]
    image = Image(np.zeros((120, 160, 3), np.uint8))
    K = optics.pinhole.matrix()
    graph.put(
        Keyframe(
            n,
            View(n, n, image, K),
            T_wc[n],
            InvDepth.unknown((120, 160)),
            InvDepth(values[n], 0.05 * values[n]),
        )
        for n in range(COUNT)
    )
    grid = pixels_of_cells(pixel_grid(hc // 2, wc // 2, like=torch.empty(0, dtype=F64)), STRIDE, SUBSAMPLING)
    at = true.view_uv(optics.source_uv(grid))
    K_true = true.pinhole.matrix()
    focal, centre = K_true.diagonal()[:2], K_true[:2, 2]
    rays = torch.cat([(at - centre) / focal, torch.ones_like(at[..., :1])], -1)
    for a in range(COUNT):
        points = rays / values[a][::2, ::2, None].double()
        for b in range(max(0, a - 3), min(COUNT, a + 4)):
            if a == b:
                continue
            T = se3.inverse(T_wc[b]) @ T_wc[a]
            moved = points @ T[:3, :3].mT + T[:3, 3]
            uv = true.source_uv(moved[..., :2] / moved[..., 2:] * focal + centre)
            uv = uv + NOISE_PX * torch.randn(uv.shape, dtype=F64, generator=generator)
            cells = cells_of_pixels(optics.view_uv(uv), STRIDE, SUBSAMPLING)
            seen = ((moved[..., 2] > 0.1) & in_image(cells, hc // 2, wc // 2))[..., None].float().expand(*cells.shape)
            graph.connect_subsampled((a, b), Edge(torch.where(seen > 0, cells, 0.0).float(), seen.contiguous()))
    return graph


def asked(calibration: SelfCalibration, graph: KeyframeGraph, times: int = 4) -> None:
    """Ask, and change the graph accordingly, as the backend does but for the adjustment."""
    for _ in range(times):
        change = calibration.ask(graph, {}, STRIDE)
        if change is not None:
            graph.recalibrate(change, STRIDE)


def test_focal_length_and_k1_are_found_together_by_asking_until_they_are_certain():
    """Again when the map has grown, and not any more then."""
    calibration = SelfCalibration(GUESS, optics_of, "radial")
    assert not calibration.is_due(4) and calibration.is_due(5)
    graph = graph_of(GUESS)
    asked(calibration, graph, 1)
    assert calibration.is_asked and not calibration.is_due(COUNT) and calibration.is_due(2 * COUNT)
    asked(calibration, graph)
    assert not calibration.is_asked and not calibration.is_due(1000)
    assert calibration.camera.fx == pytest.approx(TRUE.fx, rel=0.02)
    assert calibration.camera.distortion[0] == pytest.approx(TRUE.distortion[0], abs=0.02)
    assert calibration.estimate is not None and calibration.estimate.k1_deviation is not None
    assert all(torch.equal(k.view.K, calibration.optics.pinhole.matrix()) for k in graph.keyframes)
    assert "focal length" in verdict(calibration) and "k1" in verdict(calibration)


def test_focal_mode_leaves_k1_alone():
    guess = replace(GUESS, fx=270.0, fy=270.0, distortion=TRUE.distortion)
    calibration = SelfCalibration(guess, optics_of, "focal")
    asked(calibration, graph_of(guess))
    assert calibration.camera.distortion == TRUE.distortion
    assert calibration.camera.fx == pytest.approx(TRUE.fx, rel=0.01)


def test_a_camera_that_hardly_turns_keeps_the_guess():
    calibration = SelfCalibration(GUESS, optics_of, "radial")
    asked(calibration, graph_of(GUESS, turn=0.0), 1)
    assert calibration.camera == GUESS and calibration.estimate is None
    assert "cannot tell" in verdict(calibration) and "240.0 pixels stays" in verdict(calibration)


@pytest.mark.parametrize(("focal", "words"), [(300.0, "they agree"), (345.0, "they disagree (-1")])
def test_a_calibration_that_was_given_is_judged_and_kept(focal, words):
    given = replace(TRUE, fx=focal, fy=focal)
    calibration = SelfCalibration(given, optics_of, "focal")
    assert not calibration.is_due(100)
    assert calibration.ask(graph_of(given), {}, STRIDE) is None
    assert calibration.camera == given and words in verdict(calibration)


def test_too_few_keyframes_say_nothing():
    calibration = SelfCalibration(GUESS, optics_of, "radial")
    graph = graph_of(GUESS)
    graph.forget(0, frozenset(range(3)), STRIDE)
    assert calibration.ask(graph, {}, STRIDE) is None and calibration.estimate is None


def test_far_errors_are_let_go():
    weight = geman_mcclure(torch.tensor([0.0, 1.0, 10.0, torch.inf]), 1.0)
    assert weight[0] == 1 and weight[1] == 0.25 and weight[2] < 1e-3 and weight[3] == 0


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)
