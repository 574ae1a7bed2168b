"""v2d-slam says in one line what is wrong with a list, a folder or an archive, and what to do."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.run import main


def archive(path: Path) -> None:
    with zipfile.ZipFile(path / "a.mp4", "w") as file:
        file.write(path / "rgb/1.5.png", "1.png")


def nothing(_: Path) -> None:
    """The recording as it is."""


def spoilt(name: str, data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)

    return write


@pytest.mark.parametrize(
    ("change", "arguments", "code", "message"),
    [
        (archive, ["--video", "{s}/a.mp4"], 1, "is no video but an archive (ZIP); for images or a data set in it use"),
        (nothing, ["--video", "{s}/rgb/1.5.png"], 1, "is one image, not a video; give its folder to --images"),
        (nothing, ["--sequence", "{s}/rgb/1.5.png"], 1, "is one image; name its folder"),
        (spoilt("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50)), ["--images", "{s}/a.7z"], 1, "unpack it: 7z x '"),
        (spoilt("a.rar", b"Rar!\x1a\x07\x01" + bytes(50)), ["--sequence", "{s}/a.rar"], 1, "unpack it: unrar x '"),
        (spoilt("a.zip", b"PK\x03\x04" + bytes(90)), ["--sequence", "{s}/a.zip"], 1, "a.zip is damaged"),
        (
            spoilt("h/1.heic", b"x"),
            ["--images", "{s}/h"],
            1,
            "1 images (.heic) of a kind that is not read; convert them",
        ),
        (spoilt("h.heic", b"x"), ["--sequence", "{s}/h.heic"], 1, "is one image, of a kind that is not read; convert"),
        (spoilt("h/1.dng", b"x"), ["--images", "{s}/h"], 1, "develop them first: darktable-cli"),
        (nothing, ["--sequence", "{s}", "--fps", "5"], 2, "(tum) has its own time stamps"),
        (
            spoilt("rgb.txt", b"\xff\xd8\x00\xd8\x07"),
            ["--sequence", "{s}"],
            1,
            "rgb.txt is not a list of images: it is not",
        ),
        (spoilt("rgb.txt", b"1.5 rgb/1.5.png\nx y\n"), ["--sequence", "{s}"], 1, "rgb.txt, line 2: 'x' is no time"),
        (spoilt("rgb.txt", b"1.5 gone.png\n2.5 a.png\n"), ["--sequence", "{s}"], 1, "none of the 2 images of"),
        (spoilt("calibration.yaml", b"&a [*a, *a]"), ["--sequence", "{s}"], 1, "nested too deeply"),
        (spoilt("calibration.yaml", b"{" * 9999), ["--sequence", "{s}"], 1, "nested too deeply"),
    ],
)
def test_one_line_and_its_exit_code(tmp_path, scenes, capsys, monkeypatch, change, arguments, code, message):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = scenes.tum_folder(tmp_path / "s", ["1.5", "2.5"])
    change(path)
    arguments = [argument.replace("{s}", str(path)) for argument in arguments]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == code
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1 and message in output.err, output.err
    assert not (tmp_path / "run").exists()
