"""The unit of depth images: said by the user or by a file, else doubted where no room looks like that."""

import numpy as np
import pytest

from apps.run import main
from slam.errors import SourceError, UsageError
from slam.io.run import Run
from slam.sources import SourceSpec, open_source, resolved
from slam.sources.depth_format import DepthFormat, read_npy
from slam.sources.reopen import recorded_spec, reopened
from slam.sources.tum import TumSource

STAMPS = ["1.0", "2.0", "3.0"]


@pytest.fixture
def room(scenes, tmp_path):
    """A recording in TUM layout of walls 1 m to 4 m away, with so many units to the metre."""

    def write(scale: float):
        path = scenes.tum_folder(tmp_path / f"room{scale:g}", STAMPS)
        scenes.add_depth(path, STAMPS)
        for stamp in STAMPS:
            depth = np.linspace(1, 4, scenes.HEIGHT * scenes.WIDTH).reshape(scenes.HEIGHT, scenes.WIDTH)
            scenes.save(path / f"depth/{stamp}.png", np.rint(depth * scale).astype(np.uint16))
        return path

    return write


def test_millimetres_read_as_five_thousandths_are_doubted_once(room, caplog):
    list(TumSource(room(1000), with_depth=True))
    words = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(words) == 1 and "has a median of 0.5 m when 5000 is one metre; with 1000 it would be 2.5 m" in words[0]
    assert "--depth-scale" in words[0]


@pytest.mark.parametrize("scale", [5000, 1000])
def test_a_scale_that_is_said_is_taken_and_not_doubted(room, caplog, scale):
    frame = next(iter(TumSource(room(scale), with_depth=True, depth_scale=scale)))
    assert np.median(frame.depth) == pytest.approx(2.5, abs=0.01)
    assert caplog.text == ""


def test_a_scale_against_the_recordings_own_is_told(room, caplog):
    path = room(1000)
    (path / "calibration.yaml").write_text((path / "calibration.yaml").read_text() + "depth_scale: 1000\n")
    frame = next(iter(TumSource(path, with_depth=True, depth_scale=500)))
    assert np.median(frame.depth) == pytest.approx(5.0, abs=0.02)
    assert [r.message for r in caplog.records] == [f"--depth-scale 500 is used, though {path} has 1000 to the metre"]


@pytest.mark.parametrize("scale", [2, 5])
def test_a_scale_that_is_said_and_cannot_be_is_doubted(room, caplog, scale):
    list(TumSource(room(5000), with_depth=True, depth_scale=scale))
    assert [r.message.split("has a median of ")[1] for r in caplog.records] == [
        f"{2.5 * 5000 / scale:.2g} m at {scale:g} to the metre: is that right?"
    ]


@pytest.mark.parametrize("scale", [0.001, 1e7, float("inf"), -5])
def test_a_scale_that_nobody_has_is_refused_at_the_start(room, scale):
    with pytest.raises(UsageError, match=r"--depth-scale is the value of one metre, from 1 .* got"):
        TumSource(room(5000), with_depth=True, depth_scale=scale)


def test_a_scale_that_makes_no_depth_of_a_sensor_is_refused_at_the_start(room, scenes):
    path = room(5000)
    with pytest.raises(SourceError, match=r"a median of 1\.2e\+04 m at 1 to the metre, no sensor's is below 0.001"):
        TumSource(path, with_depth=True, depth_scale=1)
    for stamp in STAMPS:
        scenes.save(path / f"depth/{stamp}.png", np.full((scenes.HEIGHT, scenes.WIDTH), 60, np.uint16))
    with pytest.raises(SourceError, match=r"a median of 6e-05 m at 1e\+06 to the metre"):
        TumSource(path, with_depth=True, depth_scale=1e6)


@pytest.mark.parametrize(
    ("scale", "hint"), [("0.001", r"\(0.001 metres to a value are 1000"), ("1000000000", ""), ("-3", "")]
)
def test_a_scale_of_a_file_that_nobody_has_is_refused(room, scale, hint):
    """Another would be used in its place without a word."""
    path = room(1000)
    (path / "config.yaml").write_text(f"cam:\n  png_depth_scale: {scale}\n")
    with pytest.raises(SourceError, match=rf"config\.yaml: a depth scale is the value of one metre, from 1 .*{hint}"):
        TumSource(path, with_depth=True)


def test_depth_as_it_should_be_is_not_doubted(room, caplog):
    list(TumSource(room(5000), with_depth=True))
    assert caplog.text == ""


def test_a_hall_of_kilometres_is_doubted(room, scenes, caplog):
    path = room(5000)
    list(TumSource(path, with_depth=True, depth_scale=100))
    assert caplog.text == ""  # said
    for stamp in STAMPS:
        scenes.save(path / f"depth/{stamp}.png", np.full((scenes.HEIGHT, scenes.WIDTH), 60000, np.uint16))
    list(TumSource(path, with_depth=True))
    assert "a median of 12 m when 5000 is one metre" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cam_params.json", '{"camera": {"w": 32, "h": 24, "scale": 1000.0}}'),
        ("camera.yaml", "%YAML:1.0\nDepthMapFactor: 1000.0\n"),
        ("calibration.yaml", "width: 32\nheight: 24\ncalibration: [30, 31, 15.5, 11.5]\ndepth_scale: 1000\n"),
        ("config.yaml", "cam:\n  png_depth_scale: 1000\n"),
    ],
)
def test_a_file_of_the_recording_says_it(room, caplog, name, text):
    path = room(1000)
    (path / name).write_text(text)
    frame = next(iter(TumSource(path, with_depth=True)))
    assert np.median(frame.depth) == pytest.approx(2.5, abs=0.01) and caplog.text == ""


def test_a_scale_for_no_depth_is_refused(room, scenes, tmp_path):
    path = room(1000)
    images = scenes.image_folder(tmp_path / "images", ["a.png"])
    for spec, message in (
        (SourceSpec(str(path), depth_scale=1000), r"--depth-scale 1000 is for recordings whose depth is used"),
        (SourceSpec(str(images), "images", depth_scale=1000), r"--depth-scale 1000 is for"),
        (
            SourceSpec(str(path), with_depth=True, depth_scale=0),
            r"--depth-scale is the value of one metre, from 1 ",
        ),
        (SourceSpec(str(path), with_depth=True, depth_scale=float("nan")), r"to 1000000, got nan"),
    ):
        with pytest.raises(UsageError, match=message):
            open_source(spec)


def test_the_scale_is_kept_for_those_who_open_the_frames_again(room):
    spec = resolved(SourceSpec(str(room(1000)), with_depth=True, depth_scale=1000.0))
    source = open_source(spec)
    again = next(iter(reopened(recorded_spec("room", spec, source))))
    assert np.array_equal(again.depth, next(iter(source)).depth)


def test_run_json_says_it(recording, tmp_path, capsys):
    """The rendered room is 5000 to the metre: read as 2500, everything is twice as far, also in the run's metres."""
    options = ["--use-depth", "on", "--depth-scale", "2500", "--max-frames", "12", "--set", "pixels=19200", "--quiet"]
    assert main(["--sequence", str(recording), "--out", str(tmp_path / "run"), "--deterministic", *options]) == 0
    run = Run(tmp_path / "run")
    assert run.record().source.depth_scale == 2500
    truth = np.linalg.norm(np.diff(np.loadtxt(recording / "groundtruth.txt")[:12, 1:4], axis=0), axis=1).sum()
    estimate = np.linalg.norm(np.diff(run.trajectory().T_wc[:, :3, 3], axis=0), axis=1).sum()
    assert estimate / truth == pytest.approx(2, rel=0.1)
    assert main(["--demo", "--depth-scale", "1000"]) == 2
    assert "--depth-scale 1000.0 is for recordings, not for --demo" in capsys.readouterr().err


@pytest.mark.parametrize("header", [b"{'descr': ;72, 96), }", b"('" * 50, b"\xff" * 40, b"0x" + b"9" * 20000])
def test_an_array_with_a_damaged_header_is_refused(tmp_path, header):
    file = tmp_path / "depth.npy"
    file.write_bytes(b"\x93NUMPY\x01\x00" + min(len(header), 9000).to_bytes(2, "little") + header)
    with pytest.raises(SourceError, match="cannot read the depth"):
        read_npy(file, DepthFormat(1.0))
