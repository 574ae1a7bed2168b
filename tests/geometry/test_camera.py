"""Cameras and pixel conventions, against OpenCV and by hand."""

import cv2
import numpy as np
import pytest
import torch

from slam.errors import CalibrationError
from slam.geometry import camera, lens
from slam.geometry.camera import Camera

F64 = torch.float64
FR1 = Camera(640, 480, 517.3, 516.5, 318.6, 255.3, (0.2624, -0.9531, -0.0054, 0.0026, 1.1633))
FR2 = Camera(640, 480, 520.9, 521.0, 325.1, 249.7, (0.2312, -0.7849, -0.0033, -0.0001, 0.9172))
BARREL = Camera(752, 480, 458.7, 457.3, 367.2, 248.4, (-0.2834, 0.0740, 0.0002, 1.8e-05))


@pytest.mark.parametrize(
    "values",
    [
        dict(width=0),
        dict(fx=0.0),
        dict(fy=-1.0),
        dict(distortion=(0.1, 0.2)),
        dict(cx=float("nan")),
        dict(model="what"),
        dict(model="fisheye"),
        dict(undistort_hfov_deg=180.0),
    ],
)
def test_impossible_cameras_are_refused(values):
    good = dict(width=64, height=48, fx=50.0, fy=50.0, cx=31.5, cy=23.5)
    with pytest.raises(CalibrationError):
        Camera(**{**good, **values})


def test_resizing_keeps_the_edges_of_the_image():
    """The image spans [-0.5, W - 0.5]: rays through its corners are the same at every size."""
    small = FR1.resized(320, 240)
    for cam in (FR1, small):
        assert (-0.5 - cam.cx) / cam.fx == pytest.approx((-0.5 - FR1.cx) / FR1.fx, abs=1e-12)
        assert (cam.height - 0.5 - cam.cy) / cam.fy == pytest.approx((479.5 - FR1.cy) / FR1.fy, abs=1e-12)
    assert (small.cx, small.cy) == pytest.approx((0.5 * (318.6 + 0.5) - 0.5, 0.5 * (255.3 + 0.5) - 0.5))
    assert small.resized(640, 480).matrix().numpy() == pytest.approx(FR1.matrix().numpy())


def test_resizing_follows_what_cv2_resize_does():
    """A ramp that holds its own column index, halved: each value is the old coordinate of the new pixel centre."""
    ramp = np.tile(np.arange(64, dtype=np.float32), (48, 1))
    small = cv2.resize(ramp, (32, 24), interpolation=cv2.INTER_AREA)
    cam = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
    ray = (small[5] - cam.cx) / cam.fx
    half = cam.resized(32, 24)
    np.testing.assert_allclose((np.arange(32) - half.cx) / half.fx, ray, atol=1e-6)


def test_anisotropic_resize():
    cam = Camera(100, 50, 40.0, 40.0, 49.5, 24.5).resized(50, 50)
    assert (cam.fx, cam.fy, cam.cx, cam.cy) == (20.0, 40.0, 24.5, 24.5)


OMNI = Camera(752, 480, 658.7, 657.3, 367.2, 248.4, (0.9, -0.2834, 0.0740, 0.02, 0.03), lens.OMNI)


@pytest.mark.parametrize(
    ("degrees", "code"), [(90, cv2.ROTATE_90_CLOCKWISE), (180, cv2.ROTATE_180), (270, cv2.ROTATE_90_COUNTERCLOCKWISE)]
)
@pytest.mark.parametrize("cam", [FR1, OMNI], ids=["radtan", "omni"])
def test_turning_follows_what_cv2_rotate_does(cam, degrees, code):
    """An image of its own coordinates, turned: where the turned camera sees a turned ray, lies where the ray was."""
    xy = 0.6 * torch.rand(200, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) - 0.3
    angle = torch.tensor(float(degrees), dtype=F64).deg2rad()
    R = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)  # y down: clockwise

    def pixels(camera: Camera, xy: torch.Tensor) -> torch.Tensor:
        focal, centre = torch.tensor([[camera.fx, camera.fy], [camera.cx, camera.cy]], dtype=F64)
        return lens.distort(xy, camera.distortion, camera.model) * focal + centre

    grid = camera.pixel_grid(cam.height, cam.width, like=xy).numpy()
    coordinates = torch.from_numpy(cv2.rotate(grid, code)).permute(2, 0, 1)[None]
    turned = cam.turned(degrees)
    assert coordinates.shape[-2:] == (turned.height, turned.width)
    seen = camera.sample(coordinates, pixels(turned, xy @ R.mT)[None, None])[0, :, 0].mT
    torch.testing.assert_close(seen, pixels(cam, xy), rtol=0, atol=1e-9)
    assert turned.turned(360 - degrees).matrix().numpy() == pytest.approx(cam.matrix().numpy(), abs=1e-9)


def test_turning_by_other_angles_is_an_error():
    assert FR1.turned(0) is FR1
    with pytest.raises(ValueError, match="got 45"):
        FR1.turned(45)


def test_scaled_intrinsics_agree_with_resized():
    K = camera.scaled_intrinsics(FR1.matrix()[None], 1 / 8)
    torch.testing.assert_close(K[0], FR1.resized(80, 60).matrix(), rtol=0, atol=1e-12)
    original = FR1.matrix()
    camera.scaled_intrinsics(original, 0.5)
    torch.testing.assert_close(original, FR1.matrix(), rtol=0, atol=0)  # the argument is not written


@pytest.mark.parametrize("cam", [FR1, FR2, BARREL])
def test_distortion_is_opencvs(cam):
    xy = 0.5 * torch.randn(200, 2, dtype=F64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    points = np.c_[xy.numpy(), np.ones(len(xy))]
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), np.array(cam.distortion))
    torch.testing.assert_close(lens.distort(xy, cam.distortion), torch.from_numpy(expected[:, 0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cam", [FR1, FR2, BARREL])
def test_undistort_undoes_distort_over_the_whole_image(cam):
    uv = camera.pixel_grid(cam.height, cam.width, like=torch.zeros(1, dtype=F64))[::40, ::40].reshape(-1, 2)
    seen = (uv - torch.tensor([cam.cx, cam.cy], dtype=F64)) / torch.tensor([cam.fx, cam.fy], dtype=F64)
    ideal = lens.undistort(seen, cam.distortion)
    error_px = (lens.distort(ideal, cam.distortion) - seen).abs().max() * cam.fx
    assert float(error_px) < 0.01


def test_no_distortion_is_the_identity():
    xy = torch.rand(5, 2)
    for none in ((), (0.0,) * 5):
        assert torch.equal(lens.distort(xy, none), xy)
        assert torch.equal(lens.undistort(xy, none), xy)
    assert not Camera(4, 4, 1, 1, 0, 0, (0.0,) * 5).is_distorted
    assert FR1.is_distorted
    assert not FR1.undistorted().is_distorted


@pytest.mark.parametrize("cam", [FR1, FR2, BARREL])
def test_undistortion_map_is_opencvs(cam):
    target = cam.undistorted().resized(320, 240)
    distortion = np.array(cam.distortion)
    u, v = cv2.initUndistortRectifyMap(
        cam.matrix().numpy(), distortion, None, target.matrix().numpy(), (320, 240), cv2.CV_32FC1
    )
    ours = camera.undistortion_map(cam, target)
    assert ours.shape == (240, 320, 2)
    np.testing.assert_allclose(ours.numpy(), np.stack([u, v], -1), rtol=0, atol=1e-3)  # float32 maps of cv2


def test_pixel_grid_is_column_row():
    grid = camera.pixel_grid(3, 5, like=torch.zeros(1, dtype=F64))
    assert grid.shape == (3, 5, 2)
    assert grid[2, 4].tolist() == [4.0, 2.0]


def test_sample_reads_pixel_centres_and_blends_between():
    image = torch.arange(12, dtype=F64).view(1, 1, 3, 4)
    uv = torch.tensor([[[[0, 0], [3, 2], [1.25, 1], [1, 1.5], [-5, 0]]]], dtype=F64)
    values = camera.sample(image, uv)
    assert values.flatten().tolist() == pytest.approx([0, 11, 5.25, 7, 0], abs=1e-12)
    assert camera.sample(image, uv, padding="border").flatten()[-1] == pytest.approx(0.0)
    grid = camera.pixel_grid(3, 4, like=image)[None]
    torch.testing.assert_close(camera.sample(image, grid), image, rtol=0, atol=1e-12)


def test_sample_of_a_one_pixel_image():
    image = torch.full((1, 1, 1, 1), 7.0)
    assert camera.sample(image, torch.zeros(1, 1, 1, 2), padding="border").item() == 7.0
