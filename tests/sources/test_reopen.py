"""The frames of a run can be opened again by what `run.json` says."""

import json
from dataclasses import replace

import numpy as np
import pytest

from apps.run import main
from slam.errors import SourceError
from slam.frontend.preparation import Preparation
from slam.geometry.camera import Camera
from slam.geometry.lens import FISHEYE, RADTAN
from slam.io.calibration import write_calibration
from slam.io.run import Run
from slam.io.run_record import SourceRecord
from slam.settings import build_config, dump_config
from slam.sources import DEMO, Source, SourceSpec, open_source, resolved
from slam.sources.reopen import CAMERA, recorded_spec, reopened


def through_json(record: SourceRecord) -> SourceRecord:
    return build_config(SourceRecord, json.loads(json.dumps(dump_config(record))))


def assert_same(source: Source, again: Source) -> None:
    frames, others = list(source), list(again)
    assert len(frames) == len(others) > 2 and source.camera == again.camera
    for a, b in zip(frames, others, strict=True):
        assert (a.id, a.time_ns) == (b.id, b.time_ns) and np.array_equal(a.image, b.image)
        assert (a.depth is None) == (b.depth is None) and (a.depth is None or np.array_equal(a.depth, b.depth))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start": 3, "stride": 2, "max_frames": 20, "with_depth": True},
        {"hfov_deg": 71.0, "max_frames": 5},
    ],
    ids=["whole", "a part with depth", "another lens"],
)
def test_a_folder_gives_the_same_frames_again(recording, tmp_path, monkeypatch, options):
    spec = resolved(SourceSpec(str(recording), **options))
    source = open_source(spec)
    record = recorded_spec("room", spec, source)
    monkeypatch.chdir(tmp_path)  # paths are absolute
    assert_same(source, reopened(through_json(record)))


def test_a_fisheye_keeps_its_lens_and_its_view(scenes, tmp_path):
    """What a run wrote before lenses had models is a radial-tangential one."""
    for n in range(4):
        scenes.save(tmp_path / f"{n}.png", scenes.image(n))
    fisheye = Camera(32, 24, 12.0, 12.0, 15.5, 11.5, (0.02, -0.004, 0.001, 0.0), FISHEYE)
    write_calibration(tmp_path / "calibration.yaml", fisheye)
    spec = SourceSpec(str(tmp_path), "images", undistort_hfov_deg=80.0)
    source = open_source(spec)
    assert source.camera == replace(fisheye, undistort_hfov_deg=80.0)
    record = recorded_spec("x", resolved(spec), source)
    assert_same(source, reopened(through_json(record)))
    old = dump_config(replace(record, camera=replace(fisheye, model=RADTAN)))
    del old["camera"]["model"], old["camera"]["undistort_hfov_deg"]
    assert build_config(SourceRecord, old).camera == replace(fisheye, model=RADTAN)


def test_images_and_videos_come_with_the_stamps_that_were_given(scenes, tmp_path):
    scenes.video(tmp_path / "a.avi", 12)
    (tmp_path / "images").mkdir()
    for n in range(4):
        scenes.save(tmp_path / f"images/{n}.png", scenes.image(n))
    for spec in (
        SourceSpec(str(tmp_path / "a.avi"), "video", fps=12.5, stride=3),
        SourceSpec(str(tmp_path / "images"), "images", fps=7.0, hfov_deg=50.0),
    ):
        source = open_source(spec)
        assert_same(source, reopened(through_json(recorded_spec("x", resolved(spec), source))))


def test_the_demo_is_rendered_again():
    spec = SourceSpec(DEMO, DEMO, max_frames=5, with_depth=True)
    source = open_source(spec)
    assert_same(source, reopened(through_json(recorded_spec(DEMO, resolved(spec), source))))


def test_frames_of_a_camera_that_was_not_recorded_are_gone(recording):
    camera = open_source(SourceSpec(str(recording))).camera
    with pytest.raises(SourceError, match=r"the frames of webcam:1 were not kept; record a camera with --record"):
        reopened(SourceRecord("webcam:1", CAMERA, "webcam:1", camera))


def test_what_is_no_longer_there_is_named(recording, tmp_path):
    spec = resolved(SourceSpec(str(recording)))
    record = through_json(recorded_spec("room", spec, open_source(spec)))
    with pytest.raises(SourceError, match="moved"):
        reopened(SourceRecord("room", "tum", str(tmp_path / "moved"), record.camera))


def test_the_keyframes_of_a_run_are_among_its_frames(recording, tmp_path):
    """By a command line with all that changes the frames; JPEG of the keyframes is off by a few gray levels."""
    options = ["--start", "4", "--stride", "2", "--hfov", "60", "--use-depth", "on", "--set", "pixels=19200"]
    assert main(["--sequence", str(recording), "--out", str(tmp_path / "run"), "--quiet", *options]) == 0
    run = Run(tmp_path / "run")
    source = reopened(run.record().source)
    frames = list(source)
    assert (frames[0].time_ns, frames[-1].time_ns) == (run.record().source.first_ns, run.record().source.last_ns)
    preparation = Preparation(source.camera, 19200)
    for keyframe in run.keyframes():
        frame = frames[keyframe.view.frame_id]
        assert frame.time_ns == keyframe.view.time_ns
        image = preparation.prepare(frame).image.rgb
        assert np.abs(image.astype(int) - keyframe.view.image.rgb).mean() < 4
