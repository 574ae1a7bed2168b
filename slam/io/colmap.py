"""Sparse models of COLMAP, as text and as binary, with pinhole cameras.

Reference: https://colmap.github.io/format.html. COLMAP's pixel (0.5, 0.5) is the centre of the top left one, ours is
(0, 0); poses are T_cw, quaternions wxyz, camera axes x right, y down, z forward as ours.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from slam.geometry.camera import Camera
from slam.io.files import replacing
from slam.io.quaternion import quat_xyzw_from_matrix

CAMERA_ID = 1
PINHOLE = 1  # number of the model
CENTRE = 0.5  # COLMAP's coordinate of the centre of the first pixel


@dataclass(frozen=True, eq=False)
class SparseModel:
    """Images of one pinhole camera, points, and where the images see them. Images and points have the ids 1, 2, ..."""

    camera: Camera
    names: tuple[str, ...]  # (I,) of the images' files
    T_wc: np.ndarray  # (I, 4, 4) float64
    points: np.ndarray  # (P, 3) float64, world frame
    colors: np.ndarray  # (P, 3) uint8 RGB
    errors: np.ndarray  # (P,) float64 mean reprojection error, pixels
    image: np.ndarray  # (O,) int32 index of the image of each observation
    point: np.ndarray  # (O,) int32 index of its point, increasing
    uv: np.ndarray  # (O, 2) float64 pixels, (0, 0) is the centre of the first

    def by_image(self) -> Iterator[np.ndarray]:
        """Observations of each image, in the order in which files list them."""
        order = np.argsort(self.image, kind="stable")
        ends = np.searchsorted(self.image[order], np.arange(len(self.names) + 1))
        return (order[a:b] for a, b in pairwise(ends.tolist()))

    def rank(self) -> np.ndarray:
        """(O,) place of each observation among those of its image."""
        rank = np.empty(len(self.image), np.int64)
        for observations in self.by_image():
            rank[observations] = np.arange(len(observations))
        return rank

    def by_point(self) -> Iterator[slice]:
        """Observations of each point."""
        ends = np.searchsorted(self.point, np.arange(len(self.points) + 1))
        return (slice(a, b) for a, b in pairwise(ends.tolist()))

    def poses(self) -> tuple[np.ndarray, np.ndarray]:
        """Quaternions (I, 4) wxyz and translations (I, 3) of T_cw."""
        T_cw = np.linalg.inv(self.T_wc)
        return np.roll(quat_xyzw_from_matrix(T_cw[:, :3, :3]), 1, axis=-1), T_cw[:, :3, 3]

    def intrinsics(self) -> list[float]:
        """fx fy cx cy as COLMAP counts pixels."""
        return [self.camera.fx, self.camera.fy, self.camera.cx + CENTRE, self.camera.cy + CENTRE]


def write_text_model(folder: Path, model: SparseModel, comments: tuple[str, ...] = ()) -> None:
    """`cameras.txt`, `images.txt`, `points3D.txt`, every digit kept; raises OutputError."""
    head = "".join(f"# {line}\n" for line in comments)
    camera = f"{CAMERA_ID} PINHOLE {model.camera.width} {model.camera.height} {_words(model.intrinsics())}\n"
    with replacing(folder / "cameras.txt") as file:
        file.write(f"{head}# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy\n{camera}".encode())
    with replacing(folder / "images.txt") as file:
        file.write(
            f"{head}# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then X Y POINT3D_ID of each point\n".encode()
        )
        for n, (quat, t, seen) in enumerate(zip(*model.poses(), model.by_image())):
            uv, point = (model.uv[seen] + CENTRE).tolist(), (model.point[seen] + 1).tolist()
            points = " ".join(f"{u!r} {v!r} {p}" for (u, v), p in zip(uv, point))
            file.write(f"{n + 1} {_words([*quat, *t])} {CAMERA_ID} {model.names[n]}\n{points}\n".encode())
    rank = model.rank()
    with replacing(folder / "points3D.txt") as file:
        file.write(f"{head}# POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX of each image\n".encode())
        for n, track_of in enumerate(model.by_point()):
            r, g, b = model.colors[n].tolist()
            track = " ".join(f"{i + 1} {k}" for i, k in zip(model.image[track_of].tolist(), rank[track_of].tolist()))
            file.write(f"{n + 1} {_words(model.points[n])} {r} {g} {b} {float(model.errors[n])!r} {track}\n".encode())


def write_binary_model(folder: Path, model: SparseModel) -> None:
    """`cameras.bin`, `images.bin`, `points3D.bin`; raises OutputError."""
    size = (model.camera.width, model.camera.height)
    with replacing(folder / "cameras.bin") as file:
        file.write(struct.pack("<QiiQQ4d", 1, CAMERA_ID, PINHOLE, *size, *model.intrinsics()))
    with replacing(folder / "images.bin") as file:
        file.write(struct.pack("<Q", len(model.names)))
        for n, (quat, t, seen) in enumerate(zip(*model.poses(), model.by_image())):
            file.write(struct.pack("<i7di", n + 1, *quat, *t, CAMERA_ID) + model.names[n].encode() + b"\0")
            points = np.empty(len(seen), [("uv", "<f8", 2), ("point", "<i8")])
            points["uv"], points["point"] = model.uv[seen] + CENTRE, model.point[seen] + 1
            file.write(struct.pack("<Q", len(seen)) + points.tobytes())
    rank = model.rank()
    with replacing(folder / "points3D.bin") as file:
        file.write(struct.pack("<Q", len(model.points)))
        for n, track_of in enumerate(model.by_point()):
            track = np.stack([model.image[track_of] + 1, rank[track_of]], -1).astype("<i4")
            place = struct.pack("<Q3d3Bd", n + 1, *model.points[n], *model.colors[n].tolist(), model.errors[n])
            file.write(place + struct.pack("<Q", len(track)) + track.tobytes())


def _words(values: "np.ndarray | list[float]") -> str:
    return " ".join(repr(float(value)) for value in values)
