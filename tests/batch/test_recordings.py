"""Which recordings a folder holds and a list names, and what they are called."""

import os
from pathlib import Path

import pytest

from slam.batch.recordings import find_sources, key_of, name_recordings
from slam.errors import SourceError


def names(sources: list[str], known: dict[str, str] | None = None, reserved: tuple[str, ...] = ()) -> list[str]:
    return [recording.name for recording in name_recordings(sources, known or {}, reserved)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Videos, bags, folders of images, a recording in TUM layout, results, and what is none of these."""
    files = (
        "b.mp4 notes.md deep/er/a.MOV deep/er/.hidden.mp4 bag.mcap walk10/1.jpg walk10/2.jpg walk9/1.jpg walk9/2.jpg"
    )
    files += " one/image.png tum/rgb.txt tum/rgb/1.png tum/rgb/2.png results/run.json results/preview.mp4"
    files += " pair/color/1.jpg pair/color/2.jpg pair/mask/1.png pair/mask/2.png out/x/run.json out/batch/video.mp4"
    for file in files.split():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    (tmp_path / "tum" / "rgb.txt").write_text("1.0 rgb/1.png\n2.0 rgb/2.png\n")
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe.mp4")
    return tmp_path


def test_a_folder_is_searched(folder):
    found = [str(Path(source).relative_to(folder)) for source in find_sources([str(folder)], folder / "out")]
    assert found == ["b.mp4", "bag.mcap", "deep/er/a.MOV", "pair", "tum", "walk9", "walk10"]


def test_a_list_names_what_it_likes(folder):
    file = folder / "list.txt"
    file.write_text("# mine\n\nb.mp4\nmissing.mp4\n/abs/x.bag\nhttps://host/v.mp4?t=1\ntum/fr1_desk\nb.mp4\n")
    here = [str(folder / name) for name in ("b.mp4", "missing.mp4")]
    wanted = [*here, "/abs/x.bag", "https://host/v.mp4?t=1", "tum/fr1_desk"]
    assert find_sources([str(file), str(folder / "b.mp4")], folder / "out") == wanted


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("missing", "missing is no folder, no list"),
        ("empty", "no recording in .*empty: no video"),
        ("empty.txt", "empty.txt names no recording: it must have a recording on each line"),
        ("missing.txt", "no list of recordings at .*missing.txt"),
    ],
)
def test_a_word_that_means_nothing_is_refused(tmp_path, word, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(SourceError, match=message):
        find_sources([str(tmp_path / word)], tmp_path / "out")


def test_names_are_those_of_the_recordings_with_their_folder_where_needed(folder):
    assert names(["/data/walk.mp4", str(folder / "walk10"), "https://h/a/desk%201.mp4?x=1"]) == [
        "walk",
        "walk10",
        "desk_201",
    ]
    assert names(["/data/a/rgb.mp4", "/data/b/rgb.mp4", "/c.mp4"]) == ["a_rgb", "b_rgb", "c"]
    same = names(["/1/a/rgb.mp4", "/2/a/rgb.mp4", "/2/a/RGB.avi"])
    assert same[0] == "a_rgb" and len({name.casefold() for name in same}) == 3
    assert names(["/x/batch.mp4", "/x/ä b!.mp4"], reserved=("batch",)) == ["x_batch", "ä_b"]


def test_names_stay_when_others_come(folder):
    first = name_recordings(["/a/rgb.mp4"], {}, ())
    known = {key_of(recording.source): recording.name for recording in first}
    assert names(["/b/rgb.mp4", "/a/rgb.mp4"], known) == ["b_rgb", "rgb"]
