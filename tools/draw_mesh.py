"""A picture of an exported mesh, from behind the cameras that saw it: in its colours, and shaded to show its shape.

v2d-export results/latest --to mesh
python tools/draw_mesh.py results/latest --out mesh.jpg
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open3d as o3d
from open3d.visualization import rendering

from apps.common import guarded
from slam.errors import SourceError
from slam.io.images import write_color
from slam.viewer.driver import check_driver
from slam.viewer.run import FinishedRun
from slam.viewer.shapes import Viewpoint, overview

SIZE = (640, 480)  # columns, rows of each half
FIELD_OF_VIEW_DEG = 60.0
AMBIENT, WHITE = 0.15, 0.8


def drawn(mesh: Any, view: Viewpoint) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a mesh in the colours of its vertices."""
    renderer = rendering.OffscreenRenderer(*SIZE)
    renderer.scene.set_background([1, 1, 1, 1])
    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    renderer.scene.add_geometry("mesh", mesh, material)
    renderer.setup_camera(FIELD_OF_VIEW_DEG, view.center, view.eye, view.up)
    return np.asarray(renderer.render_to_image())[..., :3]


def shaded(mesh: Any, view: Viewpoint) -> Any:
    """The mesh in gray, lit from where it is seen."""
    plain = o3d.geometry.TriangleMesh(mesh.vertices, mesh.triangles)
    plain.compute_vertex_normals()
    rays = np.asarray(plain.vertices) - view.eye
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    gray = AMBIENT + (WHITE - AMBIENT) * np.abs((rays * np.asarray(plain.vertex_normals)).sum(-1, keepdims=True))
    plain.vertex_colors = o3d.utility.Vector3dVector(np.repeat(gray, 3, axis=1))
    return plain


def draw(options: argparse.Namespace) -> int:
    """Write the picture."""
    run = FinishedRun(options.run)
    path = options.mesh or options.run / "export/mesh/mesh.ply"
    mesh = o3d.io.read_triangle_mesh(str(path)) if path.is_file() else None
    if mesh is None or not len(mesh.triangles):
        raise SourceError(f"{path} is no mesh; write one with v2d-export {options.run} --to mesh")
    check_driver()
    view = overview(run.until(len(run.keyframes), ""))
    write_color(options.out, np.hstack([drawn(mesh, view), drawn(shaded(mesh, view), view)]))
    return 0


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--mesh", type=Path, help="its mesh (default RUN/export/mesh/mesh.ply)")
    parser.add_argument("--out", type=Path, default=Path("mesh.jpg"))
    options = parser.parse_args()
    return guarded("draw_mesh", lambda: draw(options))


if __name__ == "__main__":
    sys.exit(main())
