"""Folders of images: natural order, stamps by rate, and what is refused."""

from pathlib import Path

import pytest

from slam.errors import SourceError, UsageError
from slam.geometry.camera import Camera
from slam.sources.images import ImageFolderSource
from slam.sources.sequence import FrameWindow


def test_natural_order_and_every_format(tmp_path, scenes):
    names = ["img2.png", "img10.png", "img9.PNG", "img1.bmp", "img11.tif", "img3.webp", "img4.jpg", "img5.jpeg"]
    path = scenes.image_folder(tmp_path / "s", names)
    (path / "notes.txt").write_text("not an image")
    (path / "._img1.png").write_bytes(b"what macOS leaves behind")
    source = ImageFolderSource(path)
    assert [scenes.number_of(frame.image) for frame in source] == [3, 0, 5, 6, 7, 2, 1, 4]
    assert source.skipped == 0


def test_stamps_by_rate_count_frames_of_the_folder(tmp_path, scenes):
    path = scenes.image_folder(tmp_path / "s", [f"{n}.png" for n in range(7)])
    times = [frame.time_ns for frame in ImageFolderSource(path, FrameWindow(1, 3), fps=29.97)]
    assert times == [round(n * 1e9 / 29.97) for n in (1, 4)]
    assert next(iter(ImageFolderSource(path, FrameWindow(3)))).time_ns == 100000000  # 30 frames per second


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), 1e6])
def test_senseless_rates(tmp_path, fps: float):
    with pytest.raises(UsageError, match=r"--fps must be above 0 and at most 1000"):
        ImageFolderSource(tmp_path, fps=fps)


def test_calibration_in_the_folder(tmp_path, scenes):
    path = scenes.image_folder(tmp_path / "s", ["a.png"])
    (path / "calibration.yaml").write_text("width: 32\nheight: 24\ncalibration: [30, 31, 15.5, 11.5]\n")
    assert ImageFolderSource(path).camera == Camera(32, 24, 30, 31, 15.5, 11.5)


def test_guess_for_an_upright_image_is_along_its_height(tmp_path, scenes, caplog):
    scenes.save(tmp_path / "a.png", scenes.image(0, 24, 32))
    camera = ImageFolderSource(tmp_path).camera
    assert (camera.width, camera.height, camera.cx, camera.cy) == (24, 32, 11.5, 15.5)
    assert camera.fx == pytest.approx(16 * 3**0.5)
    assert "guessing a lens" in caplog.text


def test_what_is_no_folder_of_images(tmp_path):
    with pytest.raises(SourceError, match=r"no folder at .*nowhere"):
        ImageFolderSource(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"has no images .*: it is empty"):
        ImageFolderSource(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(SourceError, match=r"has no images \(.bmp, .*\): it holds a.txt"):
        ImageFolderSource(tmp_path)
    with pytest.raises(SourceError, match=r"a.txt is a file, not a folder"):
        ImageFolderSource(tmp_path / "a.txt")
    with pytest.raises(SourceError, match=r"not from the web; for a video on the web use --video"):
        ImageFolderSource(Path("https://example.org/a.mp4"))


def test_no_readable_image(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(SourceError, match=r"none of the 2 images of .* can be read; first: .*a.png: it is damaged"):
        ImageFolderSource(tmp_path)


def test_first_image_corrupt_the_rest_fine(tmp_path, scenes, caplog):
    path = scenes.image_folder(tmp_path / "s", ["a.png", "b.png", "c.jpg"])
    (path / "a.png").write_bytes((path / "a.png").read_bytes()[:60])
    source = ImageFolderSource(path)
    frames = list(source)
    assert [frame.id for frame in frames] == [0, 1] and [frame.time_ns for frame in frames] == [33333333, 66666667]
    assert source.skipped == 1 and "skipped a frame: cannot read the image" in caplog.text
