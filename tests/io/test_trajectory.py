"""Trajectories survive the text exactly where it matters, and bad text is refused with its line."""

import errno
import subprocess
import sys

import numpy as np
import pytest
import torch

from slam.errors import OutputError, SourceError
from slam.frames import Trajectory
from slam.geometry import se3
from slam.io.files import replacing
from slam.io.quaternion import matrix_from_quat_xyzw, quat_xyzw_from_matrix
from slam.io.trajectory import OnlineTrajectoryWriter, format_time_ns, parse_time_ns, read_tum, write_tum

START_NS = 1305031102175304123  # a float64 second of that time is off by up to 119 ns


def poses(n: int, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    xi = torch.randn(n, 6, generator=generator, dtype=torch.float64) * torch.tensor([3, 3, 3, 1.5, 1.5, 1.5])
    return se3.exp(xi).numpy()


def trajectory(n: int = 50) -> Trajectory:
    return Trajectory(START_NS + np.arange(n, dtype=np.int64) * 33333333, poses(n))


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1305031102.175304", 1305031102175304000),
        ("1305031102.1753041239", 1305031102175304124),
        ("0", 0),
        ("-0.000000001", -1),
        ("1.305031102175304123e9", 1305031102175304123),
        (".5", 500000000),
    ],
)
def test_stamps_are_exact(text: str, time_ns: int):
    assert parse_time_ns(text) == time_ns


@pytest.mark.parametrize("text", ["nan", "inf", "", "12,5", "1_000", "0x10", "1305031102175304000"])
def test_what_is_no_stamp_is_refused(text: str):
    with pytest.raises(ValueError, match="is no time in seconds"):
        parse_time_ns(text)


def test_formatted_stamps_read_back():
    for time_ns in (0, 1, -1, -1500000000, START_NS, 2**63 - 1):
        assert parse_time_ns(format_time_ns(time_ns)) == time_ns
    assert format_time_ns(-1500000000) == "-1.500000000"


def test_quaternions_match_the_exponential_map():
    """A rotation by a about an axis has w = cos(a / 2), xyz = axis sin(a / 2); also at 0 and at pi."""
    axis = np.array([2.0, -3.0, 6.0]) / 7
    for angle in (0.0, 1e-9, 1.0, np.pi - 1e-9, np.pi):
        R = se3.so3_exp(torch.tensor(axis * angle)).numpy()[None]
        expected = np.array([*(axis * np.sin(angle / 2)), np.cos(angle / 2)])
        quat_xyzw = quat_xyzw_from_matrix(R)[0]
        if angle == np.pi and quat_xyzw @ expected < 0:  # both signs are right
            quat_xyzw = -quat_xyzw
        np.testing.assert_allclose(quat_xyzw, expected, atol=1e-9)
        np.testing.assert_allclose(matrix_from_quat_xyzw(quat_xyzw[None]), R, atol=1e-9)


def test_tum_round_trip(tmp_path):
    written = trajectory()
    write_tum(tmp_path / "t.txt", written, "scale: unknown\nv2d-slam")
    read = read_tum(tmp_path / "t.txt")
    np.testing.assert_array_equal(read.time_ns, written.time_ns)
    np.testing.assert_allclose(read.T_wc, written.T_wc, atol=2e-8)  # nine significant digits of up to 10 m


def test_tum_text_is_what_others_read(tmp_path):
    """Turn by 90 degrees about y, at (1, -2, 0.5): the text is fixed to the character."""
    T_wc = np.array([[[0, 0, 1, 1], [0, 1, 0, -2], [-1, 0, 0, 0.5], [0, 0, 0, 1.0]]])
    write_tum(tmp_path / "t.txt", Trajectory(np.array([START_NS]), T_wc), "scale: metric")
    assert (tmp_path / "t.txt").read_bytes() == (
        b"# scale: metric\n# timestamp tx ty tz qx qy qz qw\n"
        b"1305031102.175304123 1 -2 0.5 0 0.707106781 0 0.707106781\n"
    )


def test_evo_reads_our_file(tmp_path):
    file_interface = pytest.importorskip("evo.tools.file_interface", reason="evo is not installed")
    written = trajectory()
    write_tum(tmp_path / "t.txt", written, "scale: unknown")
    read = file_interface.read_tum_trajectory_file(str(tmp_path / "t.txt"))
    assert read.check()[0]
    np.testing.assert_allclose(np.array(read.poses_se3), written.T_wc, atol=2e-8)


LINE = "1.0 0 0 0 0 0 0 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"# head\n{LINE}\n2.0 0 0 0 0 0 1\n", "line 3: expected 8 numbers .* found 7"),
        (f"{LINE}\n2.0 0 zero 0 0 0 0 1\n", "line 2: could not convert string to float: 'zero'"),
        (f"{LINE}\n1.0 0 0 0 0 0 0\n", "line 2: expected 8 numbers"),
        ("1.0 0 0 0 0 0 0 0.001\n", "line 1: the quaternion 0 0 0 0.001 is no rotation"),
        ("1.0 0 nan 0 0 0 0 1\n", "line 1: the pose is not finite"),
        ("1.0,0,0,0,0,0,0\n", "line 1: expected 8 numbers .* found 7"),
        ("1.0 0 0 0 0 0 0 1\nx 0 0 0 0 0 0 1\n", "line 2: 'x' is no time"),
        ("1.0 1e99 0 0 0 0 0 1\n", "line 1: the pose is not finite"),
        ("# only a header\n", "holds no poses"),
        ("", "holds no poses"),
    ],
)
def test_bad_trajectories_are_refused(tmp_path, text: str, message: str):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        read_tum(tmp_path / "t.txt")


def test_of_poses_with_the_same_stamp_the_first_is_kept(tmp_path):
    (tmp_path / "t.txt").write_text(f"{LINE}\n1.000 5 0 0 0 0 0 1\n2 2 0 0 0 0 0 1\n2 6 0 0 0 0 0 1\n3 3 0 0 0 0 0 1\n")
    read = read_tum(tmp_path / "t.txt")
    assert read.time_ns.tolist() == [10**9, 2 * 10**9, 3 * 10**9]
    assert read.T_wc[:, 0, 3].tolist() == [0, 2, 3]


def test_missing_and_binary_trajectories(tmp_path):
    with pytest.raises(SourceError, match=r"no trajectory at .*nowhere.txt"):
        read_tum(tmp_path / "nowhere.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfd\x00\x81")
    with pytest.raises(SourceError, match="it is not text"):
        read_tum(tmp_path / "b.txt")


def test_unwritable_place_is_an_output_error_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*t.txt"):
        write_tum(tmp_path / "file" / "t.txt", trajectory(3))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_rewritten_file_is_the_old_or_the_new(tmp_path):
    """A write that fails half-way keeps the first file and leaves no temporary one."""
    write_tum(tmp_path / "t.txt", trajectory(3))
    before = (tmp_path / "t.txt").read_bytes()
    with pytest.raises(OutputError, match=r"t\.txt: No space left"), replacing(tmp_path / "t.txt") as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "t.txt").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_online_trajectory_reads_while_open(tmp_path):
    written = trajectory(5)
    with OnlineTrajectoryWriter(tmp_path / "o.txt", "scale: unknown") as writer:
        for time_ns, T_wc in zip(written.time_ns, written.T_wc):
            writer.append(int(time_ns), T_wc)
        read = read_tum(tmp_path / "o.txt")
    np.testing.assert_array_equal(read.time_ns, written.time_ns)
    np.testing.assert_allclose(read.T_wc, written.T_wc, atol=2e-8)


def test_online_trajectory_survives_a_killed_process(tmp_path):
    """SIGKILL right after append: every appended pose is on disk, nothing needed closing."""
    program = (
        "import os, signal, sys; import numpy as np; from pathlib import Path\n"
        "from slam.io.trajectory import OnlineTrajectoryWriter\n"
        "w = OnlineTrajectoryWriter(Path(sys.argv[1]))\n"
        "for i in range(7): w.append(i * 10**9, np.eye(4))\n"
        "os._exit(9) if os.name == 'nt' else os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "o.txt")], check=False)
    assert len(read_tum(tmp_path / "o.txt")) == 7


def test_torn_last_line(tmp_path):
    """Cut inside the last number the line still has 8 words: only the missing line feed tells."""
    write_tum(tmp_path / "o.txt", trajectory(5))
    text = (tmp_path / "o.txt").read_text()
    (tmp_path / "o.txt").write_text(text[:-3])
    assert len(read_tum(tmp_path / "o.txt", torn_end=True)) == 4
    (tmp_path / "o.txt").write_text(text[:-30])
    with pytest.raises(SourceError, match="line 6: expected 8 numbers"):
        read_tum(tmp_path / "o.txt")


def test_online_writer_goes_on_when_the_disk_is_full(tmp_path, caplog, file_size_limit):
    writer = OnlineTrajectoryWriter(tmp_path / "o.txt")
    writer.append(0, np.eye(4))
    with file_size_limit((tmp_path / "o.txt").stat().st_size):
        writer.append(1, np.eye(4))
        writer.append(2, np.eye(4))
    writer.close()
    assert "File too large" in str(writer.error)
    assert caplog.text.count("poses from 0.000000001 on are missing") == 1
    assert len(read_tum(tmp_path / "o.txt")) == 1


def test_online_writer_wants_increasing_time(tmp_path):
    writer = OnlineTrajectoryWriter(tmp_path / "o.txt")
    writer.append(5, np.eye(4))
    with pytest.raises(ValueError, match="not later"):
        writer.append(5, np.eye(4))
    writer.close()
