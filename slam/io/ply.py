"""Point clouds as binary little-endian PLY."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slam.errors import SourceError
from slam.io.files import replacing
from slam.reading import read_bytes, reason

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 30  # of a file: 40 million points with colours and normals
MAX_HEADER_BYTES = 65536
_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2"},
    **{"ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4"},
    **{"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in one frame, metres or map units."""

    points: np.ndarray  # (N, 3) float32
    colors: np.ndarray | None = None  # (N, 3) uint8 RGB
    normals: np.ndarray | None = None  # (N, 3) float32

    def __len__(self) -> int:
        return len(self.points)


def write_ply(path: str | Path, cloud: PointCloud, comments: tuple[str, ...] = ()) -> None:
    """Write a cloud atomically; points that are not finite are left out, with a WARNING.

    Raises:
        ValueError: if the arrays do not fit together.
        OutputError: if the file cannot be written.
    """
    path = Path(path)
    columns = {"points": (cloud.points, ("x", "y", "z"), "<f4", "float")}
    if cloud.normals is not None:
        columns["normals"] = (cloud.normals, ("nx", "ny", "nz"), "<f4", "float")
    if cloud.colors is not None:
        columns["colors"] = (cloud.colors, ("red", "green", "blue"), "u1", "uchar")
    for name, (array, *_) in columns.items():
        if array.shape != (len(cloud), 3):
            raise ValueError(f"{name} must have shape ({len(cloud)}, 3), got {array.shape}")

    finite = np.isfinite(cloud.points).all(-1)
    if not finite.all():
        log.warning("%s: left out %d points that are not finite", path, len(finite) - int(finite.sum()))
    vertices = np.empty(int(finite.sum()), [(n, code) for _, names, code, _ in columns.values() for n in names])
    for array, names, _, _ in columns.values():
        for axis, name in enumerate(names):
            vertices[name] = array[finite, axis]

    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {len(vertices)}"]
    header += [f"property {word} {name}" for _, names, _, word in columns.values() for name in names]
    with replacing(path) as file:
        file.write(("\n".join([*header, "end_header"]) + "\n").encode())
        file.write(vertices.data)  # no copy: clouds are large


def read_ply(path: Path) -> PointCloud:
    """Read the vertices of a binary little-endian PLY; properties other than xyz, colour and normal are ignored.

    Raises:
        SourceError: if the file is missing, damaged, shorter than it says, or another kind of PLY.
    """
    try:
        data = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise SourceError(f"cannot read the point cloud {path}: {reason(error)}") from error
    end = data.find(b"end_header\n", 0, MAX_HEADER_BYTES)
    if not data.startswith((b"ply\n", b"ply\r\n")) or end < 0:
        raise SourceError(f"{path} is no PLY file (or its header is damaged)")
    count, layout = _parse_header(data[:end].decode("ascii", "replace").splitlines(), path)
    body = memoryview(data)[end + len(b"end_header\n") :]
    if len(body) < count * layout.itemsize:
        raise SourceError(f"{path} is cut off: {len(body)} bytes of {count * layout.itemsize} for {count} points")
    vertices = np.frombuffer(body, layout, count)

    def columns(names: tuple[str, str, str], dtype: type) -> np.ndarray | None:
        if not set(names) <= set(layout.names or ()):
            return None
        with np.errstate(invalid="ignore", over="ignore"):  # damaged points are no numbers, or infinite
            return np.stack([vertices[name] for name in names], -1).astype(dtype)

    points = columns(("x", "y", "z"), np.float32)
    if points is None:
        raise SourceError(f"{path}: its vertices have no x, y, z")
    return PointCloud(points, columns(("red", "green", "blue"), np.uint8), columns(("nx", "ny", "nz"), np.float32))


def _parse_header(lines: list[str], path: Path) -> tuple[int, np.dtype]:
    """Number and record layout of the vertices, which must be the first element."""
    if "format binary_little_endian 1.0" not in [line.strip() for line in lines]:
        raise SourceError(f"{path} is not a binary little-endian PLY; convert it")
    elements = [i for i, line in enumerate(lines) if line.startswith("element ")]
    if not elements or not lines[elements[0]].startswith("element vertex "):
        raise SourceError(f"{path}: its first element is not 'vertex'")
    stop = elements[1] if len(elements) > 1 else len(lines)
    try:
        count = int(lines[elements[0]].split()[2])
        properties = [line.split()[1:] for line in lines[elements[0] : stop] if line.startswith("property ")]
        layout = np.dtype([(name, _TYPES[kind]) for kind, name in properties])
    except (ValueError, KeyError, IndexError) as error:
        raise SourceError(f"{path}: its header is damaged or has list properties on vertices") from error
    if count < 0:
        raise SourceError(f"{path}: its header asks for {count} points")
    return count, layout
