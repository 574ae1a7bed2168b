"""Every name of a lens model means that model; numbers that cannot be a camera's are refused or warned of."""

import logging
import re

import pytest

from slam.errors import CalibrationError
from slam.geometry.lens import DOUBLE_SPHERE, EUCM, FISHEYE, FOV, OMNI, RADTAN
from slam.io.calibration import camera_of

K = (500.0, 501.0, 322.0, 236.0)
KB4 = (-0.01, 0.02, -0.015, 0.003)
RADTAN5 = (-0.28, 0.07, 0.0002, 2e-5, 0.01)


@pytest.mark.parametrize(
    ("name", "intrinsics", "coefficients", "model", "distortion"),
    [
        ("", K, RADTAN5, RADTAN, RADTAN5),
        ("plumb_bob", K, RADTAN5, RADTAN, RADTAN5),
        ("Radial-Tangential", K, RADTAN5[:4], RADTAN, RADTAN5[:4]),
        ("rational_polynomial", K, (*RADTAN5, 0.1, 0.02, 0.003), RADTAN, (*RADTAN5, 0.1, 0.02, 0.003)),
        ("rational_polynomial", K, (*RADTAN5, 0, 0, 0), RADTAN, RADTAN5),
        ("OPENCV", K, (*RADTAN5, *[0] * 9), RADTAN, RADTAN5),
        ("PinHole", K, (), RADTAN, ()),
        ("none", K, (0, 0, 0, 0), RADTAN, ()),
        ("SIMPLE_RADIAL", K, (-0.1,), RADTAN, (-0.1, 0, 0, 0)),
        ("equidistant", K, KB4, FISHEYE, KB4),
        ("equidistant", K, (*KB4, 0.0), FISHEYE, KB4),
        ("pinhole-equi", K, KB4, FISHEYE, KB4),
        ("KannalaBrandt8", K, KB4, FISHEYE, KB4),
        ("opencv_fisheye", K, KB4, FISHEYE, KB4),
        ("RADIAL_FISHEYE", K, (0.01, 0.02), FISHEYE, (0.01, 0.02, 0, 0)),
        ("equidistant", K, (), FISHEYE, (0, 0, 0, 0)),
        ("pinhole-fov", K, (0.9,), FOV, (0.9,)),
        ("omni-radtan", (1.2, *K), RADTAN5[:4], OMNI, (1.2, *RADTAN5[:4])),
        ("mei", K, (1.2, *RADTAN5[:4]), OMNI, (1.2, *RADTAN5[:4])),
        ("ds-none", (-0.2, 0.6, *K), (), DOUBLE_SPHERE, (-0.2, 0.6)),
        ("eucm", (0.6, 1.1, *K), (), EUCM, (0.6, 1.1)),
        ("ucm", (0.6, *K), (), DOUBLE_SPHERE, (0.0, 0.6)),
    ],
)
def test_names_of_models(caplog, name, intrinsics, coefficients, model, distortion):
    camera = camera_of(name, 640, 480, intrinsics, coefficients, "c.yaml")
    assert (camera.model, camera.distortion) == (model, distortion)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == K
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "coefficients", "message"),
    [
        ("equirectangular", (), "lens model 'equirectangular' is not supported, only radial-tangential, fisheye"),
        ("omni-equi", (), "lens model 'omni-equi' is not supported"),
        ("Inverse Brown Conrady", RADTAN5, "is not supported"),
        ("equidistant", RADTAN5, "fisheye takes 4 coefficients, got 5"),
        ("equidistant", (0.1, 0.2), "fisheye takes 4 coefficients, got 2"),
        ("none", RADTAN5, "says that there is no distortion, and gives 5 coefficients"),
        ("radtan", (0.1,), "radtan takes 0 or 4 or 5 or 8 coefficients, got 1"),
        ("rational_polynomial", (*RADTAN5, *[0.1] * 7), "thin prism"),
        ("radtan", (float("nan"), 0, 0, 0), "nan is not a finite number"),
        ("radtan", (-2.5, 0, 0, 0), "folds the image back 122 px from its middle"),
        ("equidistant", (-2.5, 0, 0, 0), "folds the image back"),
        ("radtan", (1000, 0, 0, 0), r"to 6\.\d+ times its distance from the middle, no lens does beyond 0.2 to 2"),
        ("radtan", (0, 0, 0.5, 0), "the tangential distortion moves the border of the image by 72 %"),
        ("equidistant", (100, 0, 0, 0), "times its distance from the middle"),
        ("fov", (9.0,), "w of a fov lens is from -3.14159 to 3.14159, not 9"),
    ],
)
def test_lenses_that_are_refused(name, coefficients, message):
    with pytest.raises(CalibrationError, match=message) as caught:
        camera_of(name, 640, 480, K, coefficients, "c.yaml")
    assert str(caught.value).startswith("c.yaml")


@pytest.mark.parametrize(
    ("size", "intrinsics", "message"),
    [
        ((640, 480), (500, 500, 0, 0), "far from their middle"),  # a matrix read by columns
        ((640, 480), (320, 240, 500, 500), "far from their middle"),  # another order
        ((1280, 960), (500, 500, 319.5, 239.5), "far from their middle"),  # of half the size
        ((1920, 1080), (900, 900, 640, 360), "is the middle of images of about 1281x721"),
        ((480, 360), (500, 500, 320, 240), "is the middle of images of about 641x481"),
        ((640, 480), (0.8, 1.07, 0.5, 0.5), "are shares of the image size; write pixels"),
        ((640, 480), (500, -500, 320, 240), "positive size and focal length.*fy=-500"),
        ((640, 480), (500, 0, 320, 240), "positive size and focal length.*fy=0"),
        ((640, 480), (500, float("inf"), 320, 240), "inf is not a finite number"),
        ((640, 480), (500, 1200, 320, 240), "fx 500 and fy 1200 are not of one lens"),
        ((640, 480), (50, 50, 320, 240), "sees 162 degrees along the 640 px of the longer side"),
        ((640, 480), (50000, 50000, 320, 240), "sees 1 degrees along"),
        ((640, 480), (1e6, 1e6, 320, 240), "a focal length of 1e\\+06 px sees 0 degrees along the 640 px"),
        ((640, 480), (1e-3, 1e-3, 320, 240), "a focal length of 0.001 px sees 180 degrees along"),
        ((640, 480), (500, 500, 5000, 240), "far from their middle"),
        ((640, 480), (500, 500, 320, -1e9), "far from their middle"),
    ],
)
def test_numbers_that_are_no_cameras(size, intrinsics, message):
    with pytest.raises(CalibrationError, match=message):
        camera_of("", *size, intrinsics, (), "c.yaml")


@pytest.mark.parametrize(
    ("name", "intrinsics", "coefficients", "message"),
    [
        ("equidistant", (1e-3, 1e-3, 320, 240), (0, 0, 0, 0), "folds the image|is too short"),
        (
            "equidistant",
            (30, 30, 320, 240),
            (0.5, 0.5, 0.5, 0.5),
            "a focal length of 30 px is too short for",
        ),
        ("equidistant", (1e6, 1e6, 320, 240), (0, 0, 0, 0), "sees 0 degrees along"),
        ("fov", (1.0, 1.0, 320, 240), (1e-9,), r"even a fisheye has more than 54\.4 px"),
        ("mei", (1e6, 1e6, 320, 240), (1e3, 0, 0, 0, 0), "xi of a omni lens is from -0.9 to 100, not 1000"),
        ("ds", (300, 300, 320, 240), (0.1, 5.0), "alpha of a double_sphere lens is from 0 to 1, not 5"),
        ("eucm", (300, 300, 320, 240), (0.5, -3.0), "beta of a eucm lens is from 0.01 to 100, not -3"),
        ("eucm", (1.0, 1.0, 320, 240), (0.5, 1.0), "is too short"),
    ],
)
def test_absurd_lenses_of_other_models_are_refused(name, intrinsics, coefficients, message):
    """Finite, of the right number, and nothing that was ever made: no motion fits the rays of such a lens."""
    with pytest.raises(CalibrationError, match=message):
        camera_of(name, 640, 480, intrinsics, coefficients, "c.yaml")


@pytest.mark.parametrize(
    ("size", "intrinsics", "coefficients", "message"),
    [
        ((640, 360), (500, 500, 320, 240), (), r"\(320, 240\) of 640x360 images is 0 % and 17 % off their middle"),
        ((640, 480), (500, 667, 320, 240), (), "differ by 33 %: right only if the images were stretched"),
        ((640, 480), (150, 150, 320, 240), (), "sees 130 degrees along the 640 px of the longer side: is it"),
        ((640, 480), (4000, 4000, 320, 240), (), "sees 9 degrees along"),
        ((640, 480), (500, 500, 320, 240), (-0.3, 0, 0, 0), "folds the image back towards its corners"),
    ],
)
def test_what_is_doubtful_is_said_once(caplog, size, intrinsics, coefficients, message):
    for _ in range(2):
        camera_of("", *size, intrinsics, coefficients, f"{message}.yaml")
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and re.search(message, warnings[0])


@pytest.mark.parametrize(
    ("size", "intrinsics", "coefficients"),
    [
        ((640, 480), (517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
        ((752, 480), (458.654, 457.296, 367.215, 248.375), (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05)),
        ((1241, 376), (718.856, 718.856, 607.1928, 185.2157), ()),
        ((1242, 375), (721.5377, 721.5377, 609.5593, 172.854), ()),
        ((1226, 370), (707.0912, 707.0912, 601.8873, 183.1104), ()),
        ((640, 480), (585, 585, 320, 240), ()),
        (
            (1392, 512),
            (959.791, 956.9251, 696.0217, 224.1806),
            (-0.3691481, 0.1968681, 0.001353473, 0.0005677587, -0.0677),
        ),
        ((720, 960), (720.5, 720.5, 361.2, 478.8), ()),
        ((2964, 2000), (3997.684, 3997.684, 1176.728, 1011.728), ()),
        ((640, 480), (504.0, 504.0, 320.1, 240.5), (5.27, 3.55, 6.9e-5, -1.1e-5, 0.183, 5.61, 5.26, 0.951)),
        ((6000, 4000), (30000.0, 30000.0, 2990.0, 2010.0), ()),
    ],
    ids=[
        "tum",
        "euroc",
        "kitti 0",
        "kitti object",
        "kitti 4",
        "kinect",
        "kitti raw",
        "phone",
        "middlebury",
        "time of flight, rational",
        "telephoto",
    ],
)
def test_real_cameras_pass_without_a_word(caplog, size, intrinsics, coefficients):
    camera_of("", *size, intrinsics, coefficients, str(size))
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "size", "intrinsics", "coefficients"),
    [
        (
            "equidistant",
            (512, 512),
            (190.9785, 190.9733, 254.9317, 256.8974),
            (0.0035, 0.0007, -0.0021, 0.0002),
        ),
        ("equidistant", (848, 800), (284.98, 286.10, 425.24, 398.47), (-0.0073, 0.0436, -0.0413, 0.0076)),
        ("equidistant", (1280, 1280), (262.0, 262.0, 639.5, 639.5), (0.0, 0.0, 0.0, 0.0)),
        ("mei", (752, 480), (1158.0, 1153.0, 385.0, 238.0), (1.98, -0.016, 1.65, 0.0004, 0.0005)),
        ("mei", (1400, 1400), (1336.3, 1335.8, 716.9, 705.8), (2.2134, 0.0168, 1.6548, 0.0004, 0.0004)),
        ("ds", (512, 512), (158.28, 158.27, 254.96, 256.33), (-0.1727, 0.5933)),
        ("eucm", (512, 512), (191.0, 191.0, 254.96, 256.33), (0.6291, 1.0418)),
        ("", (1920, 1440), (876.0, 876.5, 959.2, 719.8), (-0.2487, 0.0837, 0.0006, -0.0004, -0.0142)),
        ("fov", (640, 480), (256.0, 255.0, 319.0, 241.0), (0.9219,)),
    ],
    ids=[
        "tum-vi",
        "t265",
        "280 degrees",
        "vins mei",
        "kitti-360",
        "basalt ds",
        "basalt eucm",
        "action camera",
        "tum mono",
    ],
)
def test_real_fisheyes_pass(name, size, intrinsics, coefficients):
    camera_of(name, *size, intrinsics, coefficients, f"{name} {size}")
