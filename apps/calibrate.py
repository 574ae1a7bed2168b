"""v2d-calibrate: a camera's intrinsics from a checkerboard or ChArUco board."""

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from apps.common import add_verbosity, parsed, program, stop_on_signals
from slam.errors import CalibrationError, UsageError, without_secrets

if TYPE_CHECKING:
    import numpy as np

    from slam.calibration.boards import Board
    from slam.calibration.lens import Views
    from slam.sources import Source

log = logging.getLogger(__name__)

MAX_TRIED = 300  # images of a recording that are searched; those of a long video are taken evenly
ENDINGS = """Print the board (--make-board board.png), glue it onto something flat, and film it from all sides: near
and far, tilted, in every corner of the image. --size counts inner corners for a checkerboard (a board of 10x7 squares
is 9x6) and squares for ChArUco. Exit codes: 0 done, 1 no calibration, 2 the command line makes no sense."""


def build_parser() -> argparse.ArgumentParser:
    """Command line of v2d-calibrate."""
    p = argparse.ArgumentParser(prog="v2d-calibrate", description=__doc__, epilog=ENDINGS)
    inputs = p.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--video", type=Path, metavar="FILE", help="a video of the board")
    inputs.add_argument("--images", type=Path, metavar="DIR", help="a folder of images of the board")
    inputs.add_argument("--camera", metavar="ADDRESS", help="as of v2d-slam; ends when enough is seen, or Ctrl-C")
    inputs.add_argument("--make-board", type=Path, metavar="FILE.png", help="write a board to print, and end")
    p.add_argument("--board", choices=("checkerboard", "charuco"), default="checkerboard", help="default %(default)s")
    p.add_argument("--size", default="9x6", metavar="CxR", help="columns x rows (default %(default)s)")
    p.add_argument("--square", type=float, default=0.025, metavar="M", help="side of a square, m (default %(default)s)")
    p.add_argument("--marker", type=float, metavar="M", help="side of a ChArUco marker (default 0.72 of a square)")
    p.add_argument("--dictionary", default="DICT_5X5_100", help="of the ChArUco markers (default %(default)s)")
    p.add_argument("--k3", action="store_true", help="also solve for k3 (very wide lenses)")
    p.add_argument("--out", type=Path, default=Path("calibration.yaml"), metavar="FILE", help="default %(default)s")
    p.add_argument("--force", action="store_true", help="overwrite --out")
    add_verbosity(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return program("v2d-calibrate", lambda: run(parsed(build_parser(), argv)), argv is None)


def run(options: argparse.Namespace) -> int:
    """Find the board, choose views, calibrate, write; or write a board."""
    from slam.calibration.boards import Board, BoardConfig, write_board
    from slam.calibration.lens import calibrate, doubts
    from slam.io.calibration import write_calibration
    from slam.io.files import check_writable

    columns, rows = parse_size(options.size)
    board = Board(BoardConfig(options.board, columns, rows, options.square, options.marker, options.dictionary))
    if options.make_board is not None:
        width_mm, height_mm = write_board(options.make_board, board)
        print(
            f"{options.make_board}: a {board.config}, {width_mm} x {height_mm} mm with its margin. Print it at 100 %, "
            f"then measure a square: it should be {1000 * options.square:g} mm, else say its true size by --square"
        )
        return 0
    if options.out.exists() and not options.force:
        raise UsageError(f"{options.out} exists already; choose another with --out, or overwrite it with --force")
    check_writable(options.out)
    views = gather(options, board)
    result = calibrate(views.views, views.width, views.height, options.k3)
    write_calibration(options.out, result.camera)
    for words in doubts(result, views):
        log.warning("%s", words)
    if not options.quiet:
        camera = result.camera
        print(
            f"fx {camera.fx:.2f} (+-{result.focal_deviation_px:.2f})  fy {camera.fy:.2f}  cx {camera.cx:.2f}  "
            f"cy {camera.cy:.2f}  distortion {' '.join(f'{value:.4f}' for value in camera.distortion)}\n"
            f"reprojection error {result.rms_px:.3f} px RMS, {result.views_used} views used, "
            f"{result.views_dropped} dropped as outliers\n"
            f"{options.out} is for {camera.width}x{camera.height} images of this camera; use it with\n"
            f"  v2d-slam --video FILE --calib {options.out}"
        )
    return 0


def gather(options: argparse.Namespace, board: "Board") -> "Views":
    """Varied views of the board in the recording, with a line about each that was taken.

    Raises:
        CalibrationError: if too few images show the board.
    """
    from slam.calibration.lens import MIN_VIEWS, Views

    source, name = open_images(options)
    views = Views(source.camera.width, source.camera.height)
    tried = seen = 0
    first: list[np.ndarray] = []
    with closing(source), stop_on_signals() as stop:
        for frame in source:
            if stop.is_set():
                log.warning("stopped after %d images; calibrating with what there is", tried)
                break
            tried += 1
            view = board.find(frame.image)
            if view is None:
                first += [frame.image] if len(first) < 5 and not seen else []
                log.debug("image %d: no board", frame.id)
                continue
            seen += 1
            if views.add(view):
                log.info("image %d of %s: %s", tried, name, views.feedback())
                if source.live and not views.missing():
                    break
    if len(views) < MIN_VIEWS and seen < tried / 2:  # what is seen once may be seen by mistake
        raise CalibrationError(
            f"a {board.config} was found in {seen} of the {tried} images of {name}; {explain(board, first)}"
        )
    log.info("the board is in %d of %d images, %d differ enough", seen, tried, len(views))
    return views


def open_images(options: argparse.Namespace) -> "tuple[Source, str]":
    """The camera or recording that the options name, and what to call it."""
    from slam.sources import SourceSpec, open_source
    from slam.sources.cameras import CameraSpec, open_camera

    if options.camera is not None:  # a lens must be named everywhere; it does not change the images
        return open_camera(CameraSpec(options.camera, hfov_deg=60.0, with_depth=False)), without_secrets(options.camera)
    path, kind = (options.video, "video") if options.video is not None else (options.images, "images")
    spec = SourceSpec(path=str(path), kind=kind, hfov_deg=60.0, fps=30.0)
    with closing(open_source(spec)) as whole:
        count = whole.count or 0
    return open_source(replace(spec, stride=max(1, -(-count // MAX_TRIED)))), str(path)


def explain(board: "Board", images: "list[np.ndarray]") -> str:
    """Why the board may not be found, and what to do."""
    shown = board.shown_size(images)
    if shown is not None and sorted(shown) != sorted((board.config.columns, board.config.rows)):
        return (
            f"they show a checkerboard of {max(shown)}x{min(shown)} inner corners: try --size {max(shown)}x{min(shown)}"
        )
    if board.config.kind == "charuco":
        return "check --size (squares across x down), --dictionary, and that the images are sharp"
    return "check --size (inner corners, not squares), and that the whole board is in sharp images with a white margin"


def parse_size(text: str) -> tuple[int, int]:
    """`9x6` -> (9, 6); raises UsageError."""
    columns, _, rows = text.lower().partition("x")
    if not (columns.isdecimal() and rows.isdecimal()):
        raise UsageError(f"--size is columns x rows, such as 9x6, got {text!r}")
    return int(columns), int(rows)


if __name__ == "__main__":
    sys.exit(main())
