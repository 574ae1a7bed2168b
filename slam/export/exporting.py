"""The targets of an export, and filling their folders one after the other."""

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slam import __version__
from slam.errors import SlamError, SourceError, UsageError
from slam.export.folder import check_free, filled
from slam.export.options import ExportOptions
from slam.io.run import ONLINE, TRAJECTORY, Run

log = logging.getLogger(__name__)

FOLDER = "export"  # inside the run
AXES = (
    "world: the first keyframe; world and camera axes x right, y down, z forward (OpenCV); poses camera to world T_wc"
)


@dataclass(frozen=True)
class Target:
    """What can be written; the writer fills a folder and says what it wrote."""

    writer: str  # module:function
    words: str
    needs: str = "keyframes"  # or "source" (and keyframes), "poses", "frames" (stamps of the source, and poses)


TARGETS = {
    "mesh": Target("mesh:write", "triangle mesh with colour (--format ply, glb or obj; --voxel)"),
    "ply": Target("cloud:write", "fused cloud with colour and normals, a point for each voxel (--voxel)"),
    "depth": Target("depth:write", "16-bit depth with poses in TUM layout: keyframes; every frame after v2d-refine"),
    "colmap": Target("colmap:write", "COLMAP: full-size undistorted pictures, cameras, points with tracks", "source"),
    "nerfstudio": Target("nerfstudio:write", "transforms.json, full-size pictures, depth, sparse cloud", "source"),
    "tum": Target("trajectories:write_tum_files", "trajectory, TUM format", "poses"),
    "kitti": Target("trajectories:write_kitti", "trajectory, KITTI format, a line for every frame", "frames"),
    "euroc": Target("trajectories:write_euroc", "trajectory, EuRoC format", "poses"),
    "rerun": Target("rerun_log:write", "recording for the Rerun viewer (extra: rerun)"),
}


def listing() -> str:
    """The targets, a line each."""
    width = max(map(len, TARGETS))
    return "\n".join(f"{name:{width}s}  {target.words}" for name, target in TARGETS.items())


def parse_targets(words: Sequence[str]) -> list[str]:
    """Names of targets, each once, from words that may hold several with commas between; raises UsageError."""
    names = list(dict.fromkeys(name for word in words for name in word.split(",") if name))
    for name in names:
        if name not in TARGETS:
            hint = " (the run comes before --to)" if Path(name).exists() else ""
            raise UsageError(f"unknown target {name!r}{hint}; known: {', '.join(TARGETS)}")
    if not names:
        raise UsageError(f"name what to export with --to: {', '.join(TARGETS)}")
    return names


def export(run: Run, targets: Sequence[str], out: Path | None, overwrite: bool, options: ExportOptions) -> None:
    """Write each target into its folder; one that fails does not keep the others from being written.

    Args:
        out: folder of the target, of several that of their folders; None: `export/` of the run, of its second map
            `export_2/`.
        overwrite: replace earlier exports.

    Raises:
        UsageError: before anything is written, if a folder is taken.
        SlamError: at the end, naming what could not be written and what can be.
        KeyboardInterrupt: if it is interrupted, saying what is written.
    """
    root = run.file(FOLDER) if out is None else out
    folders = {name: root if out is not None and len(targets) == 1 else root / name for name in targets}
    for folder in folders.values():
        check_free(folder, overwrite)
    conventions = conventions_of(run)
    failures: dict[str, SlamError] = {}
    written: list[str] = []
    for name, folder in folders.items():
        try:
            with filled(folder, name, run.path, conventions, overwrite) as beside:
                words = writer_of(name)(beside, run, replace(options, conventions=tuple(conventions)))
        except UsageError:
            raise
        except KeyboardInterrupt as interruption:
            interruption.args += (f"written: {', '.join(written)}" if written else "nothing was written",)
            raise
        except SlamError as error:
            failures[name] = error
            continue
        written.append(name)
        log.info("%s: %s in %s", name, words, folder)
    if failures:
        raise failed(run, failures, written)


def writer_of(name: str) -> Callable[[Path, Run, ExportOptions], str]:
    """The function that writes a target; libraries are loaded with it."""
    module, function = TARGETS[name].writer.split(":")
    writer: Callable[[Path, Run, ExportOptions], str] = getattr(
        importlib.import_module(f"slam.export.{module}"), function
    )
    return writer


def conventions_of(run: Run) -> list[str]:
    """Units and axes in words, for the files."""
    scale = run.scale_source if run.has_record else "unknown"
    unit = "metre" if scale.startswith("metric") else "map unit"
    return [f"v2d-slam {__version__} export of {run.path.resolve().name}", AXES, f"unit: {unit}; scale: {scale}"]


def failed(run: Run, failures: dict[str, SlamError], written: list[str]) -> SlamError:
    """The first failure, with the names of all that failed for it, and what there is or can be instead."""
    name, first = next(iter(failures.items()))
    words = f"{', '.join(failures)}: {first}"
    if written:
        words += f"; written: {', '.join(written)}"
    elif isinstance(first, SourceError):
        others = [other for other in TARGETS if other not in failures and is_possible(run, other, TARGETS[name].needs)]
        words += f"; without that there are: {', '.join(others)}" if others else ""
    return type(first)(words)


def is_possible(run: Run, name: str, lacking: str) -> bool:
    """True if a target needs less of a run than one that failed."""
    needs = TARGETS[name].needs
    if lacking in ("source", "frames"):
        return needs == "poses" or (needs == "keyframes" and bool(_records(run)))
    return lacking == "keyframes" and needs == "poses" and _has_poses(run)


def _records(run: Run) -> int:
    try:
        return len(run.keyframe_records())
    except SourceError:
        return 0


def _has_poses(run: Run) -> bool:
    return run.file(TRAJECTORY).is_file() or (run.path / ONLINE).is_file()
