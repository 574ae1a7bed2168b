"""Depth of every frame: what is read back is what was added, and the listing names what is there."""

import errno
import json
import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from slam.errors import SourceError
from slam.frames import Image, View
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.io import refined
from slam.io.images import write_confidence, write_depth
from slam.io.preview import depth_colors, frame_rate
from slam.io.refined import Frames, FramesWriter, has_frames
from slam.io.run_directory import RunDirectory

F64 = torch.float64
SIZE = (48, 63)  # rows, columns; odd
K = torch.tensor([[50.0, 0, 31.0], [0, 51.0, 23.5], [0, 0, 1]], dtype=F64)
SCALE = 5000.0
RANGE = (1.0, 8.0)
PERIOD_NS = 40_000_000


def frame(n: int) -> tuple[View, torch.Tensor, InvDepth, InvDepth]:
    """Depth 4 in the left third, 1 to 8 growing to the right with n in the middle, unknown in the right third."""
    image = np.full((*SIZE, 3), (200, 40, 90), np.uint8)
    d = torch.full(SIZE, 0.25)
    d[:, 21:42] = 1 / torch.linspace(1 + 0.1 * n, 8, 21)
    d[:, 42:] = 0
    confidence = torch.linspace(0.1, 0.9, SIZE[0])[:, None].expand(SIZE)
    view = View(3 * n, 10**9 + n * PERIOD_NS, Image(image), K)
    T_wc = se3.exp(torch.tensor([0.1 * n, 0, 0.02, 0, 0.01 * n, 0.1], dtype=F64))
    return (
        view,
        T_wc,
        InvDepth.from_confidence(torch.full(SIZE, 0.25), confidence),
        InvDepth.from_confidence(d, confidence),
    )


def write(path: Path, count: int) -> RunDirectory:
    run = RunDirectory(path)
    with FramesWriter(run, K, SIZE, SCALE, RANGE) as writer:
        for n in range(count):
            writer.add(*frame(n))
    return run


def names(run: RunDirectory) -> set[str]:
    """Maps that are there."""
    return {path.name for path in (run.path / "frames").glob("*.png")}


def test_frames_are_read_back(tmp_path):
    run = write(tmp_path / "run", 3)
    assert run.missing == {} and has_frames(run.path) and not has_frames(tmp_path)
    frames = Frames(run.path)
    listing = frames.listing
    assert (listing.height, listing.width, listing.depth_scale) == (*SIZE, SCALE)
    assert [list(row) for row in listing.K] == K.tolist()
    assert "z forward" in listing.conventions and "value / depth_scale" in listing.conventions
    assert len(frames.records) == 3
    for n, record in enumerate(frames.records):
        view, T_wc, _, after = frame(n)
        assert (record.frame_id, record.time_ns) == (view.frame_id, view.time_ns)
        assert record.T_wc == tuple(map(tuple, T_wc.tolist()))
        np.testing.assert_allclose(frames.depth(record), after.depth().numpy(), atol=0.51 / SCALE)
        np.testing.assert_allclose(frames.confidence(record), after.confidence.numpy(), atol=0.51 / 255)
    assert frames.records[1].depth == "1.040000000_depth.png"
    assert names(run) == {name for r in frames.records for name in (r.depth, r.confidence)}


def test_the_listing_names_what_a_full_disk_took(tmp_path, monkeypatch):
    """The third confidence and the fifth depth are refused: those frames are missing whole, the others listed."""
    run, count = RunDirectory(tmp_path / "run"), {"depth": 0, "confidence": 0}

    def refusing(kind, function, number):
        def write_map(path, *values):
            count[kind] += 1
            if count[kind] == number:
                raise OSError(errno.ENOSPC, "No space left on device")
            function(path, *values)

        monkeypatch.setattr(refined, f"write_{kind}", write_map)

    refusing("confidence", write_confidence, 3)
    refusing("depth", write_depth, 5)
    with FramesWriter(run, K, SIZE, SCALE, RANGE) as writer:
        for n in range(6):
            writer.add(*frame(n))
    records = Frames(run.path).records
    assert [r.frame_id for r in records] == [0, 3, 9, 15]
    assert names(run) == {name for r in records for name in (r.depth, r.confidence)}
    assert {name.split("/")[1] for name in run.missing} == {
        "1.080000000_depth.png",
        "1.080000000_confidence.png",
        "1.160000000_depth.png",
    }


def test_a_run_that_breaks_off_lists_what_it_has(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), FramesWriter(run, K, SIZE, SCALE, RANGE) as writer:
        writer.add(*frame(0))
        raise ZeroDivisionError
    assert len(Frames(run.path).records) == 1


def test_what_was_there_before_is_not_taken_for_new(tmp_path):
    run = write(tmp_path / "run", 2)
    FramesWriter(run, K, SIZE, 2 * SCALE, RANGE)
    assert not has_frames(run.path) and not (run.path / "preview.mp4").exists()


def test_mistakes_of_the_caller(tmp_path):
    run = RunDirectory(tmp_path / "run")
    for scale, depth_range in ((0.0, RANGE), (float("nan"), RANGE), (SCALE, (0.0, 1.0)), (SCALE, (2.0, 2.0))):
        with pytest.raises(ValueError, match="must be"):
            FramesWriter(run, K, SIZE, scale, depth_range)
    writer = FramesWriter(run, K, SIZE, SCALE, RANGE)
    view, T_wc, before, after = frame(0)
    with pytest.raises(ValueError, match="size"):
        writer.add(view, T_wc, before, after.subsampled(2))
    writer.add(view, T_wc, before, after)
    with pytest.raises(ValueError, match="not later"):
        writer.add(view, T_wc, before, after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("K"), "K has no default"),
        (lambda x: x.update(K=[[1.0]]), "K must be 3x3"),
        (lambda x: x["frames"][1].update(T_wc=[[1.0]]), "T_wc must be 4x4"),
        (lambda x: x["frames"][1].update(depth="none.png"), "cannot read the image"),
        (lambda x: x["frames"][1].update(depth=x["frames"][1]["confidence"]), "no depth image"),
        (lambda x: x.update(width=64), "another size"),
    ],
)
def test_damage_is_named(tmp_path, change, message):
    run = write(tmp_path / "run", 2)
    listing = run.path / "frames/frames.json"
    values = json.loads(listing.read_text())
    change(values)
    listing.write_text(json.dumps(values))
    with pytest.raises(SourceError, match=message):
        Frames(run.path).depth(Frames(run.path).records[1])


def shown(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames (H, W, 3) RGB of a video, and its frames a second."""
    video, images = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        images.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB).astype(int))
    return images, video.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize("count", [1, 5, 20])  # fewer and more than wait for the frame rate
def test_the_preview_has_one_range_of_colours(tmp_path, count):
    run = write(tmp_path / "run", count)
    assert [path.name for path in run.path.iterdir() if path.is_file()] == ["preview.mp4"]
    images, fps = shown(run.path / "preview.mp4")
    assert len(images) == count and {image.shape for image in images} == {(48, 190, 3)}  # 3 * 63, made even
    assert fps == (25.0 if count > 1 else 1.0)
    colour, stereo, unrefined = slice(8, 55), slice(70, 118), slice(130, 142)  # off the seams; rows above the words
    expected = depth_colors(np.full((1, 1), 0.25), RANGE)[0, 0].astype(int)
    for image in (images[0], images[-1]):
        top = image[4:28]
        assert np.abs(top[:, colour].mean((0, 1)) - (200, 40, 90)).max() < 8  # red and blue exchanged would be 110
        for part in (stereo, unrefined):  # depth 4, though the depth beside it changes
            assert np.abs(top[:, part].mean((0, 1)) - expected).max() < 8
        assert top[:, 174:186].mean() < 8  # unknown is black
    for panel in range(3):
        whiteness = images[0][:, 63 * panel : 63 * panel + 60].min(axis=2)
        assert whiteness[34:].max() > whiteness[4:28].max() + 40  # words are below


def test_colours_of_depth():
    """Logarithmic: 2 of 1..4 is the middle; outside the range the ends; near is red and far is blue."""
    d = np.array([[1 / 1.0, 1 / 2.0, 1 / 4.0, 1 / 400.0, 1 / 0.01, 0.0]])
    near, middle, far, beyond, nearer, unknown = depth_colors(d, (1.0, 4.0))[0].astype(int)
    turbo = cv2.applyColorMap(np.array([[0, 128, 255]], np.uint8), cv2.COLORMAP_TURBO)[0, :, ::-1]
    assert [far.tolist(), middle.tolist(), near.tolist()] == turbo.tolist()
    assert (beyond == far).all() and (nearer == near).all() and not unknown.any()
    assert near[0] > near[2] and far[2] > far[0]


def test_the_frame_rate_is_that_of_the_median_interval():
    assert frame_rate([0, 10**8, 2 * 10**8, 9 * 10**9]) == pytest.approx(10.0)
    assert frame_rate([0, 10**6]) == 60.0 and frame_rate([0, 10**10]) == 1.0 and frame_rate([5]) == 1.0


def test_no_codec_is_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("slam.io.preview.CODEC", "none")
    monkeypatch.setattr("slam.io.preview.PART", ".part.preview.unknown")
    run = write(tmp_path / "run", 20)
    assert run.missing == {} and len(Frames(run.path).records) == 20
    assert [path.name for path in run.path.iterdir()] == ["frames"]
    assert [r.getMessage()[:14] for r in caplog.records if r.levelno >= logging.WARNING] == ["no preview.mp4"]


def test_a_video_that_the_disk_refused_is_noted(tmp_path):
    """The system stops a process at 8192 bytes a file, and OpenCV does not say so."""
    pytest.importorskip("resource", reason="this system has no file size limits")
    program = (
        "import json, resource, sys; import numpy as np; import torch; from pathlib import Path\n"
        "from slam.frames import Image, View; from slam.inv_depth import InvDepth\n"
        "from slam.io.refined import FramesWriter; from slam.io.run_directory import RunDirectory\n"
        "run = RunDirectory(Path(sys.argv[1])); K, T = torch.eye(3), torch.eye(4)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "d = InvDepth(torch.ones(96, 128), torch.ones(96, 128))\n"
        "noise = np.random.default_rng(0).integers(0, 255, (4, 96, 128, 3), dtype=np.uint8)\n"
        "with FramesWriter(run, K, (96, 128), 5000.0, (1.0, 2.0)) as writer:\n"
        "    for n, image in enumerate(noise): writer.add(View(n, n, Image(image), K), T, d, d)\n"
        "print(json.dumps(run.missing))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")], check=True, capture_output=True, text=True
    )
    missing = json.loads(done.stdout)
    assert list(missing) == ["preview.mp4"] and "of 4 frames" in missing["preview.mp4"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["frames"]
    assert len(Frames(tmp_path / "run").records) == 4
