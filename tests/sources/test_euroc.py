"""EuRoC folders: stamps in nanoseconds, ground truth moved from the body to the camera."""

import numpy as np
import pytest

from slam.errors import SourceError
from slam.geometry.camera import Camera
from slam.sources import SourceSpec, open_source
from slam.sources.groundtruth import known_truth, read_groundtruth

TIMES = [1403636579763555584, 1403636579813555456]
SENSOR = """sensor_type: camera
T_BS:
  cols: 4
  rows: 4
  data: [0, -1, 0, 0.1,
         1, 0, 0, 0.2,
         0, 0, 1, 0.3,
         0, 0, 0, 1]
resolution: [32, 24]
intrinsics: [30, 31, 15.5, 11.5]
distortion_model: radial-tangential
distortion_coefficients: [-0.28, 0.07, 0.0002, 1.8e-05]
"""


@pytest.fixture
def folder(tmp_path, scenes):
    camera = tmp_path / "V1_01_easy/mav0/cam0"
    for n, time_ns in enumerate(TIMES):
        scenes.save(camera / f"data/{time_ns}.png", scenes.image(n))
    rows = "".join(f"{time_ns},{time_ns}.png\r\n" for time_ns in TIMES)
    (camera / "data.csv").write_text("#timestamp [ns],filename\r\n" + rows)
    (camera / "sensor.yaml").write_text(SENSOR)
    truth = camera.parent / "state_groundtruth_estimate0"
    truth.mkdir()
    # the body turned by 90 degrees about x: quaternion w x y z = (c, c, 0, 0)
    c = 0.5**0.5
    (truth / "data.csv").write_text(f"#timestamp,p,q,v,bw,ba\n{TIMES[0]},1,2,3,{c},{c},0,0" + ",0" * 9 + "\n")
    return tmp_path / "V1_01_easy"


def test_frames(folder, scenes):
    source = open_source(SourceSpec(str(folder)))
    frames = list(source)
    assert [frame.time_ns for frame in frames] == TIMES
    assert [scenes.number_of(frame.image) for frame in frames] == [0, 1]
    assert source.camera == Camera(32, 24, 30, 31, 15.5, 11.5, (-0.28, 0.07, 0.0002, 1.8e-05))


def test_ground_truth_is_of_the_camera(folder):
    """T_wc = T_wb T_bc by hand: R_wb maps y to z and z to -y, so p = (1, 2, 3) + (0.1, -0.3, 0.2)."""
    truth = read_groundtruth(folder)
    assert truth.time_ns.tolist() == TIMES[:1]
    np.testing.assert_allclose(
        truth.T_wc[0], [[0, -1, 0, 1.1], [0, 0, -1, 1.7], [1, 0, 0, 3.2], [0, 0, 0, 1]], atol=1e-12
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#t,f\n5,a.png\nx,b.png\n", r"data.csv, line 3: 'x' is no time"),
        ("#t,f\n5\n", r"data.csv, line 2: expected 'timestamp filename', got '5'"),
        ("#t,f\n", r"data.csv lists no images"),
    ],
)
def test_bad_lists(folder, text: str, message: str):
    (folder / "mav0/cam0/data.csv").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(SourceSpec(str(folder)))


def test_what_a_list_lacks_is_said_once_though_it_is_read_for_frames_and_for_truth(folder, caplog):
    rows = [f"{time_ns},{time_ns}.png\n" for time_ns in reversed(TIMES)]
    (folder / "mav0/cam0/data.csv").write_text("#timestamp [ns],filename\n" + "".join(rows))
    assert [frame.time_ns for frame in open_source(SourceSpec(str(folder)))] == TIMES
    assert known_truth(folder) is not None
    assert caplog.text.count("goes back in time 1 times (first: line 3): sorted") == 1


def test_bad_ground_truth(folder):
    truth = folder / "mav0/state_groundtruth_estimate0/data.csv"
    truth.write_text("5,1,2,3,0,0,0,0\n")
    with pytest.raises(SourceError, match="holds no usable pose: all 1 are not finite or zero"):
        read_groundtruth(folder)
    truth.write_text("5,1,2,x,1,0,0,0\n")
    with pytest.raises(SourceError, match=r"data.csv, line 1: could not convert string to float: 'x'"):
        read_groundtruth(folder)
    truth.unlink()
    with pytest.raises(SourceError, match="has no ground truth with orientation"):
        read_groundtruth(folder)
    (folder / "mav0/cam0/sensor.yaml").write_text("a: 1\n")
    with pytest.raises(SourceError, match="has no T_BS"):
        read_groundtruth(folder)


@pytest.mark.parametrize(
    ("cell", "message"), [(".nan", "holds no usable pose"), ("1e300", "holds no usable pose"), ("5", "no rigid motion")]
)
def test_a_place_on_the_body_that_cannot_be_is_named(folder, cell, message):
    file = folder / "mav0/cam0/sensor.yaml"
    begin, data, rest = file.read_text().partition("data: [")
    file.write_text(f"{begin}{data}{cell},{rest.partition(',')[2]}")
    with pytest.raises(SourceError, match=f"sensor.yaml.*{message}"):
        read_groundtruth(folder)
