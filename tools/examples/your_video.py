"""Poses, depth and a map of your own video, frame by frame.

python tools/examples/your_video.py walk.mp4 --hfov 65 --out results/walk
"""

import argparse
from pathlib import Path

import slam


def main() -> None:
    """Track the video, and write trajectory, map and a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", help="or anything else that v2d-slam --sequence takes")
    parser.add_argument("--hfov", type=float, metavar="DEG", help="horizontal field of view, without a calibration")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    source = slam.open_source(slam.SourceSpec(options.video, hfov_deg=options.hfov))
    system = slam.build_slam(slam.SlamConfig(), source.camera)
    for frame in source:
        for estimate in system.feed(frame.image, frame.time_ns / 1e9):
            x, y, z = estimate.T_wc[:3, 3].tolist()  # where the camera is, in units of the map
            print(f"frame {estimate.frame_id} {estimate.status.name} at {x:.3f} {y:.3f} {z:.3f}")
    system.finish()
    source.close()

    keyframes = system.store.everything()
    for keyframe in keyframes:
        depth = keyframe.dense.on_host().depth()  # (h, w), units of the map, 0 unknown
        print(f"keyframe {keyframe.id}: median depth {float(depth[depth > 0].median()):.3f}")
    options.out.mkdir(parents=True, exist_ok=True)
    slam.write_tum(options.out / "trajectory.txt", system.store.trajectory())
    slam.write_ply(options.out / "map.ply", slam.fused_cloud(keyframes))


if __name__ == "__main__":
    main()
