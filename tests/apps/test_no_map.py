"""Why a run never starts: the reason and the remedy in one line, each on a recording that was made so."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from apps.run import main
from slam.io.images import read_depth
from slam.io.run import Run
from slam.sources.reopen import reopened

SMALL = ["--set", "pixels=19200", "--deterministic", "--quiet"]  # 160x120


@pytest.fixture(scope="module")
def walk(rendered) -> list[np.ndarray]:
    """75 images (120, 160, 3)."""
    return [frame.image for frame in rendered.frames]


def turned(images: list[np.ndarray]) -> list[np.ndarray]:
    """What a camera sees that only turns, by a fifth of a degree each time: the first image moved sideways.

    A few degrees: farther the prior makes a map of it.
    """
    K = np.array([[133.0, 0, 79.5], [0, 133, 59.5], [0, 0, 1]])
    out = []
    for n in range(20):
        a = np.radians(0.2 * n)
        R = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        out.append(cv2.warpPerspective(images[0], K @ R @ np.linalg.inv(K), (160, 120), borderMode=cv2.BORDER_REFLECT))
    return out


def noisy(value: float, count: int = 12, deviation: float = 1.5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        np.clip(value + deviation * rng.standard_normal((120, 160, 3)), 0, 255).astype(np.uint8) for _ in range(count)
    ]


def strangers(count: int) -> list[np.ndarray]:
    """Images that have nothing in common."""
    rng = np.random.default_rng(1)
    noise = [cv2.GaussianBlur(rng.standard_normal((120, 160, 3)).astype(np.float32), (0, 0), 3) for _ in range(count)]
    return [np.clip(128 + 300 * image, 0, 255).astype(np.uint8) for image in noise]


KINDS: dict[str, tuple[Callable[[list[np.ndarray]], list[np.ndarray]], str]] = {
    "one": (lambda walk: walk[:1], r"no map of the 1 frame of .*: 1 frame is too few"),
    "black": (lambda walk: noisy(3), r"nearly black \(median [234] of 255\): is the lens covered"),
    "white": (lambda walk: noisy(254, deviation=0.5), r"nearly white \(median 25[345] of 255\): lower the exposure"),
    "flat": (lambda walk: noisy(120), r"next to nothing to hold on to \(texture in 0\.\d %"),
    "frozen": (lambda walk: walk[:1] * 12, r"all images are the same"),
    "still": (
        lambda walk: [
            np.clip(walk[0] + np.random.default_rng(n).normal(0, 6, walk[0].shape), 0, 255).astype(np.uint8)
            for n in range(12)
        ],
        r"the camera stands still \(the image moved by 0\.\d px\)",
    ),
    "turned": (turned, r"the camera only turned \(by [2345] degrees, with [01]\.\d of 3 px of parallax\)"),
    "slides": (lambda walk: [image for image in strangers(4) for _ in range(6)], r"slides, or a recorded screen"),
    "strangers": (lambda walk: strangers(14), r"100 % of the frames have hardly anything in common"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_reason_is_said(kind, walk, tmp_path, capsys):
    make, expected = KINDS[kind]
    assert_no_map(make(walk), expected, tmp_path, capsys)


def test_a_lens_that_cannot_be_is_the_reason(walk, tmp_path, capsys):
    assert_no_map(walk[:20], "the lens is given as 5 degrees wide.*give --calib FILE", tmp_path, capsys, hfov="5")


def test_a_covered_lens_is_no_reason_once_there_is_light(walk, tmp_path, capsys):
    assert run([*noisy(3), *walk[:40]], tmp_path, "62") == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["frames_tracked"] >= 39


def test_a_mask_is_kept_with_the_run(walk, tmp_path, capsys):
    """The file of the user may go, and the run may be moved; depth is unknown where it hides the scene."""
    mask = np.full((60, 80), 255, np.uint8)
    mask[45:] = 0
    assert cv2.imwrite(str(tmp_path / "mask.png"), mask)
    assert run(walk[:40], tmp_path, "62", "--mask", str(tmp_path / "mask.png")) == 0
    (tmp_path / "mask.png").unlink()
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    frames = list(reopened(Run(moved).record().source))
    assert len(frames) == 40 and all(not f.mask[90:].any() and f.mask[:90].all() for f in frames)
    for file in sorted((moved / "keyframes").glob("*depth*.png")):
        depth = read_depth(file)
        assert not depth[90:].any() and (depth[:88] > 0).mean() > 0.5


def test_a_mask_of_another_shape_is_refused(walk, tmp_path, capsys):
    assert cv2.imwrite(str(tmp_path / "mask.png"), np.full((80, 80), 255, np.uint8))
    assert run(walk[:2], tmp_path, "62", "--mask", str(tmp_path / "mask.png")) == 2
    assert re.fullmatch(
        r"v2d-slam: the mask .*mask\.png is 80x80, the images are 160x120: .*\n", capsys.readouterr().err
    )


def assert_no_map(images: list[np.ndarray], expected: str, tmp_path: Path, capsys, hfov: str = "62") -> None:
    """A run of these ends without a map, with one line that says this."""
    assert run(images, tmp_path, hfov) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("v2d-slam: ")]
    assert len(lines) == 1 and re.search(expected, lines[0]), lines


def run(images: list[np.ndarray], tmp_path: Path, hfov: str, *options: str) -> int:
    """The exit code of a run of images, into `run`."""
    (tmp_path / "frames").mkdir()
    for n, image in enumerate(images):
        assert cv2.imwrite(str(tmp_path / "frames" / f"{n:03d}.png"), np.ascontiguousarray(image[..., ::-1]))
    source = ["--images", str(tmp_path / "frames"), "--hfov", hfov]
    return main([*source, "--out", str(tmp_path / "run"), *SMALL, *options])
