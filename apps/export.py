"""v2d-export: a run for other programs: mesh, cloud, depth, COLMAP, nerfstudio, trajectories."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from apps.common import add_map_number, add_verbosity, parsed, program
from slam.errors import UsageError


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-export."""
    p = argparse.ArgumentParser(prog="v2d-export", description=__doc__)
    p.add_argument("run", type=Path, nargs="?", metavar="RUN", help="run directory (default results/latest)")
    add_map_number(p)
    p.add_argument("--to", nargs="+", action="extend", default=[], metavar="TARGET", help="one or several, see --list")
    p.add_argument("--list", action="store_true", help="print the targets")
    p.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="of the target; of several, that of their folders (default RUN/export/TARGET)",
    )
    p.add_argument("--overwrite", action="store_true", help="replace earlier exports")
    p.add_argument("--format", default="ply", help="of the mesh: ply, glb or obj (default %(default)s)")
    p.add_argument("--voxel", type=float, metavar="SIDE", help="of mesh and ply, map units (default: by the depth)")
    p.add_argument(
        "--max-size", type=int, metavar="PX", help="longer side of full-size pictures (default: as they are)"
    )
    p.add_argument("--min-confidence", type=float, default=0.5, help="of depth that is used (default %(default)s)")
    p.add_argument(
        "--depth-scale",
        type=float,
        default=5000.0,
        metavar="N",
        help="value of one map unit for depth (default 5000, TUM)",
    )
    add_verbosity(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return program("v2d-export", lambda: run_export(parsed(build_parser(), argv)), argv is None)


def run_export(options: argparse.Namespace) -> int:
    """Check, then write."""
    from slam.export.exporting import export, listing, parse_targets
    from slam.export.options import ExportOptions
    from slam.io.run import Run
    from slam.io.run_directory import latest_run
    from slam.mapping.fusion import FusionConfig
    from slam.threads import limit_threads

    if options.list:
        print(listing())
        return 0
    targets = parse_targets(options.to)
    if not 0 <= options.min_confidence <= 1:
        raise UsageError(f"--min-confidence must be from 0 to 1, got {options.min_confidence:g}")
    settings = ExportOptions(
        format=options.format,
        voxel=options.voxel,
        max_size=options.max_size,
        depth_scale=options.depth_scale,
        fusion=FusionConfig(min_confidence=options.min_confidence),
    )
    limit_threads()
    export(Run(options.run or latest_run(), options.map), targets, options.out, options.overwrite, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
