"""Write a rendered sequence with exact truth as a folder in TUM layout.

python tools/render_sequence.py hall loop runs/hall --frames 1300 --seed 1
v2d-slam --sequence runs/hall --out runs/hall-run && v2d-eval runs/hall-run --groundtruth runs/hall

With --movers something moves through the scene, as much as it takes to cover --mover-share of the image; movers/ then
holds its masks (255: the pixel shows a mover), listed in movers.txt. Without, the walk of a seed is the same.
Of a rolling shutter and of an exposure the truth is that of the middle row, in the middle of its exposure.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from slam.io.calibration import write_calibration
from slam.io.images import write_color, write_depth, write_mask
from slam.io.trajectory import format_time_ns, write_tum
from slam.rendering.paths import PATH_VARIANTS
from slam.rendering.scenes import SCENE_KINDS
from slam.sources.demo import MOVERS, DemoConfig, DemoSource


def main() -> None:
    """Parse, render, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SCENE_KINDS)
    parser.add_argument("variant", choices=PATH_VARIANTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--depth", action="store_true", help="write depth too")
    parser.add_argument("--movers", choices=MOVERS, default="none", help="what moves (default %(default)s)")
    parser.add_argument("--mover-share", type=float, default=0.0, help="of the image (default: something is in sight)")
    parser.add_argument("--readout", type=float, default=0.0, help="of a rolling shutter, ms (default %(default)g)")
    parser.add_argument("--exposure", type=float, default=0.0, help="which blurs motion, ms (default %(default)g)")
    parser.add_argument("--shake", type=float, default=0.0, help="of 3 to 6 Hz, degrees (default %(default)g)")
    parser.add_argument("--hfov", type=float, default=62.0, help="horizontal field of view, degrees (default 62)")
    parser.add_argument("--k1", type=float, default=0.0, help="first radial coefficient of the lens (default 0)")
    parser.add_argument("--fisheye", action="store_true", help="through a Kannala-Brandt lens, --hfov 140 for one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = DemoConfig(
        kind=options.kind,
        variant=options.variant,
        seed=options.seed,
        frames=options.frames,
        readout_s=options.readout / 1000,
        exposure_s=options.exposure / 1000,
        shake_deg=options.shake,
        hfov_deg=options.hfov,
        k1=options.k1,
        fisheye=options.fisheye,
        movers=options.movers,
        mover_share=options.mover_share,
    )
    covered = write_sequence(config, options.out, options.depth)
    if covered is not None:
        print(f"movers cover {covered:.1%} of the images")


def write_sequence(config: DemoConfig, out: Path, with_depth: bool = False) -> float | None:
    """Render into a folder in TUM layout; the share of the images that movers cover, if there are any."""
    source = DemoSource(config, with_depth=with_depth)
    truth = source.groundtruth()
    path_m = float(torch.from_numpy(truth.T_wc[:, :3, 3]).diff(dim=0).norm(dim=-1).sum())
    write_calibration(out / "calibration.yaml", source.camera)
    write_tum(out / "groundtruth.txt", truth, f"rendered {config.kind} {config.variant}, {path_m:.1f} m")
    covered = 0.0
    lists = {name: ["# timestamp filename"] for name in ("rgb", "depth", "movers")}
    for frame in tqdm(source, total=len(source), desc=f"{path_m:.1f} m"):
        stamp = format_time_ns(frame.time_ns)
        write_color(out / "rgb" / f"{stamp}.jpg", frame.image)
        lists["rgb"].append(f"{stamp} rgb/{stamp}.jpg")
        if frame.depth is not None:
            write_depth(out / "depth" / f"{stamp}.png", frame.depth)
            lists["depth"].append(f"{stamp} depth/{stamp}.png")
        if source.movers is not None:
            mask = source.mover_masks(frame.id, frame.id + 1)[0]
            covered += float(mask.mean()) / len(source)
            write_mask(out / "movers" / f"{stamp}.png", mask)
            lists["movers"].append(f"{stamp} movers/{stamp}.png")
    for name, lines in lists.items():
        if len(lines) > 1:
            (out / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return None if source.movers is None else covered


if __name__ == "__main__":
    main()
