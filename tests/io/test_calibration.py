"""All kinds of calibration files give the same camera; wrong ones say why."""

import json

import cv2
import numpy as np
import pytest

from slam.errors import CalibrationError
from slam.geometry import lens
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


JSON = json.dumps(
    {"width": 640, "height": 480, "calibration": [517.3, 516.5, 318.6, 255.3, *CAMERA.distortion]}, indent="\t"
)


@pytest.mark.parametrize("text", [OURS, LINE, ROS, ORB, JSON], ids=["ours", "line", "ros", "orb", "json with tabs"])
def test_every_kind_gives_the_camera(tmp_path, text: str):
    (tmp_path / "c.yaml").write_text(text)
    assert read_calibration(tmp_path / "c.yaml", (640, 480)) == CAMERA


KB4 = (-0.0102, 0.0213, -0.0152, 0.0031)
FISHEYE = Camera(640, 480, 300.5, 301.5, 321.5, 238.5, KB4, lens.FISHEYE)
KALIBR = """cam0:
  T_cam_imu: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
  camera_model: pinhole
  distortion_coeffs: [-0.0102, 0.0213, -0.0152, 0.0031]
  distortion_model: equidistant
  intrinsics: [300.5, 301.5, 321.5, 238.5]
  resolution: [640, 480]
  rostopic: /cam0/image_raw
"""
KALIBR_TWO = KALIBR.replace("cam0:", "cam1:").replace("300.5", "333.5") + KALIBR
FISHEYE_ROS = """image_width: 640
image_height: 480
camera_matrix: {rows: 3, cols: 3, data: [300.5, 0, 321.5, 0, 301.5, 238.5, 0, 0, 1]}
distortion_model: equidistant
distortion_coefficients: {rows: 1, cols: 4, data: [-0.0102, 0.0213, -0.0152, 0.0031]}
"""
FISHEYE_OPENCV = FISHEYE_ROS.replace("distortion_model: equidistant", "fisheye_model: 1")
FISHEYE_ORB3 = """%YAML:1.0
File.version: "1.0"
Camera.type: "KannalaBrandt8"
Camera1.fx: 300.5
Camera1.fy: 301.5
Camera1.cx: 321.5
Camera1.cy: 238.5
Camera1.k1: -0.0102
Camera1.k2: 0.0213
Camera1.k3: -0.0152
Camera1.k4: 0.0031
Camera.width: 640
Camera.height: 480
Camera.fps: 20
ORBextractor.nFeatures: 1000
"""
FISHEYE_STELLA = """Camera:
  name: "a"
  setup: "monocular"
  model: "fisheye"
  fx: 300.5
  fy: 301.5
  cx: 321.5
  cy: 238.5
  k1: -0.0102
  k2: 0.0213
  k3: -0.0152
  k4: 0.0031
  fps: 30.0
  cols: 640
  rows: 480
  color_order: "RGB"
"""
FISHEYE_VINS = """%YAML:1.0
---
model_type: KANNALA_BRANDT
camera_name: camera
image_width: 640
image_height: 480
projection_parameters:
   k2: -0.0102
   k3: 0.0213
   k4: -0.0152
   k5: 0.0031
   mu: 300.5
   mv: 301.5
   u0: 321.5
   v0: 238.5
"""
FISHEYE_NERF = """{"camera_model": "OPENCV_FISHEYE", "fl_x": 300.5, "fl_y": 301.5, "cx": 321.5, "cy": 238.5, "w": 640,
"h": 480, "k1": -0.0102, "k2": 0.0213, "k3": -0.0152, "k4": 0.0031, "frames": []}"""
FISHEYE_OKVIS = """cameras:
     - {T_SC: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
        image_dimension: [640, 480],
        distortion_coefficients: [-0.0102, 0.0213, -0.0152, 0.0031],
        distortion_type: equidistant,
        focal_length: [300.5, 301.5],
        principal_point: [321.5, 238.5]}
imu_params: {a_max: 176.0}
"""
FISHEYE_BASALT = """{"value0": {"T_imu_cam": [], "intrinsics": [{"camera_type": "kb4", "intrinsics": {"fx": 300.5,
"fy": 301.5, "cx": 321.5, "cy": 238.5, "k1": -0.0102, "k2": 0.0213, "k3": -0.0152,
"k4": 0.0031}}], "resolution": [[640, 480]]}}"""
FISHEYES = {
    "ours": "width: 640\nheight: 480\ndistortion_model: fisheye\n"
    "calibration: [300.5, 301.5, 321.5, 238.5, -0.0102, 0.0213, -0.0152, 0.0031]\n",
    "kalibr": KALIBR,
    "ros": FISHEYE_ROS,
    "opencv": FISHEYE_OPENCV,
    "orb-slam3": FISHEYE_ORB3,
    "stella": FISHEYE_STELLA,
    "vins": FISHEYE_VINS,
    "nerfstudio": FISHEYE_NERF,
    "instant-ngp": FISHEYE_NERF.replace('"camera_model": "OPENCV_FISHEYE"', '"is_fisheye": true'),
    "okvis": FISHEYE_OKVIS,
    "basalt": FISHEYE_BASALT,
}


@pytest.mark.parametrize("kind", FISHEYES)
def test_fisheyes_are_read_as_fisheyes(tmp_path, caplog, kind: str):
    (tmp_path / "c.yaml").write_text(FISHEYES[kind])
    assert read_calibration(tmp_path / "c.yaml", (640, 480)) == FISHEYE
    assert not caplog.records


def test_the_first_of_several_cameras_is_taken_and_said(tmp_path, caplog):
    (tmp_path / "c.yaml").write_text(KALIBR_TWO)
    assert read_calibration(tmp_path / "c.yaml") == FISHEYE
    assert [r.getMessage() for r in caplog.records] == [f"{tmp_path / 'c.yaml'} holds 2 cameras: cam0 is used"]


@pytest.mark.parametrize(
    ("text", "model", "distortion"),
    [
        (KALIBR.replace("equidistant", "radtan"), lens.RADTAN, KB4),
        (KALIBR.replace("equidistant", "none").replace(str(list(KB4)), "[]"), lens.RADTAN, ()),
        (
            KALIBR.replace("pinhole", "omni").replace("equidistant", "radtan").replace("[300", "[1.1, 300"),
            lens.OMNI,
            (1.1, *KB4),
        ),
        (
            KALIBR.replace("model: pinhole", "model: ds")
            .replace("equidistant", "none")
            .replace(str(list(KB4)), "[]")
            .replace("[300", "[-0.2, 0.6, 300"),
            lens.DOUBLE_SPHERE,
            (-0.2, 0.6),
        ),
        (FISHEYE_ORB3.replace("KannalaBrandt8", "PinHole").replace("k3", "p1").replace("k4", "p2"), lens.RADTAN, KB4),
        (
            FISHEYE_VINS.replace("KANNALA_BRANDT", "MEI").replace("mu:", "gamma1:").replace("mv:", "gamma2:")
            .replace("k2:", "xi:").replace("k3:", "k1:").replace("k4:", "k2:").replace("k5:", "p1:"),
            lens.OMNI,
            (*KB4, 0),
        ),
    ],
    ids=["kalibr radtan", "kalibr none", "kalibr omni", "kalibr ds", "orb-slam3 pinhole", "vins mei"],
)  # fmt: skip
def test_other_lenses(tmp_path, text: str, model: str, distortion: tuple[float, ...]):
    (tmp_path / "c.yaml").write_text(text)
    camera = read_calibration(tmp_path / "c.yaml", (640, 480))
    assert (camera.model, camera.fx, camera.cy) == (model, 300.5, 238.5)
    assert camera.distortion[: len(distortion)] == distortion and not any(camera.distortion[len(distortion) :])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EUROC.replace("camera_model: pinhole", "camera_model: omni"), "omni takes 5 coefficients, got 4"),
        (EUROC.replace("radial-tangential", "equidistant"), None),
        (EUROC.replace("pinhole", "equirectangular"), "'equirectangular' is not supported"),
        (FISHEYE_ORB3.replace("KannalaBrandt8", "Rectified"), "says that there is no distortion, and gives"),
        (FISHEYE_ORB3.replace('Camera.type: "KannalaBrandt8"\n', ""), "has k4 and no p1, as a fisheye has"),
        (FISHEYE_ORB3.replace("k3", "p1"), "a fisheye lens has no p1"),
        (FISHEYE_ROS.replace("distortion_coefficients", "lens_distortion"), "has lens_distortion: give the distortion"),
        (OURS + "resolution: [1280, 960]\n", "gives several image sizes: 1280x960, 640x480"),
        (OURS + "cols: 320\nrows: 240\n", "gives several image sizes: 640x480, 320x240"),
        (OURS + "distortion_model: fisheye\n", "fisheye takes 4 coefficients, got 5"),
        (ROS.replace("517.3, 0, 318.6", "517.3, 12, 318.6"), "is not fx 0 cx, 0 fy cy, 0 0 1, row by row"),
        (ROS.replace("0, 0, 1]", "0, 0, 2]"), "is not fx 0 cx, 0 fy cy, 0 0 1, row by row"),
        (ORB + "Camera1.fx: 400\n", "gives fx twice, 517.3 and 400"),
    ],
)
def test_contradictions_are_refused(tmp_path, text: str, message: str | None):
    (tmp_path / "c.yaml").write_text(text)
    if message is None:
        assert read_calibration(tmp_path / "c.yaml").model == lens.FISHEYE
        return
    with pytest.raises(CalibrationError, match=message) as caught:
        read_calibration(tmp_path / "c.yaml")
    assert str(tmp_path / "c.yaml") in str(caught.value) and "\n" not in str(caught.value)


def test_a_matrix_by_columns_is_turned(tmp_path, caplog):
    (tmp_path / "c.yaml").write_text(ROS.replace("517.3, 0, 318.6, 0, 516.5, 255.3", "517.3, 0, 0, 0, 516.5, 0")
                                     .replace(" 0, 0, 1]", " 318.6, 255.3, 1]"))  # fmt: skip
    assert read_calibration(tmp_path / "c.yaml") == CAMERA
    assert "camera_matrix is written by columns, and read so" in caplog.text


@pytest.mark.parametrize(
    "size",
    [
        "cols: 640\nrows: 480",
        "w: 640\nh: 480",
        "resolution: [640, 480]",
        "image_size: {width: 640, height: 480}",
        "Camera:\n  width: 640\n  height: 480",
    ],
)
def test_every_way_to_give_the_size(tmp_path, size: str):
    (tmp_path / "c.yaml").write_text(f"calibration: [500, 500, 320, 240]\n{size}\n")
    assert read_calibration(tmp_path / "c.yaml") == Camera(640, 480, 500, 500, 320, 240)
    with pytest.raises(CalibrationError, match="is for 640x480 images but these are 320x240"):
        read_calibration(tmp_path / "c.yaml", (320, 240))


def test_turned_images(tmp_path, caplog):
    """By the account of a video the calibration is turned; of other images both possibilities are named."""
    (tmp_path / "c.yaml").write_text(OURS)
    assert read_calibration(tmp_path / "c.yaml", (480, 640), turned_deg=270) == CAMERA.turned(270)
    assert f"{tmp_path / 'c.yaml'} is for 640x480 images; it is turned clockwise by 270 degrees" in caplog.text
    with pytest.raises(CalibrationError) as caught:
        read_calibration(tmp_path / "c.yaml", (480, 640))
    message = str(caught.value)  # cx: 479 - 255.3, or 255.3
    assert "[516.5, 517.3, 223.7, 318.6, 0.2624, -0.9531, 0.0026, 0.0054, 1.1633] if the images were turned" in message
    assert "[516.5, 517.3, 255.3, 320.4, 0.2624, -0.9531, -0.0026, -0.0054, 1.1633] if counter-clockwise" in message
    (tmp_path / "line.txt").write_text("500 500 320 240\n")
    with pytest.raises(
        CalibrationError, match="is the middle of 640x480 images: give the calibration of the images as"
    ):
        read_calibration(tmp_path / "line.txt", (480, 640))


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


@pytest.mark.parametrize(
    ("distortion", "model"),
    [
        ((), lens.RADTAN),
        (CAMERA.distortion, lens.RADTAN),
        ((0.1, 0.2, 0.03, 1e-17), lens.RADTAN),
        ((0.1, 0.02, 0.0, 1e-17, 0.01, 0.1, 0.01, 1e-3), lens.RADTAN),
        ((0.1, 0.02, 0.003, 1e-17), lens.FISHEYE),
        ((0.9,), lens.FOV),
        ((1.2, 0.1, 0.02, 0.0, 1e-17), lens.OMNI),
        ((-0.2, 0.6), lens.DOUBLE_SPHERE),
        ((0.6, 1.1), lens.EUCM),
    ],
)
@pytest.mark.parametrize("hfov", [None, 100 / 3])
def test_round_trip_is_exact(tmp_path, distortion: tuple[float, ...], model: str, hfov: float | None):
    camera = Camera(641, 479, 517.3, 3e3 / 6, 320 + 0.1 + 0.2, 255.3, distortion, model, hfov)
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
        ("Camera.fx: 500\nCamera.fy: 500\n", "lacks cx, cy"),
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


def test_a_guess_stays_a_guess(tmp_path):
    for camera in (Camera(64, 48, 50.0, 50.0, 31.5, 23.5, is_guess=True), Camera(64, 48, 50.0, 50.0, 31.5, 23.5)):
        write_calibration(tmp_path / "calibration.yaml", camera, "a note")
        assert read_calibration(tmp_path / "calibration.yaml", (64, 48)) == camera
