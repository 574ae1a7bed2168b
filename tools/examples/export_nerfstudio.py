"""A finished run as a nerfstudio data set: pictures in full size, poses, depth and sparse cloud in one folder.

python tools/examples/export_nerfstudio.py results/latest --out results/latest/nerfstudio
ns-train splatfacto --data results/latest/nerfstudio       # with nerfstudio installed
"""

import argparse
import json
import subprocess
from pathlib import Path

from slam.processes import own_program


def main() -> None:
    """Export, and say what is in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    command = own_program("apps.export", options.run, "--to", "nerfstudio", "--out", options.out)  # v2d-export
    subprocess.run(command, check=True)
    frames = json.loads((options.out / "transforms.json").read_text())["frames"]
    print(f"{len(frames)} pictures with poses in {options.out}")


if __name__ == "__main__":
    main()
