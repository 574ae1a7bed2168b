"""Keyframes of a camera that turned out to be another: as if they had been made of the right one."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from slam.backend.graph import Edge
from slam.frames import Frame, Keyframe, Keypoints, Recalibration
from slam.frontend.preparation import Preparation, optics_of
from slam.geometry import se3
from slam.geometry.camera import Camera, Optics, pixel_grid
from slam.geometry.flow import reproject
from slam.inv_depth import InvDepth
from slam.mapping.recalibration import recalibrated, recalibrated_motion

GUESS = Camera(320, 240, 260.0, 260.0, 159.5, 119.5, is_guess=True)
FOUND = replace(GUESS, fx=300.0, fy=300.0, distortion=(-0.2, 0.0, 0.0, 0.0))
PIXELS = 160 * 120
STRIDE = 4


def change_of(before: Camera, after: Camera) -> Recalibration:
    return Recalibration(after, optics_of(before, PIXELS), optics_of(after, PIXELS))


@pytest.fixture(scope="module")
def frame() -> Frame:
    """A smooth image."""
    noise = np.random.default_rng(0).uniform(0, 255, (16, 20, 3)).astype(np.float32)
    image = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    return Frame(0, 0, image, GUESS)


def keyframe_of(frame: Frame, camera: Camera) -> Keyframe:
    """Seen by a camera, with inverse depth that is a plane of its view's pixels."""
    view = Preparation(camera, PIXELS).prepare(frame)
    dense = ramp(120, 160, 1)
    return Keyframe(0, view, se3.identity(), dense, ramp(30, 40, STRIDE))


def ramp(h: int, w: int, stride: int) -> InvDepth:
    uv = (pixel_grid(h, w, like=torch.empty(0)) + 0.5) * stride - 0.5
    value = 1 + 0.004 * uv[..., 0] + 0.002 * uv[..., 1]
    return InvDepth(value, 0.1 * value)


def test_the_picture_is_that_of_the_right_camera(frame):
    made = recalibrated(keyframe_of(frame, GUESS), change_of(GUESS, FOUND)).view
    wanted = Preparation(FOUND, PIXELS).prepare(frame)
    torch.testing.assert_close(made.K, wanted.K)
    inner = (slice(4, -4), slice(4, -4))
    off = np.abs(made.image.rgb[inner].astype(float) - wanted.image.rgb[inner])
    unmoved = np.abs(keyframe_of(frame, GUESS).view.image.rgb[inner].astype(float) - wanted.image.rgb[inner])
    assert off.mean() < 1.5 < 0.2 * unmoved.mean()


def test_depths_stay_with_what_they_are_of(frame):
    change = change_of(GUESS, FOUND)
    made = recalibrated(keyframe_of(frame, GUESS), change)
    for depth, stride in ((made.dense, 1), (made.coarse, STRIDE)):
        h, w = depth.size
        origin = change.origin((pixel_grid(h, w, like=torch.empty(0, dtype=torch.float64)) + 0.5) * stride - 0.5)
        wanted = (1 + 0.004 * origin[..., 0] + 0.002 * origin[..., 1]).float()
        torch.testing.assert_close(depth.value[2:-2, 2:-2], wanted[2:-2, 2:-2], rtol=2e-3, atol=0.0)
        torch.testing.assert_close(depth.sigma / depth.value, torch.full_like(depth.value, 0.1))


def test_a_focal_length_alone_moves_no_pixel(frame):
    before = keyframe_of(frame, GUESS)
    after = recalibrated(before, change_of(GUESS, replace(GUESS, fx=300.0, fy=300.0)))
    assert after.view.image is before.view.image and after.dense is before.dense
    assert float(after.view.K[0, 0]) == pytest.approx(150.0)


def test_a_keyframe_of_the_new_camera_stays_as_it_is(frame):
    change = change_of(GUESS, FOUND)
    once = recalibrated(keyframe_of(frame, GUESS), change)
    assert recalibrated(once, change) is once


def test_keypoints_go_there_and_back(frame):
    change = change_of(GUESS, FOUND)
    uv = np.array([[10.0, 20.0], [79.5, 59.5], [150.0, 100.0]], np.float32)
    keypoints = Keypoints(uv, np.zeros((3, 128), np.float32))
    made = recalibrated(replace(keyframe_of(frame, GUESS), keypoints=keypoints), change)
    assert made.keypoints is not None
    np.testing.assert_allclose(change.origin(torch.from_numpy(made.keypoints.uv).double()), uv, atol=1e-3)
    assert np.abs(made.keypoints.uv - uv).max() > 1


@pytest.mark.parametrize("step", [1, 2])
def test_flow_is_that_between_the_new_views(frame, step):
    """Flow of a surface by a motion, seen by the new camera, from that of the same rays in the old views."""
    change = change_of(GUESS, FOUND)
    h, w = 30 // step, 40 // step
    T_ji = se3.exp(torch.tensor([0.05, 0.02, 0.03, 0.02, -0.04, 0.05], dtype=torch.float64))

    def pixels(cells):
        return (cells * step + 0.5) * STRIDE - 0.5

    def cells(uv):
        return ((uv + 0.5) / STRIDE - 0.5) / step

    def flow(optics: Optics, uv):
        """Of a plane before the right camera, in the views of `optics`."""
        K = change.after.pinhole.matrix()
        at = change.after.view_uv(optics.source_uv(uv))  # the true rays
        rays = torch.cat([(at - K[:2, 2]) / K.diagonal()[:2], torch.ones_like(at[..., :1])], -1)
        points = rays / (1 + 0.2 * rays[..., :1]) @ T_ji[:3, :3].mT + T_ji[:3, 3]
        return optics.view_uv(change.after.source_uv(points[..., :2] / points[..., 2:] * K.diagonal()[:2] + K[:2, 2]))

    grid = pixels(pixel_grid(h, w, like=torch.empty(0, dtype=torch.float64)))
    old = Edge(cells(flow(change.before, grid)).float(), torch.ones(h, w, 2))
    made = old.recalibrated(change, STRIDE, step)
    torch.testing.assert_close(
        made.target_uv[2:-2, 2:-2].double(), cells(flow(change.after, grid))[2:-2, 2:-2], atol=0.03, rtol=0.0
    )


def test_motions_keep_the_flow_they_were_measured_by():
    """A small motion, before a plane, that explains the same flow by a focal length a quarter longer."""
    K = torch.tensor([[200.0, 0, 79.5], [0, 200.0, 59.5], [0, 0, 1]], dtype=torch.float64)
    longer = K.clone()
    longer[:2, :2] *= 1.25
    T = se3.exp(torch.tensor([0.02, -0.01, 0.0, 0.01, 0.02, 0.03], dtype=torch.float64))
    d = torch.ones(1, 120, 160, dtype=torch.float64)
    uv = reproject(d, T[None], K[None])[0]
    same = reproject(d, recalibrated_motion(T, 1.25)[None], longer[None])[0]
    stale = reproject(d, T[None], longer[None])[0]
    assert (same - uv).norm(dim=-1).mean() < 0.15 * (stale - uv).norm(dim=-1).mean()
