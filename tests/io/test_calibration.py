"""All kinds of calibration files give the same camera; wrong ones say why."""

import cv2
import numpy as np
import pytest

from slam.errors import CalibrationError
from slam.geometry.camera import Camera
from slam.io.calibration import check_size, read_calibration, write_calibration

CAMERA = Camera(640, 480, 517.3, 516.5, 318.6, 255.3, (0.2624, -0.9531, -0.0054, 0.0026, 1.1633))

OURS = "width: 640\nheight: 480\ncalibration: [517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 26e-4, 1.1633]\n"
LINE = "# fr1\n517.3 516.5 318.6 255.3 0.2624 -0.9531 -0.0054 0.0026 1.1633\n"
ROS = """image_width: 640
image_height: 480
camera_name: test
camera_matrix:
  rows: 3
  cols: 3
  data: [517.3, 0, 318.6, 0, 516.5, 255.3, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.2624, -0.9531, -0.0054, 0.0026, 1.1633]
"""
ORB = """%YAML:1.0
Camera.type: "PinHole"
Camera.fx: 517.3
Camera.fy: 516.5
Camera.cx: 318.6
Camera.cy: 255.3
Camera.k1: 0.2624
Camera.k2: -0.9531
Camera.p1: -0.0054
Camera.p2: 0.0026
Camera.k3: 1.1633
Camera.width: 640
Camera.height: 480
"""
EUROC = """#Default camera
sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
rate_hz: 20
resolution: [752, 480]
camera_model: pinhole
intrinsics: [458.654, 457.296, 367.215, 248.375] #fu, fv, cu, cv
distortion_model: radial-tangential
distortion_coefficients: [-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05]
"""


@pytest.mark.parametrize("text", [OURS, LINE, ROS, ORB], ids=["ours", "line", "ros", "orb"])
def test_every_kind_gives_the_camera(tmp_path, text: str):
    (tmp_path / "c.yaml").write_text(text)
    assert read_calibration(tmp_path / "c.yaml", (640, 480)) == CAMERA


def test_opencv_file_storage(tmp_path):
    """Written by OpenCV itself, with its own header and matrix tag, padded to 14 coefficients."""
    K = np.array([[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]])
    storage = cv2.FileStorage(str(tmp_path / "c.yml"), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 640)
    storage.write("image_height", 480)
    storage.write("camera_matrix", K)
    storage.write("distortion_coefficients", np.array([[*CAMERA.distortion, *[0.0] * 9]]))
    storage.release()
    camera = read_calibration(tmp_path / "c.yml")
    assert camera == CAMERA


def test_opencv_header_by_hand(tmp_path):
    (tmp_path / "c.yml").write_text(
        "%YAML:1.0\n---\nimage_width: 64\nimage_height: 48\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n"
        "   dt: d\n   data: [ 50., 0., 3.2e+01, 0., 51., 24., 0., 0., 1. ]\n"
    )
    assert read_calibration(tmp_path / "c.yml") == Camera(64, 48, 50, 51, 32, 24)


def test_euroc_sensor(tmp_path):
    (tmp_path / "sensor.yaml").write_text(EUROC)
    camera = read_calibration(tmp_path / "sensor.yaml")
    assert camera == Camera(
        752, 480, 458.654, 457.296, 367.215, 248.375, (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)
    )


@pytest.mark.parametrize("distortion", [(), CAMERA.distortion, (0.1, 0.2, 0.3, 1e-17)])
def test_round_trip_is_exact(tmp_path, distortion: tuple[float, ...]):
    camera = Camera(641, 479, 517.3, 3e3 / 7, 320 + 0.1 + 0.2, 255.3, distortion)
    write_calibration(tmp_path / "c.yaml", camera)
    assert read_calibration(tmp_path / "c.yaml") == camera


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width: 640\nheight: 480\ncalibration: [500, 500, 320]\n", r"expected fx fy cx cy \[k1.* got 3"),
        ("500 500 320 240 0.1\n", "radtan takes 0 or 4 or 5 or 8 coefficients, got 1"),
        ("500 500 320 240 nan 0 0 0\n", "'nan' is not a finite number"),
        ("width: 640\nheight: 480\ncalibration: [500, .inf, 320, 240]\n", "inf is not a finite number"),
        ("0 500 320 240\n", "positive size and focal length.*fx=0"),
        ("width: 640\nheight: 480\ncalibration: [500, -500, 320, 240]\n", "positive size and focal length.*fy=-500"),
        (
            "width: 640.5\nheight: 480\ncalibration: [500, 500, 320, 240]\n",
            "image size must be whole pixels, got 640.5",
        ),
        ("width: 640\ncalibration: [500, 500, 320, 240]\n", "None is not a finite number"),
        ("hello: world\n", "no known kind of calibration; expected width, height"),
        ("just text\n", "is no calibration; expected"),
        ("", "is no calibration; expected"),
        ("a: [1, 2\nb: 3\n", r"no readable calibration \(line 2"),
        ("Camera.fx: 500\nCamera.fy: 500\n", "lacks camera.cx, camera.cy"),
        (ROS.replace("plumb_bob", "sideways"), "lens model 'sideways' is not supported"),
        ("500 500 320 240 0 0 0 0 0 0.1\n", "radtan takes 0 or 4 or 5 or 8 coefficients, got 6"),
        ("width: 640\nheight: 480\ncalibration: 5\n", "expected a list of numbers, got 5"),
        ("camera_matrix: [1, 2, 3]\n", "needs 3x3 numbers, found 3"),
    ],
)
def test_bad_calibrations_are_refused(tmp_path, text: str, message: str):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=message) as caught:
        read_calibration(tmp_path / "c.yaml", (640, 480))
    assert str(tmp_path / "c.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_missing_size(tmp_path):
    with pytest.raises(CalibrationError, match=r"no calibration at .*c.yaml"):
        read_calibration(tmp_path / "c.yaml")
    (tmp_path / "c.txt").write_text("500 500 320 240\n")
    with pytest.raises(CalibrationError, match="gives no image size"):
        read_calibration(tmp_path / "c.txt")


def test_other_resolution_is_an_error_with_the_remedy():
    with pytest.raises(CalibrationError) as caught:
        check_size(CAMERA, 320, 240, "c.yaml")
    message = str(caught.value)
    assert "c.yaml is for 640x480 images but these are 320x240" in message
    assert "258.65, 258.25, 159.05, 127.4" in message  # cx: (318.6 + 0.5) / 2 - 0.5
    with pytest.raises(CalibrationError, match="another shape: calibrate again"):
        check_size(CAMERA, 640, 360, "c.yaml")


def test_size_of_the_images_is_checked_on_reading(tmp_path):
    (tmp_path / "c.yaml").write_text(OURS)
    with pytest.raises(CalibrationError, match="is for 640x480 images but these are 1280x960"):
        read_calibration(tmp_path / "c.yaml", (1280, 960))
