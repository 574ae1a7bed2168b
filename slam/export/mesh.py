"""A triangle mesh: the agreed depth of all keyframes fused into a truncated signed distance, by Open3D.

Reference: Curless & Levoy, A volumetric method for building complex models from range images, SIGGRAPH 1996;
Dong et al., ASH: a modern framework for parallel spatial hashing, PAMI 2022 (the voxel blocks of Open3D).
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from slam.errors import SlamError, SourceError, UsageError
from slam.export.keyframes import agreed, typical_depth, usable_records
from slam.export.options import ExportOptions
from slam.io.mesh_file import Mesh, write_mesh
from slam.io.run import Run
from slam.mapping.fusion import AgreedView, FusionConfig, points_of
from slam.mapping.voxels import in_grid, packed, too_small, unpacked

log = logging.getLogger(__name__)

VOXEL_RATIO = 0.007  # side of a voxel, times the median depth
BLOCK = 16  # voxels along the side of a block
MAX_BLOCKS = 4000  # that depth falls into, 48 KB each
SURROUNDINGS = 2.2  # blocks in all for each of them, with those within the truncation: room for more is made by copying
TRUNCATION = 3.0  # voxels
MIN_VIEWS = 1.5  # weight of a surface: so many keyframes have seen it, and more; any where there are few
FEW_KEYFRAMES = 6
MAX_DEPTH_RATIO = 8.0  # depth is used up to so many times the median
ISLAND_SIDE = 15  # components of less area than a square of so many voxels are dropped
HOLE_RADIUS = 4.0  # voxels: holes up to this are filled
SPARSE = 4  # pixels between those that count blocks


def write(folder: Path, run: Run, options: ExportOptions) -> str:
    """`mesh.ply`, `.glb` or `.obj`."""
    mesh = meshed(run, options)
    write_mesh(folder / f"mesh.{options.format}", mesh, options.conventions)
    return f"{len(mesh.triangles)} triangles"


def meshed(run: Run, options: ExportOptions) -> Mesh:
    """The surface of a run, world frame.

    Raises:
        SourceError: if the map is empty or damaged.
        UsageError: if it does not fit into memory at the voxel size asked for.
        SlamError: if Open3D cannot be loaded.
    """
    o3d = open3d()
    median = typical_depth(run, options.fusion)
    far = MAX_DEPTH_RATIO * median
    side, count = fitting_voxel(run, options, options.voxel or VOXEL_RATIO * median, far)
    grid = o3d.t.geometry.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(o3d.core.float32, o3d.core.uint16, o3d.core.uint16),
        attr_channels=((1), (1), (3)),
        voxel_size=side,
        block_resolution=BLOCK,
        block_count=int(SURROUNDINGS * count) + 64,
        device=o3d.core.Device("CPU:0"),
    )
    for view in agreed(run, options.fusion):
        integrate(o3d, grid, view, far)
    has_many = len(usable_records(run)) >= FEW_KEYFRAMES
    surface = grid.extract_triangle_mesh(weight_threshold=MIN_VIEWS if has_many else 0.5)
    del grid  # room for what follows
    mesh = cleaned(o3d, surface, side)
    if not len(mesh.triangles):
        raise SourceError(f"the map of {run.path} has no surface: too few keyframes agree on its depth")
    return mesh


def integrate(o3d: Any, grid: Any, view: AgreedView, far: float) -> None:
    """Fuse one keyframe."""
    if not ((view.depth > 0) & (view.depth < far)).any():
        return
    tensor = o3d.core.Tensor
    depth = o3d.t.geometry.Image(tensor(np.ascontiguousarray(view.depth, np.float32)))
    color = o3d.t.geometry.Image(tensor(np.ascontiguousarray(view.rgb).astype(np.float32) / 255))
    K, T_cw = tensor(view.K), tensor(np.linalg.inv(view.T_wc))
    blocks = grid.compute_unique_block_coordinates(depth, K, T_cw, 1.0, far, TRUNCATION)
    grid.integrate(blocks, depth, color, K, K, T_cw, 1.0, far, TRUNCATION)


def cleaned(o3d: Any, surface: Any, side: float) -> Mesh:
    """Without small components, small holes filled."""
    whole = surface.to_legacy()
    whole.remove_degenerate_triangles()
    if not len(whole.triangles):
        return Mesh(*(np.zeros((0, 3), kind) for kind in (np.float32, np.int32, np.uint8, np.float32)))
    cluster, _, area = (np.asarray(values) for values in whole.cluster_connected_triangles())
    whole.remove_triangles_by_mask(area[cluster] < (ISLAND_SIDE * side) ** 2)
    whole.remove_unreferenced_vertices()
    vertices, colors = np.asarray(whole.vertices), np.asarray(whole.vertex_colors)
    if len(whole.triangles):
        filled = o3d.t.geometry.TriangleMesh.from_legacy(whole).fill_holes(HOLE_RADIUS * side).to_legacy()
        if np.asarray(filled.vertices).shape == vertices.shape:  # it only adds triangles
            whole.triangles = filled.triangles
    whole.compute_vertex_normals()
    rgb = np.rint(255 * colors.clip(0, 1)).astype(np.uint8)
    normals = np.asarray(whole.vertex_normals, np.float32)
    return Mesh(np.asarray(whole.vertices, np.float32), np.asarray(whole.triangles, np.int32), rgb, normals)


def fitting_voxel(run: Run, options: ExportOptions, side: float, far: float) -> tuple[float, int]:
    """The side of a voxel at which the map fits into memory, and its blocks: that asked for, or a larger one with a
    WARNING.

    Raises:
        UsageError: if the user asked for it.
    """
    wanted, blocks = side, occupied_blocks(run, options.fusion, BLOCK * side, far)
    count = len(blocks)
    while count > MAX_BLOCKS:
        side *= 1.05 * np.sqrt(count / MAX_BLOCKS)  # blocks cover a surface
        count = len(np.unique(packed(np.floor((blocks + 0.5) * (wanted / side)).astype(np.int64))))
    if side > wanted and options.voxel is not None:
        raise UsageError(
            f"--voxel {options.voxel:g} is too small for the memory of a map of this extent; give {side:.2g}"
        )
    if side > wanted:
        log.warning(
            "the map is so large that the voxels of the mesh are %.3g wide, not %.3g, to fit into memory", side, wanted
        )
    return float(side), count


def occupied_blocks(run: Run, config: FusionConfig, side: float, far: float) -> np.ndarray:
    """(N, 3) int64 blocks of a side that the confident depth falls into; those beside it do not count.

    Raises:
        UsageError: if the map is too large for blocks so small.
    """
    keys = np.zeros(0, np.int64)
    for record in usable_records(run):
        depth = run.depth(record)
        known = (depth > 0) & (depth < far) & (run.confidence(record) >= config.min_confidence)
        thinned = np.zeros_like(known)
        thinned[::SPARSE, ::SPARSE] = known[::SPARSE, ::SPARSE]
        T_wc = np.array(record.T_wc)
        points = points_of(depth, np.array(record.K))[thinned] @ T_wc[:3, :3].T + T_wc[:3, 3]
        if not in_grid(points, side).all():
            raise too_small(side / BLOCK)
        keys = np.union1d(keys, packed(np.floor(points / side).astype(np.int64)))
    return unpacked(keys)


def open3d() -> Any:
    """The library, loaded when it is needed.

    Raises:
        SlamError: if it is missing or broken.
    """
    try:
        import open3d as o3d
    except (ImportError, OSError) as error:
        raise SlamError(f"the mesh needs Open3D, which cannot be loaded ({error}): pip install open3d") from error
    return o3d
