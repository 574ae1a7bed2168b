"""A rendered room as a run: true poses, true depth at a quarter of the pictures' pixels, frames of the demo."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slam.frames import Image, Keyframe, Trajectory, View
from slam.geometry.camera import Camera
from slam.inv_depth import InvDepth
from slam.io.images import write_color
from slam.io.run import write_keyframes, write_record, write_trajectories
from slam.io.run_directory import RunDirectory
from slam.io.run_record import RunRecord, SourceRecord
from slam.io.trajectory import format_time_ns
from slam.sources.demo import DemoConfig, DemoSource

WIDTH, HEIGHT = 320, 240
FRAMES, EVERY = 40, 5


@dataclass(frozen=True, eq=False)
class Room:
    """A run directory made of the truth, and the truth."""

    path: Path
    recording: Path  # TUM layout, images alone
    camera: Camera  # of the pictures
    keyframes: tuple[int, ...]  # frame numbers
    images: list[np.ndarray]
    depths: list[np.ndarray]  # (H, W) metres, at full size
    trajectory: Trajectory


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory, run_record: RunRecord) -> Room:
    """Eight keyframes of a desk in a loop. Tests must not change it."""
    config = DemoConfig("office", "orbit", frames=FRAMES, width=WIDTH, height=HEIGHT, fps=8.0, noise=0.0, blur_px=0.0)
    source = DemoSource(replace(config, exposure_drift_stops=0.0), with_depth=True)
    frames, root = list(source), tmp_path_factory.mktemp("room")
    recording = root / "recording"
    lines = []
    for frame in frames:
        name = f"rgb/{format_time_ns(frame.time_ns)}.png"
        write_color(recording / name, frame.image)
        lines.append(f"{format_time_ns(frame.time_ns)} {name}\n")
    (recording / "rgb.txt").write_text("".join(lines))
    trajectory = source.groundtruth()
    run, small = RunDirectory(root / "run"), source.camera.resized(WIDTH // 2, HEIGHT // 2)
    keyframes = []
    for n, frame in enumerate(frames[::EVERY]):
        assert frame.depth is not None
        size = (small.width, small.height)
        image = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
        inv_depth = torch.from_numpy(cv2.resize(1 / frame.depth, size, interpolation=cv2.INTER_AREA))
        dense = InvDepth.from_confidence(inv_depth, torch.full_like(inv_depth, 0.9))
        view = View(frame.id, frame.time_ns, Image(image), small.matrix())
        T_wc = torch.from_numpy(trajectory.T_wc[frame.id])
        keyframes.append(Keyframe(n, view, T_wc, dense, InvDepth.unknown((30, 40)), parent_id=n - 1))
    write_keyframes(run, keyframes)
    chosen = Trajectory(trajectory.time_ns[::EVERY], trajectory.T_wc[::EVERY])
    write_trajectories(run, trajectory, chosen, "")
    taken = SourceRecord("room", "tum", str(recording), source.camera, last_ns=frames[-1].time_ns)
    write_record(run, replace(run_record, version="", source=taken, scale_source="metric (sensor depth)"))
    assert not run.missing
    images, depths = [frame.image for frame in frames], [frame.depth for frame in frames]
    return Room(run.path, recording, source.camera, tuple(range(0, FRAMES, EVERY)), images, depths, trajectory)


@pytest.fixture
def small_run(room: Room, tmp_path: Path) -> Callable[[], Path]:
    """Copies of the run that a test may change."""
    import shutil

    def copied() -> Path:
        shutil.copytree(room.path, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
        return tmp_path / "run"

    return copied


@pytest.fixture(scope="session")
def exported(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a target, written once."""
    from apps.export import main

    folders: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("exported")

    def of(target: str) -> Path:
        if target not in folders:
            folders[target] = root / target
            assert main([str(room.path), "--to", target, "--out", str(folders[target]), "--quiet"]) == 0
        return folders[target]

    return of
