"""Triangle meshes as PLY (binary), OBJ and GLB."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slam.io.files import replacing

GLTF_FLOAT, GLTF_UINT, GLTF_UBYTE, ARRAYS, INDICES, TRIANGLES = 5126, 5125, 5121, 34962, 34963, 4
UPRIGHT_XYZW = [1.0, 0.0, 0.0, 0.0]  # half a turn about x: y down and z forward -> y up and z backward, as glTF has it


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in one frame, metres or map units."""

    vertices: np.ndarray  # (V, 3) float32
    triangles: np.ndarray  # (T, 3) int32 indices of vertices, counter-clockwise seen from outside
    colors: np.ndarray  # (V, 3) uint8 RGB
    normals: np.ndarray  # (V, 3) float32 unit


def write_mesh(path: Path, mesh: Mesh, comments: tuple[str, ...] = ()) -> None:
    """Write a mesh atomically in the format of the suffix: .ply, .obj or .glb.

    A GLB holds the vertices as they are, turned upright by its node (glTF has y up).

    Raises:
        OutputError: if the file cannot be written.
        ValueError: if the suffix is another.
    """
    writer = _WRITERS.get(path.suffix)
    if writer is None:
        raise ValueError(f"no mesh format has the suffix {path.suffix!r}")
    writer(path, mesh, comments)


def _write_ply(path: Path, mesh: Mesh, comments: tuple[str, ...]) -> None:
    fields = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")] + [
        (c, "u1") for c in ("red", "green", "blue")
    ]
    vertices = np.empty(len(mesh.vertices), fields)
    for n, (name, _) in enumerate(fields):
        vertices[name] = (mesh.vertices, mesh.normals, mesh.colors)[n // 3][:, n % 3]
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("indices", "<i4", 3)])
    faces["count"], faces["indices"] = 3, mesh.triangles
    words = {"<f4": "float", "u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", *(f"comment {line}" for line in comments)]
    header += [f"element vertex {len(vertices)}", *(f"property {words[kind]} {name}" for name, kind in fields)]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    with replacing(path) as file:
        file.write(("\n".join(header) + "\n").encode())
        file.write(vertices.data)
        file.write(faces.data)


def _write_obj(path: Path, mesh: Mesh, comments: tuple[str, ...]) -> None:
    corners = np.repeat(mesh.triangles + 1, 2, axis=1)
    with replacing(path) as file:
        file.write("".join(f"# {line}\n" for line in comments).encode())
        np.savetxt(file, np.column_stack([mesh.vertices, mesh.colors / 255.0]), "v %.6g %.6g %.6g %.4f %.4f %.4f")
        np.savetxt(file, mesh.normals, "vn %.4f %.4f %.4f")
        np.savetxt(file, corners, "f %d//%d %d//%d %d//%d")


def _write_glb(path: Path, mesh: Mesh, comments: tuple[str, ...]) -> None:
    rgba = np.column_stack([mesh.colors, np.full(len(mesh.colors), 255, np.uint8)])
    arrays = [
        (mesh.vertices.astype("<f4"), GLTF_FLOAT, "VEC3", ARRAYS),
        (mesh.normals.astype("<f4"), GLTF_FLOAT, "VEC3", ARRAYS),
        (rgba, GLTF_UBYTE, "VEC4", ARRAYS),
        (mesh.triangles.astype("<u4").reshape(-1), GLTF_UINT, "SCALAR", INDICES),
    ]
    accessors, views, offset = [], [], 0
    for n, (values, kind, shape, role) in enumerate(arrays):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": values.nbytes, "target": role})
        accessors.append({"bufferView": n, "componentType": kind, "count": len(values), "type": shape})
        offset += values.nbytes  # all are multiples of 4
    accessors[0] |= {"min": mesh.vertices.min(0).tolist(), "max": mesh.vertices.max(0).tolist()}
    accessors[2]["normalized"] = True
    primitive = {"attributes": {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}, "indices": 3, "mode": TRIANGLES}
    content = {
        "asset": {"version": "2.0", "generator": "v2d-slam", "extras": {"conventions": list(comments)}},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "rotation": UPRIGHT_XYZW}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    with replacing(path) as file:
        file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + offset))
        file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        file.write(struct.pack("<I4s", offset, b"BIN\0"))
        for values, *_ in arrays:
            file.write(np.ascontiguousarray(values).data)


_WRITERS: dict[str, Callable[[Path, Mesh, tuple[str, ...]], None]] = {
    ".ply": _write_ply,
    ".obj": _write_obj,
    ".glb": _write_glb,
}
