"""Which images of a mixed folder are the camera's: depth, masks and thumbnails are never tracked."""

import logging

import numpy as np
import pytest

from slam.errors import SourceError
from slam.sources import SourceSpec, open_source, resolved
from slam.sources.images import ImageFolderSource

COUNT = 6
DEPTH = np.full((24, 32), 1500, np.uint16)
GRAY = np.full((24, 32), 90, np.uint8)


@pytest.fixture
def fill(scenes, tmp_path):
    """Writes images by pattern: `frame{n}.jpg` with colour, depth, a mask or a small image."""

    def write(**kinds: str):
        for what, pattern in kinds.items():
            for n in range(COUNT):
                pixels = {"depth": DEPTH, "mask": GRAY, "gray": GRAY, "small": scenes.image(n, 8, 6)}
                scenes.save(tmp_path / pattern.format(n=n, n6=f"{n:06d}"), pixels.get(what, scenes.image(n)))
        return tmp_path

    return write


def names(source: ImageFolderSource, scenes) -> list[int]:
    return [scenes.number_of(frame.image) for frame in source]


@pytest.mark.parametrize(
    "kinds",
    [
        {"color": "frame{n6}.png", "depth": "depth{n6}.png"},
        {"depth": "a_{n6}.png", "color": "b_{n6}.png"},
        {"color": "{n}.png", "mask": "{n}_mask.png"},
        {"color": "{n}.jpg", "mask": "{n}.png"},
        {"color": "{n}.png", "small": "{n}_small.png"},
        {"color": "img_{n}.png", "colored_mask": "seg_{n}.png"},
        {"color": "frame-{n6}.color.png", "depth": "frame-{n6}.depth.png", "mask": "frame-{n6}.label.png"},
        {"color": "1551915398.{n}333.png", "depth": "depth_1551915398.{n}401.png"},
    ],
    ids=lambda kinds: " ".join(kinds.values()),
)
def test_the_camera_is_told_from_the_rest(fill, scenes, caplog, kinds):
    caplog.set_level(logging.INFO)
    source = ImageFolderSource(fill(**kinds))
    assert names(source, scenes) == list(range(COUNT))
    assert [r.levelname for r in caplog.records if "used are" in r.message] == ["INFO"]


@pytest.mark.parametrize(
    ("left", "right"),
    [("left_{n}.png", "right_{n}.png"), ("cam0_{n}.png", "cam1_{n}.png"), ("l_10.{n}333.png", "r_10.{n}401.png")],
)
def test_two_cameras_are_refused_and_a_pattern_chooses(fill, scenes, left, right):
    folder = fill(color=left, other_color=right)
    with pytest.raises(SourceError, match=r"2 kinds of images .*\(6, 8-bit colour 32x24\).*choose with --images '.*'"):
        ImageFolderSource(folder)
    chosen = left.replace("{n}", "*")
    source = open_source(SourceSpec(str(folder / chosen), kind="images", hfov_deg=60))
    assert names(source, scenes) == list(range(COUNT))
    with pytest.raises(SourceError, match=r"no image of .* fits up\*\.png"):
        ImageFolderSource(folder / "up*.png")


def test_depth_alone_is_refused_also_by_a_pattern(fill, scenes):
    folder = fill(depth="depth/{n}.png")
    for path in (folder / "depth", folder / "depth" / "*.png"):
        with pytest.raises(SourceError, match=r"holds depth images: #.png \(6, 16-bit gray 32x24\).*cannot be tracked"):
            ImageFolderSource(path)
    fill(depth="z/{n}.png", color="rgb/{n}.png")
    with pytest.raises(SourceError, match=r"cannot be tracked, name .*rgb"):
        ImageFolderSource(folder / "z")


def test_a_gray_camera_of_16_bits_is_a_camera(fill):
    assert len(list(ImageFolderSource(fill(depth="cam/{n}.png") / "cam"))) == COUNT


@pytest.mark.parametrize("second", [("{s}-{f:03d}", 38), ("{s}_{f:03d}000000", 1551915398)])
def test_a_second_that_repeats_is_no_camera(tmp_path, scenes, second):
    """Two seconds of ten images each: the same parts of a second under two numbers."""
    form, first = second
    date = "2019-03-06_23-36-" if first < 60 else ""
    for n in range(20):
        name = date + form.format(s=first + n // 10, f=100 * (n % 10))
        scenes.save(tmp_path / f"{name}.png", scenes.image(n))
    source = ImageFolderSource(tmp_path)
    assert names(source, scenes) == list(range(20))
    assert [f.time_ns - 10**8 * n for n, f in enumerate(source)] == 20 * [next(iter(source)).time_ns]


def test_one_series_in_several_formats_stays_one(scenes, tmp_path):
    for n, suffix in enumerate(("png", "jpg", "png", "bmp")):
        scenes.save(tmp_path / f"img{n}.{suffix}", scenes.image(n))
    assert names(ImageFolderSource(tmp_path), scenes) == [0, 1, 2, 3]


def test_a_cover_beside_the_frames_is_left_out(fill, scenes):
    folder = fill(color="{n6}.png")
    for n in range(COUNT, 11):
        scenes.save(folder / f"{n:06d}.png", scenes.image(n))
    scenes.save(folder / "cover.png", scenes.image(0, 64, 64))
    assert names(ImageFolderSource(folder), scenes) == list(range(11))


def test_folders_beside_each_other(fill, scenes):
    """Colour beside depth is found from the folder above; of two cameras the folders are listed."""
    folder = fill(color="a/color/{n}.png", depth="a/depth_png/{n}.png", left="b/left/{n}.png", right="b/right/{n}.png")
    found = resolved(SourceSpec(str(folder / "a")))
    assert (found.path, found.kind) == (str(folder / "a/color"), "images")
    with pytest.raises(SourceError, match=r"holds 2 recordings; name one of them: .*b/left \(images\), .*b/right"):
        resolved(SourceSpec(str(folder / "b")))
