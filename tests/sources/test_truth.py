"""Truth as single files: every form, its axes, its stamps, and rows that say nothing."""

import json
import logging

import numpy as np
import pytest

from slam.errors import SourceError
from slam.sources.groundtruth import read_groundtruth

TURN = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])  # a quarter about z; xyzw 0 0 s s
S = f"{0.5**0.5:.9f}"
TIMES = np.array([0, 10**8, 2 * 10**8], np.int64)


def row(T: np.ndarray, count: int = 12) -> str:
    return " ".join(f"{x:g}" for x in T.ravel()[:count])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("poses/00.txt", f"{row(TURN)}\n"),
        ("traj.txt", f"{row(TURN, 16)}\n"),
        ("poses.csv", row(TURN, 16).replace(" ", ",") + "\n"),
        ("one.txt", "\n".join(row(r, 4) for r in TURN) + "\n"),
        ("pose/0.txt", "\n".join(row(r, 4) for r in TURN) + "\n"),
    ],
)
def test_matrices_belong_to_the_frames_of_the_run(tmp_path, caplog, name, text):
    caplog.set_level(logging.INFO)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    path = file.parent if name.startswith("pose/") else file
    truth = read_groundtruth(path, lambda: TIMES + 5)
    assert truth.time_ns.tolist() == [5]
    np.testing.assert_allclose(truth.T_wc[0], TURN)
    assert "has no time stamps of its own: pose n is that of frame n" in caplog.text
    with pytest.raises(SourceError, match="has no time stamps: evaluate the directory of a run"):
        read_groundtruth(path)


def test_kitti_takes_the_stamps_beside_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "poses").mkdir()
    (tmp_path / "sequences/07").mkdir(parents=True)
    (tmp_path / "poses/07.txt").write_text(f"{row(TURN)}\n{row(TURN)}\n")
    (tmp_path / "sequences/07/times.txt").write_text("0.000000e+00\n1.036224e-01\n")
    assert read_groundtruth(tmp_path / "poses/07.txt").time_ns.tolist() == [0, 103622400]
    assert "time stamps, and the place of the camera, of" in caplog.text and "sequences/07" in caplog.text


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        (f"1.5 1 2 3 0 0 {S} {S}\n", 1_500_000_000),
        (f"1.5,1,2,3,0,0,{S},{S}\n", 1_500_000_000),
        (f"timestamp,tx,ty,tz,qx,qy,qz,qw\n1.5, 1, 2, 3, 0, 0, {S}, {S}\n", 1_500_000_000),
        (f"1520530308199447626 1 2 3 0 0 {S} {S}\n", 1520530308199447626),
        (f"#timestamp [ns], p_RS_R_x [m], q_RS_w []\n1520530308199447626,1,2,3,{S},0,0,{S}\n", 1520530308199447626),
        (f"1520530308199447626,1,2,3,{S},0,0,{S},0,0,0,0,0,0,0,0,0\n", 1520530308199447626),
        (f"#time,x,y,z,qx,qy,qz,qw\n1520530308199447626,1,2,3,0,0,{S},{S}\n", 1520530308199447626),
    ],
)
def test_stamped_rows(tmp_path, text, time_ns):
    """Commas, nanoseconds, and w first where EuRoC has it."""
    (tmp_path / "gt.csv").write_text(text)
    truth = read_groundtruth(tmp_path / "gt.csv")
    assert truth.time_ns.tolist() == [time_ns]
    np.testing.assert_allclose(truth.T_wc[0], TURN, atol=1e-8)


def test_tartanair_is_north_east_down(tmp_path):
    """A camera at north 1, east 2, down 3 that looks north: right is east, down is down."""
    (tmp_path / "pose_left.txt").write_text("1 2 3 0 0 0 1\n")
    T_wc = read_groundtruth(tmp_path / "pose_left.txt", lambda: TIMES).T_wc[0]
    np.testing.assert_allclose(T_wc, [[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3], [0, 0, 0, 1]])


def test_opengl_axes(tmp_path):
    """A camera of OpenGL turned by nothing looks along -z with y up: forward is -z, down is -y."""
    expected = [[1, 0, 0, 1], [0, -1, 0, 2], [0, 0, -1, 3], [0, 0, 0, 1]]
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    (tmp_path / "transforms.json").write_text(
        json.dumps({"frames": [{"file_path": "a.png", "transform_matrix": pose.tolist()}]})
    )
    (tmp_path / "metadata.json").write_text(json.dumps({"K": [1] * 9, "poses": [[0, 0, 0, 1, 1, 2, 3]]}))
    for name in ("transforms.json", "metadata.json"):
        np.testing.assert_allclose(read_groundtruth(tmp_path / name, lambda: TIMES).T_wc[0], expected)


def test_rows_that_say_nothing_are_skipped_with_one_warning(tmp_path, caplog):
    zero, nothing = " ".join(["0"] * 12), " ".join(["-inf"] * 12)
    (tmp_path / "a.txt").write_text(f"{row(TURN)}\n{zero}\n{row(TURN)}\n{nothing}\n{row(TURN)}\n")
    truth = read_groundtruth(tmp_path / "a.txt", lambda: np.arange(5, dtype=np.int64))
    assert truth.time_ns.tolist() == [0, 2, 4]  # the others keep their numbers
    (tmp_path / "b.txt").write_text("1 0 0 0 0 0 0 1\n2 nan 0 0 0 0 0 1\n3 0 0 0 0 0 0 0\n4 0 0 0 0 0 0 1\n")
    assert read_groundtruth(tmp_path / "b.txt").time_ns.tolist() == [10**9, 4 * 10**9]
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert [w.split(": ", 1)[1] for w in warnings] == [
        f"2 of {n} poses are not finite or zero; they are skipped" for n in (5, 4)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("".join(f"{n}.5 1 2 3\n" for n in range(8)), "positions without orientation"),
        ("1 2 3\n", "line 1: 3 numbers are no known form of poses; expected 8 numbers a line"),
        (f"{row(2 * TURN)}\n", "pose 0 is no rigid motion"),
        (f"{row(TURN * [[1], [1], [-1], [1]])}\n", "pose 0 is no rigid motion"),
        (f"{row(TURN)}\n1 2\n", "line 2: expected 12 numbers, found 2"),
        (f"{row(TURN)}\n{row(TURN)[:-1]}x\n", "line 2: could not convert"),
        (" ".join(["nan"] * 12) + "\n", "holds no usable pose"),
        ("# nothing\n", "holds no poses"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_groundtruth(tmp_path / "a.txt", lambda: TIMES)
