"""Clouds survive the file; damaged files are refused."""

import numpy as np
import pytest

from slam.errors import SourceError
from slam.io.ply import PointCloud, read_ply, write_ply


def cloud(n: int = 1000) -> PointCloud:
    rng = np.random.default_rng(3)
    return PointCloud(
        rng.normal(size=(n, 3)).astype(np.float32),
        rng.integers(0, 256, (n, 3), dtype=np.uint8),
        rng.normal(size=(n, 3)).astype(np.float32),
    )


def test_round_trip(tmp_path):
    written = cloud()
    write_ply(tmp_path / "m.ply", written, ("scale: unknown",))
    read = read_ply(tmp_path / "m.ply")
    np.testing.assert_array_equal(read.points, written.points)
    np.testing.assert_array_equal(read.colors, written.colors)
    np.testing.assert_array_equal(read.normals, written.normals)


def test_bytes_of_one_point(tmp_path):
    """Little-endian floats, then RGB in that order: fixed to the byte."""
    write_ply(tmp_path / "m.ply", PointCloud(np.array([[1, 2, -0.5]]), np.array([[255, 128, 1]], np.uint8)))
    assert (tmp_path / "m.ply").read_bytes() == (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1\n"
        b"property float x\nproperty float y\nproperty float z\n"
        b"property uchar red\nproperty uchar green\nproperty uchar blue\nend_header\n"
        b"\x00\x00\x80\x3f\x00\x00\x00\x40\x00\x00\x00\xbf\xff\x80\x01"
    )


def test_points_alone_and_no_points(tmp_path):
    write_ply(tmp_path / "m.ply", PointCloud(np.zeros((0, 3), np.float32)))
    read = read_ply(tmp_path / "m.ply")
    assert len(read) == 0 and read.colors is None and read.normals is None


def test_points_that_are_not_finite_are_left_out(tmp_path, caplog):
    points = np.array([[0, 0, 1], [np.nan, 0, 0], [0, np.inf, 0], [0, 0, 2]], np.float32)
    colors = np.arange(12, dtype=np.uint8).reshape(4, 3)
    write_ply(tmp_path / "m.ply", PointCloud(points, colors))
    read = read_ply(tmp_path / "m.ply")
    np.testing.assert_array_equal(read.points, points[[0, 3]])
    np.testing.assert_array_equal(read.colors, colors[[0, 3]])
    assert "left out 2 points" in caplog.text


def test_shapes_must_agree(tmp_path):
    with pytest.raises(ValueError, match=r"colors must have shape \(2, 3\)"):
        write_ply(tmp_path / "m.ply", PointCloud(np.zeros((2, 3)), np.zeros((3, 3), np.uint8)))


def test_foreign_file_with_more_properties(tmp_path):
    """Double coordinates, an unknown property, faces behind: as other programs write them."""
    layout = np.dtype([("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("quality", "<f4")])
    vertices = np.array([(1, 2, 3, 9), (4, 5, 6, 9)], layout)
    header = (
        b"ply\nformat binary_little_endian 1.0\ncomment x\nelement vertex 2\nproperty double x\nproperty double y\n"
        b"property double z\nproperty float quality\nelement face 1\n"
        b"property list uchar int vertex_indices\nend_header\n"
    )
    (tmp_path / "m.ply").write_bytes(header + vertices.tobytes() + b"\x03" + bytes(12))
    np.testing.assert_array_equal(read_ply(tmp_path / "m.ply").points, [[1, 2, 3], [4, 5, 6]])


HEAD = b"ply\nformat binary_little_endian 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"solid stl", "is no PLY file"),
        (b"ply\nformat binary_little_endian 1.0\n", "is no PLY file .or its header is damaged"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nend_header\n", "not a binary little-endian PLY"),
        (HEAD + b"property float z\nend_header\n" + bytes(23), "is cut off: 23 bytes of 24 for 2 points"),
        (HEAD + b"end_header\n" + bytes(16), "have no x, y, z"),
        (HEAD + b"property blob z\nend_header\n", "its header is damaged"),
        (b"ply\nformat binary_little_endian 1.0\nelement face 2\nend_header\n", "first element is not 'vertex'"),
    ],
)
def test_bad_files_are_refused(tmp_path, data: bytes, message: str):
    (tmp_path / "m.ply").write_bytes(data)
    with pytest.raises(SourceError, match=message):
        read_ply(tmp_path / "m.ply")


def test_missing_file(tmp_path):
    with pytest.raises(SourceError, match=r"cannot read the point cloud .*: No such file"):
        read_ply(tmp_path / "m.ply")
