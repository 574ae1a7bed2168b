"""Lists of images as others write them, folders as systems leave them, faults told once."""

import logging
from pathlib import Path

import pytest

from slam.errors import SourceError, UsageError
from slam.sources import SourceSpec, detect, open_source
from slam.sources.image_lists import read_image_list
from slam.sources.images import ImageFolderSource
from slam.sources.tum import TumSource

NS = [1551915398600000000, 1551915398650000000]
NAMES = ["a b.png", "c,d.png"]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture
def folder(tmp_path, scenes) -> Path:
    for n, name in enumerate(NAMES):
        scenes.save(tmp_path / "rgb" / name, scenes.image(n))
        scenes.save(tmp_path / "depth" / name, scenes.image(n))
    return tmp_path


@pytest.mark.parametrize(
    "lines",
    [
        "1551915398.6 rgb/{0}\n1551915398.65 rgb/{1}\n",
        "1551915398600000000\trgb/{0}\n1551915398650000000\trgb/{1}\n",
        "1551915398600,rgb/{0}\r\n1551915398650,rgb/{1}\r\n",
        "timestamp filename\n1551915398.6 'rgb/{0}'\n1551915398.65 'rgb/{1}'\n",
        '"timestamp","file","exposure"\n"1551915398.6","rgb/{0}",7\n"1551915398.65","rgb/{1}",7\n',
        "1551915398.65 rgb\\{1}\n1551915398.6 rgb\\{0}\n",
        "1551915398.6 C:\\data set\\rgb\\{0}\n1551915398.65 C:\\data set\\rgb\\{1}\n",
        "1551915398.6 /home/other/desk/rgb/{0}\n1551915398.65 /home/other/desk/rgb/{1}\n",
        "1551915398.6 {0}\n1551915398.65 {1}\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_one_list_in_many_hands(folder, lines: str, encoding: str):
    (folder / "rgb.txt").write_bytes(lines.format(*NAMES).encode(encoding))
    assert read_image_list(folder / "rgb.txt", folder) == list(zip(NS, [folder / "rgb" / name for name in NAMES]))


def test_files_of_another_computer_are_told_once(folder, caplog):
    caplog.set_level(logging.INFO)
    (folder / "rgb.txt").write_text("".join(f"{n}.5 D:\\x\\rgb\\{name}\n" for n, name in enumerate(NAMES)))
    read_image_list(folder / "rgb.txt", folder)
    assert [r.getMessage().partition("rgb.txt")[2] for r in caplog.records] == [
        ": 2 of 2 files are not where it says (first: D:\\x\\rgb\\a b.png); found by their names"
    ]


def test_a_name_that_could_be_two_files_is_neither(folder, scenes):
    scenes.save(folder / "left/x.png", scenes.image(0))
    scenes.save(folder / "right/x.png", scenes.image(1))
    (folder / "rgb.txt").write_text("1.5 /elsewhere/x.png\n")
    assert read_image_list(folder / "rgb.txt", folder)[0][1] == Path("/elsewhere/x.png")


def test_missing_files_are_one_warning(tmp_path, scenes, caplog):
    path = scenes.tum_folder(tmp_path / "s", [f"{n}.5" for n in range(40)])
    for n in range(5, 35):
        (path / f"rgb/{n}.5.png").unlink()
    source = TumSource(path)
    assert len(list(source)) == 10 and source.skipped == 30
    (told,) = warnings_of(caplog)
    assert told.startswith("30 of 40 images of") and "5.5.png: No such file" in told


def test_many_damaged_images_are_a_handful_of_lines(tmp_path, scenes, caplog):
    path = scenes.image_folder(tmp_path / "s", [f"{n}.png" for n in range(50)])
    for n in range(10, 50):
        (path / f"{n}.png").write_bytes(b"junk" * (n % 3 > 0))
    source = ImageFolderSource(path)
    assert len(list(source)) == 10 and source.skipped == 40
    told = [line for line in warnings_of(caplog) if "guessing" not in line]
    damaged = "27 times in all: skipped a frame: cannot read the image: it is damaged"
    assert len(told) == 4 and sum(line.startswith(damaged) for line in told) == 1
    assert "13 times in all: skipped a frame: cannot read the image: it is empty" in told


def test_the_size_of_most_is_used_and_the_others_counted(tmp_path, scenes, caplog):
    """The first is a thumbnail."""
    path = scenes.image_folder(tmp_path / "s", [f"{n}.png" for n in range(20)])
    for n in (0, 7, 9):
        scenes.save(path / f"{n}.png", scenes.image(n, 16, 12))
    source = ImageFolderSource(path)
    assert (source.camera.width, source.camera.height) == (32, 24)
    assert len(list(source)) == 17 and source.skipped == 3
    told = warnings_of(caplog)
    assert any("of 5 looked at, 1 is 16x12, 4 are 32x24; those of 32x24 are used" in line for line in told)
    assert told[-1] == "3 times in all: skipped a frame: is 16x12, the sequence 32x24"


def test_counters_in_rgb_are_no_seconds(tmp_path, scenes, caplog):
    for n in range(4):
        scenes.save(tmp_path / f"s/rgb/{9 + n}.png", scenes.image(n))
        scenes.save(tmp_path / f"s/depth/{9 + n:06d}.png", scenes.image(n)[..., 0].astype("uint16") + 5000)
    assert detect(tmp_path / "s") == "tum"
    source = open_source(SourceSpec(str(tmp_path / "s"), fps=10.0, with_depth=True))
    frames = list(source)
    assert [frame.time_ns for frame in frames] == [0, 10**8, 2 * 10**8, 3 * 10**8]
    assert [scenes.number_of(frame.image) for frame in frames] == [0, 1, 2, 3]
    assert [round(5000 * frame.depth[0, 0]) for frame in frames] == [5000, 5005, 5010, 5015]
    assert [frame.time_ns for frame in open_source(SourceSpec(str(tmp_path / "s")))][1] == 33333333


def test_a_rate_is_refused_where_rgb_has_stamps(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", ["1.5", "2.5"])
    (path / "rgb.txt").unlink()
    with pytest.raises(UsageError, match=r"--fps is for images and videos; .*s \(tum\) has its own time stamps"):
        open_source(SourceSpec(str(path), fps=5.0))


def test_stamps_of_images_are_kept_unless_a_rate_is_given(tmp_path, scenes):
    path = scenes.image_folder(tmp_path / "s", [f"{ns}.png" for ns in NS])
    assert [frame.time_ns for frame in ImageFolderSource(path)] == NS
    assert [frame.time_ns for frame in ImageFolderSource(path, fps=10.0)] == [0, 10**8]


def test_leftovers_of_systems_are_not_there(tmp_path, scenes):
    path = scenes.tum_folder(tmp_path / "s", ["1.5", "2.5"])
    (path / "rgb.txt").unlink()
    for name in ("._1.5.png", "._2.5.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (path / "rgb" / name).write_bytes(b"junk")
    (path / "rgb/__MACOSX").mkdir()
    assert [frame.time_ns for frame in TumSource(path)] == [1500000000, 2500000000]
    assert ImageFolderSource(path / "rgb").count == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "IMG_0001.HEIC",
            r"1 images \(.heic\) of a kind that is not read; .*mogrify -format jpg \*.heic, or pillow-heif",
        ),
        ("a.avif", r"\(.avif\) .*magick mogrify -format jpg \*.avif"),
        ("DSC0001.NEF", r"\(.nef\) .*develop them first: darktable-cli"),
        ("a.gif", r"\(.gif\) .*give an animation to --video"),
    ],
)
def test_images_that_are_not_read_have_a_remedy(tmp_path, scenes, caplog, name: str, message: str):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=message):
        ImageFolderSource(tmp_path)
    scenes.save(tmp_path / "a.png", scenes.image(0))
    assert ImageFolderSource(tmp_path).count == 1
    assert sum("are left out" in line for line in warnings_of(caplog)) == 1
