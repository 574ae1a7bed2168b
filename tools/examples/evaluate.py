"""Two settings on one recording with ground truth, side by side.

python tools/examples/evaluate.py path/to/recording backend.window=5
"""

import argparse

import slam


def main() -> None:
    """Print a line for the defaults, and one for them with the settings given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording")
    parser.add_argument("settings", nargs="*", metavar="A.B=V", help="as --set of v2d-slam takes them")
    options = parser.parse_args()
    for settings in ([], options.settings):
        result = slam.run_and_score(options.recording, settings)
        ate = result.report.ate["sim3"]  # of a map without a unit: aligned over Sim(3)
        depth = "" if result.depth is None else f", depth AbsRel {result.depth.abs_rel:.3f}"
        name = " ".join(settings) or "defaults"
        print(
            f"{name}: ATE {ate.rmse:.4f} m, {100 * ate.coverage:.0f} % of the frames{depth}, {result.cpu_s:.1f} CPU s"
        )
        result.slam.store.close()


if __name__ == "__main__":
    main()
