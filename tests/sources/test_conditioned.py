"""Images stretched, cropped and masked before anything else sees them, and taken so again from what a run remembers."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from slam.errors import SourceError, UsageError
from slam.io.run_record import SourceRecord
from slam.settings import build_config, dump_config
from slam.sources import SourceSpec, open_source, resolved
from slam.sources.conditioned import ConditionedSource, read_user_mask
from slam.sources.reopen import recorded_spec, reopened
from slam.sources.sequence import typical_camera

BAR = 20


@pytest.fixture(scope="module")
def images(rendered) -> list[np.ndarray]:
    """Every fourth image (120, 160, 3) of a walk."""
    return [frame.image for frame in rendered.frames[::4]]


def written(folder: Path, images: list[np.ndarray], calibration: str = "") -> Path:
    """A folder of PNG images, RGB of 8 or 16 bits."""
    folder.mkdir()
    for n, image in enumerate(images):
        assert cv2.imwrite(str(folder / f"{n:03d}.png"), np.ascontiguousarray(image[..., ::-1]))
    if calibration:
        (folder / "calibration.yaml").write_text(calibration)
    return folder


def boxed(images: list[np.ndarray]) -> list[np.ndarray]:
    """With a black bar to the left and right."""
    return [cv2.copyMakeBorder(image, 0, 0, BAR, BAR, cv2.BORDER_CONSTANT) for image in images]


def test_without_bars_the_source_is_as_it_was(tmp_path, images, caplog):
    source = open_source(SourceSpec(str(written(tmp_path / "a", images)), adapt=True))
    assert not isinstance(source, ConditionedSource)
    assert [record for record in caplog.records if "guessing" not in record.message] == []


def test_bars_move_the_principal_point_of_a_calibrated_camera(tmp_path, images, caplog):
    path = written(tmp_path / "a", boxed(images))
    calib = tmp_path / "c.yaml"
    calib.write_text("width: 200\nheight: 120\ncalibration: [150, 151, 101.5, 60.5]\n")
    source = open_source(SourceSpec(str(path), calib=calib, adapt=True))
    camera = source.camera
    assert (camera.width, camera.height) == (158, 120)  # a column more on each side
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (150, 151, 101.5 - 21, 60.5)
    assert next(iter(source)).image.shape == (120, 158, 3)
    np.testing.assert_array_equal(next(iter(source)).image, images[0][:, 1:-1])
    assert "constant bars (left 21, right 21, top 0, bottom 0 pixels)" in caplog.text
    assert len([record for record in caplog.records if "bars" in record.message]) == 1


def test_without_calibration_the_lens_is_that_of_the_rest(tmp_path, images, caplog):
    path = str(written(tmp_path / "a", boxed(images)))
    assert open_source(SourceSpec(path, adapt=True)).camera == typical_camera(158, 120)
    by_angle = open_source(SourceSpec(path, hfov_deg=90, adapt=True)).camera
    assert by_angle.fx == pytest.approx(79)  # 90 degrees across what is left
    assert "field of view is that of the rest (focal length 79 px)" in caplog.text


@pytest.mark.parametrize("gain", [1, 16, 40])
def test_low_range_of_sixteen_bits_keeps_its_steps(tmp_path, images, gain, caplog):
    """Cut to 8 bits, 255 steps of these values would be 1, 16 and 40."""
    deep = [image.astype(np.uint16) * gain for image in images]
    source = open_source(SourceSpec(str(written(tmp_path / "a", deep)), adapt=True))
    shown = [frame.image for frame in source]
    assert np.unique(shown[0]).size > 100 and 30 < shown[0].mean() < 220
    low, high = source.conditioning.levels
    expected = np.clip((deep[3].astype(np.float64) - low) * 255 / (high - low), 0, 255)
    assert np.abs(expected - shown[3]).max() <= 0.51
    assert "stretched to the whole range" in caplog.text


def test_the_same_frames_again_from_a_record(tmp_path, images):
    """Bars, low contrast and a mask at once, as JSON has them."""
    path = written(tmp_path / "a", [100 + image // 10 for image in boxed(images)])
    mask = np.full((60, 100), 255, np.uint8)  # of half the size
    mask[:10] = 0
    assert cv2.imwrite(str(tmp_path / "m.png"), mask)
    spec = resolved(SourceSpec(str(path), mask=tmp_path / "m.png", adapt=True))
    source = open_source(spec)
    assert source.conditioning.crop == (21, 0, 158, 120) and source.conditioning.levels is not None
    assert not source.mask[:20].any() and source.mask[20:].all() and source.mask.shape == (120, 158)
    kept = tmp_path / "kept.png"
    cv2.imwrite(str(kept), np.where(source.mask, 255, 0).astype(np.uint8))
    record = recorded_spec("a", spec, source)
    record = replace(record, conditioning=replace(source.conditioning, mask=str(kept)))
    again = reopened(build_config(SourceRecord, json.loads(json.dumps(dump_config(record)))))
    assert again.camera == source.camera
    for a, b in zip(source, again, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.mask, b.mask)
    kept.unlink()
    with pytest.raises(SourceError, match=r"kept\.png"):
        reopened(record)


@pytest.mark.parametrize("suffix", [".avi"])
def test_bars_of_a_video(tmp_path, images, suffix, caplog):
    path = tmp_path / f"v{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15.0, (200, 120))
    assert writer.isOpened()
    for image in boxed(images):
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    source = open_source(SourceSpec(str(path), adapt=True))
    left, top, width, height = source.conditioning.crop
    assert abs(left - BAR) <= 8 and abs(left + width - 180) <= 8 and (top, height) == (0, 120)
    assert len(list(source)) == len(images) and source.skipped == 0  # looking at it took nothing away


def test_a_mask_must_have_the_shape_of_the_images(tmp_path, images):
    path = str(written(tmp_path / "a", images))
    cv2.imwrite(str(tmp_path / "m.png"), np.full((120, 120), 255, np.uint8))
    with pytest.raises(UsageError, match=r"m\.png is 120x120, the images are 160x120: it must have their shape"):
        open_source(SourceSpec(path, mask=tmp_path / "m.png"))


def test_a_mask_that_hides_everything_or_is_missing_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "m.png"), np.zeros((120, 160), np.uint8))
    with pytest.raises(UsageError, match="black all over: white is used"):
        read_user_mask(tmp_path / "m.png", 160, 120)
    with pytest.raises(SourceError, match=r"none\.png"):
        read_user_mask(tmp_path / "none.png", 160, 120)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_white_is_the_brightest_of_a_mask(tmp_path, white):
    """Arrays of bool are often stored as 0 and 1."""
    pixels = np.full((120, 160), white, np.uint16 if white > 255 else np.uint8)
    pixels[:40] = 0
    cv2.imwrite(str(tmp_path / "m.png"), pixels)
    shown = read_user_mask(tmp_path / "m.png", 160, 120)
    assert not shown[:40].any() and shown[40:].all()


def test_a_white_mask_changes_nothing(tmp_path, images):
    path = str(written(tmp_path / "a", images))
    cv2.imwrite(str(tmp_path / "m.png"), np.full((120, 160), 255, np.uint8))
    assert not isinstance(open_source(SourceSpec(path, mask=tmp_path / "m.png")), ConditionedSource)
