"""ROS bags and MCAP: the frames of a walk come back exactly, topics are chosen or refused, damage is told."""

import bz2
import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from slam.errors import SourceError, UsageError
from slam.frames import Frame
from slam.geometry.camera import Camera
from slam.io.run_record import SourceRecord
from slam.settings import build_config, dump_config
from slam.sources import SourceSpec, detect, open_source, resolved
from slam.sources.bags import storage
from slam.sources.bags.source import BagSource
from slam.sources.bags.storage import open_storage
from slam.sources.reopen import recorded_spec, reopened
from slam.sources.sequence import CameraChoice, FrameWindow

KINDS = ("ros1", "sqlite3", "mcap")
SHIFT_NS = 10**9  # of the stamps of `write_walk`


@pytest.fixture(scope="module")
def frames(rendered) -> list[Frame]:
    return rendered.frames[:6]


@pytest.fixture
def make(ros_recording, tmp_path) -> Callable[..., Path]:
    """Writes a bag by a function of it."""

    def made(write: Callable[[Any], None], kind: str = "ros1", compression: str = "", name: str = "walk") -> Path:
        path = ros_recording.path_of(tmp_path, kind, name)
        with ros_recording.bag(path, kind, compression) as out:
            write(out)
        return path

    return made


def only_file(folder: Path, suffix: str) -> Path:
    (file,) = folder.glob(f"*{suffix}")
    return file


def assert_is_walk(source: Any, frames: list[Frame]) -> None:
    got = list(source)
    assert [frame.id for frame in got] == list(range(len(frames))) and source.count == len(frames)
    assert [frame.time_ns - SHIFT_NS for frame in got] == [frame.time_ns for frame in frames]
    for frame, truth in zip(got, frames, strict=True):
        assert np.array_equal(frame.image, truth.image)
        assert frame.camera.undistorted() == truth.camera and not frame.camera.is_distorted


# formats


@pytest.mark.parametrize(
    ("kind", "encoding", "compression"),
    [
        ("ros1", "rgb8", ""),
        ("ros1", "bgr8", "lz4"),
        ("ros1", "png", "bz2"),
        ("sqlite3", "rgb8", ""),
        ("sqlite3", "png", "message"),
        ("mcap", "bgr8", ""),
        ("mcap", "png", "storage"),
        ("mcap", "rgb8", "message"),
    ],
)
def test_a_walk_is_read_without_loss_and_twice(ros_recording, frames, tmp_path, caplog, kind, encoding, compression):
    coding = ros_recording.Coding(encoding, compression=compression)
    path = ros_recording.write_walk(ros_recording.path_of(tmp_path, kind), frames, kind, coding)
    assert detect(path) == "ros"
    source = open_source(SourceSpec(str(path)))
    assert source.live is False
    assert_is_walk(source, frames)
    assert_is_walk(source, frames)
    assert caplog.text == ""


@pytest.mark.parametrize(("kind", "suffix"), [("sqlite3", ".db3"), ("mcap", ".mcap")])
def test_a_single_file_of_a_folder(ros_recording, frames, tmp_path, kind, suffix):
    folder = ros_recording.write_walk(tmp_path / "walk", frames, kind)
    file = only_file(folder, suffix)
    assert detect(file) == "ros"
    assert_is_walk(open_source(SourceSpec(str(file))), frames)
    (folder / "metadata.yaml").unlink()  # as a crash leaves it
    assert_is_walk(open_source(SourceSpec(str(folder))), frames)


def test_a_split_recording_is_put_together_in_the_order_of_its_numbers(ros_recording, frames, tmp_path):
    (tmp_path / "walk").mkdir()
    for number, part in ((0, frames[:2]), (2, frames[2:4]), (10, frames[4:])):
        folder = ros_recording.write_walk(tmp_path / f"part{number}", part, "mcap")
        only_file(folder, ".mcap").rename(tmp_path / f"walk/walk_{number}.mcap")
    assert_is_walk(open_source(SourceSpec(str(tmp_path / "walk"))), frames)


def test_jpeg_keeps_the_order_of_channels(make, scenes):
    def write(out: Any) -> None:
        for n in range(1, 4):
            data = cv2.imencode(".jpg", np.ascontiguousarray(scenes.image(n)[..., ::-1]))[1].tobytes()
            out.compressed("/cam/compressed", data, "jpeg", n * 10**8)

    got = list(BagSource(make(write, "mcap"), choice=CameraChoice(hfov_deg=60)))
    assert [scenes.number_of(frame.image) for frame in got] == [1, 2, 3]


# encodings


def mosaic(image: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with these colours of the first 2x2 pixels measures of an image."""
    raw = np.empty(image.shape[:2], image.dtype)
    for place, color in enumerate(pattern):
        row, column = divmod(place, 2)
        raw[row::2, column::2] = image[row::2, column::2, "rgb".index(color)]
    return raw


def packed_yuv(image: np.ndarray, order: str) -> np.ndarray:
    """(H, W, 2): of each two pixels y0, y1 and their common u, v, in the order of four letters (uyvy, yuyv)."""
    y, u, v = np.moveaxis(cv2.cvtColor(image, cv2.COLOR_RGB2YUV), -1, 0)
    # OpenCV's RGB2YUV has the full range, packed 4:2:2 that of video (ITU-R BT.601)
    y, u, v = (
        16 + 219 / 255 * y,
        *(128 + 224 / 255 * (c.astype(float) - 128) * k for c, k in ((u, 1.146), (v, 0.8135))),
    )
    out = np.empty((*image.shape[:2], 2), np.uint8)
    flat = out.reshape(len(image), -1)
    luma = iter((y[:, 0::2], y[:, 1::2]))
    for place, letter in enumerate(order):
        flat[:, place::4] = np.rint(
            {"y": None, "u": u[:, 0::2], "v": v[:, 0::2]}[letter] if letter != "y" else next(luma)
        )
    return out


COLOR = np.broadcast_to(np.array([180, 90, 40], np.uint8), (24, 32, 3))
WIDE = COLOR.astype(np.uint16) * 257
ALPHA = np.full((24, 32, 1), 7, np.uint8)
GRAY = np.full((24, 32), 77, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "pixels", "expected", "tolerance"),
    [
        ("rgb8", COLOR, (180, 90, 40), 0),
        ("bgr8", COLOR[..., ::-1], (180, 90, 40), 0),
        ("8UC3", COLOR[..., ::-1], (180, 90, 40), 0),
        ("rgba8", np.concatenate([COLOR, ALPHA], -1), (180, 90, 40), 0),
        ("bgra8", np.concatenate([COLOR[..., ::-1], ALPHA], -1), (180, 90, 40), 0),
        ("rgb16", WIDE, (180, 90, 40), 0),
        ("bgr16", WIDE[..., ::-1], (180, 90, 40), 0),
        ("mono8", GRAY, (77, 77, 77), 0),
        ("8UC1", GRAY, (77, 77, 77), 0),
        ("mono16", GRAY.astype(np.uint16) << 8, (77, 77, 77), 0),
        ("mono16", GRAY.astype(np.uint16) << 4, (77, 77, 77), 0),  # of a sensor with 12 bits
        ("bayer_rggb8", mosaic(COLOR, "rggb"), (180, 90, 40), 0),
        ("bayer_bggr8", mosaic(COLOR, "bggr"), (180, 90, 40), 0),
        ("bayer_gbrg8", mosaic(COLOR, "gbrg"), (180, 90, 40), 0),
        ("bayer_grbg8", mosaic(COLOR, "grbg"), (180, 90, 40), 0),
        ("bayer_grbg16", mosaic(WIDE, "grbg"), (180, 90, 40), 0),
        ("yuv422", packed_yuv(COLOR, "uyvy"), (180, 90, 40), 3),
        ("yuv422_yuy2", packed_yuv(COLOR, "yuyv"), (180, 90, 40), 3),
    ],
)
@pytest.mark.parametrize("padding", [0, 12])
def test_encodings(make, encoding, pixels, expected, tolerance, padding):
    """Constant colour: every interpolation of a mosaic must return it, and any mix of channels would show."""

    def write(out: Any) -> None:
        for n in (1, 2):
            out.image("/cam/image", pixels, encoding, n * 10**8, padding=padding)

    got = list(BagSource(make(write), choice=CameraChoice(hfov_deg=60)))
    assert len(got) == 2 and got[1].image.shape == (24, 32, 3) and got[1].image.dtype == np.uint8
    np.testing.assert_allclose(got[1].image[4:-4, 4:-4], np.broadcast_to(expected, (16, 24, 3)), atol=tolerance)


def test_the_order_of_bytes_is_that_of_the_message(make):
    def write(out: Any) -> None:
        out.image("/cam/image", GRAY.astype(np.uint16) << 8, "mono16", 10**8, big_endian=True)

    (frame,) = BagSource(make(write), choice=CameraChoice(hfov_deg=60))
    assert np.array_equal(frame.image[..., 1], GRAY)


def test_a_compressed_mosaic_becomes_colour(make):
    def write(out: Any) -> None:
        data = cv2.imencode(".png", mosaic(COLOR, "gbrg"))[1].tobytes()
        out.compressed("/cam/image/compressed", data, "bayer_gbrg8; png compressed ", 10**8)

    (frame,) = BagSource(make(write), choice=CameraChoice(hfov_deg=60))
    assert np.array_equal(frame.image[4:-4, 4:-4], COLOR[4:-4, 4:-4])


def test_an_encoding_that_is_not_known_is_named(make):
    path = make(lambda out: out.image("/cam/image", COLOR[..., :2], "nv21", 10**8))
    with pytest.raises(
        SourceError, match=r"no images that can be used: /cam/image \(Image, the encoding 'nv21' is not"
    ):
        BagSource(path)
    path = make(lambda out: out.compressed("/cam/image", b"\0\0\0\1gB", "h264", 10**8), "mcap")
    with pytest.raises(SourceError, match=r"/cam/image \(CompressedImage, an image of the format 'h264' cannot be dec"):
        BagSource(path)


# topics


def two_cameras(out: Any) -> None:
    for n in (1, 2):
        for name, value in (("left", 40), ("right", 90)):
            out.image(f"/{name}/image_raw", np.full((24, 32, 3), value, np.uint8), "rgb8", n * 10**8)


def test_of_several_cameras_the_user_names_one(make):
    path = make(two_cameras, "sqlite3")
    with pytest.raises(
        UsageError,
        match=r"several topics with images, name one by --topic: /left/image_raw \(Image, "
        r"rgb8 32x24, 2\), /right/image_raw",
    ):
        open_source(SourceSpec(str(path)))
    for name in ("/right/image_raw", "right/image_raw"):
        source = open_source(SourceSpec(str(path), topic=name, hfov_deg=60))
        assert [int(frame.image.mean()) for frame in source] == [90, 90]
    with pytest.raises(
        UsageError, match=r"has no topic /middle; topics with images: /left/image_raw, /right/image_raw"
    ):
        open_source(SourceSpec(str(path), topic="/middle"))


def test_colour_is_told_from_infrared_depth_and_its_own_copy(make, caplog):
    """As a depth camera records: two infrared images, depth, colour raw and compressed."""

    def write(out: Any) -> None:
        for n in (1, 2):
            time_ns = n * 10**8
            for name in ("infra1", "infra2"):
                out.image(f"/camera/{name}/image_rect_raw", GRAY, "mono8", time_ns)
            out.image("/camera/depth/image_rect_raw", GRAY.astype(np.uint16), "16UC1", time_ns)
            out.compressed("/camera/depth/image_rect_raw/compressedDepth", bytes(12), "16UC1; compressedDepth", time_ns)
            data = cv2.imencode(".jpg", np.full((24, 32, 3), 250, np.uint8))[1].tobytes()
            out.compressed("/camera/color/image_raw/compressed", data, "rgb8; jpeg compressed bgr8", time_ns)
            out.image("/camera/color/image_raw", COLOR, "rgb8", time_ns)

    path = make(write)
    with caplog.at_level("INFO", logger="slam"):
        source = open_source(SourceSpec(str(path), hfov_deg=60))
    assert "using /camera/color/image_raw (Image, rgb8 32x24, 2); there are also /camera/infra1" in caplog.text
    assert all(np.array_equal(frame.image, COLOR) for frame in source)
    named = open_source(SourceSpec(str(path), topic="/camera/infra2/image_rect_raw", hfov_deg=60))
    assert all(np.array_equal(frame.image[..., 0], GRAY) for frame in named)
    with pytest.raises(UsageError, match=r"--topic /camera/depth/image_rect_raw of .* shows depth \(16UC1 32x24\)"):
        open_source(SourceSpec(str(path), topic="/camera/depth/image_rect_raw"))


def test_a_bag_without_images_says_what_it_has(make, rendered):
    path = make(lambda out: out.info("/camera/camera_info", rendered.camera, 10**8), "mcap")
    with pytest.raises(
        SourceError, match=r"has no images; its topics: /camera/camera_info \(sensor_msgs/msg/CameraInfo, 1"
    ):
        open_source(SourceSpec(str(path)))


def test_topic_is_for_bags(recording):
    with pytest.raises(UsageError, match=r"--topic is for ROS bags; .* is of the kind tum"):
        open_source(SourceSpec(str(recording), topic="/cam"))


def test_a_run_can_open_its_topic_again(make):
    spec = resolved(SourceSpec(str(make(two_cameras, "mcap")), topic="/right/image_raw", hfov_deg=60))
    source = open_source(spec)
    record = build_config(SourceRecord, json.loads(json.dumps(dump_config(recorded_spec("x", spec, source)))))
    again = list(reopened(record))
    assert record.topic == "/right/image_raw" and [int(frame.image.mean()) for frame in again] == [90, 90]


# the camera


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (50.0, 52.0, 15.5, 11.0)),
        # twice the size, binned by two: the centre of the first pixel moves from 0 to -0.25
        ({"scale": 2, "binning": (2, 2)}, (50.0, 52.0, (31.5 + 0.5) / 2 - 0.5, (22.5 + 0.5) / 2 - 0.5)),
        ({"scale": 2, "roi": (10, 20, 32, 24)}, (100.0, 104.0, 31.5 - 10, 22.5 - 20)),
    ],
    ids=["as it is", "binned", "a region"],
)
def test_calibration_of_the_same_namespace(make, kind, options, expected):
    scale = options.get("scale", 1)
    options = {name: value for name, value in options.items() if name != "scale"}
    centre = (15.5, 11.0) if scale == 1 else (31.5, 22.5)
    distortion = (0.1, -0.05, 0.001, 0.002, 0.01)
    full = Camera(32 * scale, 24 * scale, 50.0 * scale, 52.0 * scale, *centre, distortion)

    def write(out: Any) -> None:
        out.info("/other/camera_info", Camera(32, 24, 1.0, 1.0, 1.0, 1.0), 10**8)
        out.info("/cam/camera_info", full, 10**8, **options)
        out.image("/cam/image_raw", COLOR, "rgb8", 10**8)

    camera = BagSource(make(write, kind)).camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx(expected, abs=1e-12)
    assert camera.distortion == distortion and (camera.width, camera.height) == (32, 24)


def test_rectified_images_have_the_projection_and_no_distortion(make):
    def write(out: Any) -> None:
        camera = Camera(32, 24, 50.0, 52.0, 15.0, 11.0, (0.1, 0.0, 0.0, 0.0, 0.0))
        out.info("/cam/camera_info", camera, 10**8, P=[45.0, 0, 14.0, 0, 0, 46.0, 12.0, 0, 0, 0, 1, 0])
        out.image("/cam/image_rect_color", COLOR, "rgb8", 10**8)

    assert BagSource(make(write)).camera == Camera(32, 24, 45.0, 46.0, 14.0, 12.0)


def test_an_uncalibrated_camera_is_guessed_and_that_is_said(make, caplog):
    def write(out: Any) -> None:
        zero = Camera(32, 24, 1e-9, 1e-9, 0.0, 0.0)
        out.info("/cam/camera_info", zero, 10**8, P=[0.0] * 12)
        out.image("/cam/image_rect", COLOR, "rgb8", 10**8)

    BagSource(make(write))
    assert "/cam/camera_info is of a camera that was never calibrated" in caplog.text
    assert "guessing a lens" in caplog.text


# time stamps


def stamped(stamps: list[tuple[int, int]]) -> Callable[[Any], None]:
    """Images of these times: header, recording."""

    def write(out: Any) -> None:
        for n, (header_ns, bag_ns) in enumerate(stamps):
            out.image("/cam/image", np.full((24, 32, 3), n, np.uint8), "rgb8", header_ns, bag_ns)

    return write


@pytest.mark.parametrize(
    ("stamps", "expected", "said"),
    [
        ([(0, 5), (0, 9), (0, 20)], [5, 9, 20], "are zero or do not increase"),
        ([(7, 5), (7, 9), (7, 20)], [5, 9, 20], "are zero or do not increase"),
        ([(1, 5), (2, 6), (4, 9)], [1, 2, 4], ""),
    ],
)
def test_stamps_are_those_of_the_header_if_it_has_any(make, caplog, stamps, expected, said):
    got = list(BagSource(make(stamped([(10**6 * a, 10**6 * b) for a, b in stamps])), choice=CameraChoice(hfov_deg=60)))
    assert [frame.time_ns for frame in got] == [10**6 * t for t in expected]
    assert said in caplog.text and caplog.text.count("\n") == bool(said)


def test_a_clock_that_begins_anew_and_an_image_that_comes_late(make, caplog):
    first = [(10**10 + n * 10**8, n * 10**8 + 1) for n in range(11)]
    late = (10**10 + 950 * 10**6, 11 * 10**8 + 1)
    again = [(10**8 + n * 10**8, (12 + n) * 10**8 + 1) for n in range(3)]
    got = list(BagSource(make(stamped([*first, late, *again])), choice=CameraChoice(hfov_deg=60)))
    assert np.diff([frame.time_ns for frame in got]).tolist() == [10**8] * 10 + [2 * 10**8] + [10**8] * 2
    assert [int(frame.image.mean()) for frame in got] == [*range(11), 12, 13, 14]
    assert "jump back by 10.9 s" in caplog.text and "skipped an image of /cam/image: its time" in caplog.text


# depth


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1", "compressedDepth"])
def test_depth_is_used_when_asked_for(ros_recording, frames, tmp_path, encoding):
    """Stored in millimetres, half of one is the rounding; of floats nothing is lost."""
    path = ros_recording.write_walk(tmp_path / "walk.bag", frames, "ros1", ros_recording.Coding(with_depth=encoding))
    assert next(iter(open_source(SourceSpec(str(path))))).depth is None
    got = list(open_source(SourceSpec(str(path), with_depth=True)))
    assert len(got) == len(frames)
    for frame, truth in zip(got, frames, strict=True):
        assert frame.depth is not None and frame.depth.dtype == np.float32
        np.testing.assert_allclose(frame.depth, truth.depth, rtol=0, atol=0 if encoding == "32FC1" else 0.000501)


def test_depth_nearest_in_time_is_used_once(make, caplog):
    """Depth at half the rate, some of it before its image in the bag, some after."""

    def write(out: Any) -> None:
        for n in range(1, 7):
            if n in (2, 3):
                out.image("/cam/depth", np.full((24, 32), 1000 * n, np.uint16), "16UC1", n * 10**8 - 10**6)
            out.image("/cam/image", COLOR, "rgb8", n * 10**8)
            if n in (5, 6):
                out.image("/cam/depth", np.full((24, 32), 1000 * n, np.uint16), "16UC1", n * 10**8 + 19 * 10**6)

    got = list(BagSource(make(write), choice=CameraChoice(hfov_deg=60), with_depth=True))
    assert [None if frame.depth is None else float(frame.depth[0, 0]) for frame in got] == [None, 2, 3, None, 5, 6]
    assert "2 of 6 frames" in caplog.text and "go without depth" in caplog.text


def test_float_depth_that_was_compressed_is_inverse(make):
    """REP 118's neighbour: value = a / z + b."""
    a, b, z = 1000.0, 20.0, 2.5

    def write(out: Any) -> None:
        values = np.full((24, 32), round(a / z + b), np.uint16)
        values[0, 0] = 0
        data = struct.pack("<iff", 0, a, b) + cv2.imencode(".png", values)[1].tobytes()
        out.image("/cam/image", COLOR, "rgb8", 10**8)
        out.compressed("/cam/depth/compressedDepth", data, "32FC1; compressedDepth png", 10**8)

    (frame,) = BagSource(make(write), choice=CameraChoice(hfov_deg=60), with_depth=True)
    assert frame.depth is not None and frame.depth[0, 0] == 0 and frame.depth[5, 5] == pytest.approx(z)


def test_depth_that_does_not_belong_is_refused_or_doubted(make, caplog):
    def write(out: Any) -> None:
        out.image("/cam/image", COLOR, "rgb8", 10**8, frame_id="rgb")
        out.image("/cam/depth", np.full((12, 16), 1000, np.uint16), "16UC1", 10**8, frame_id="ir")

    with pytest.raises(
        SourceError, match=r"the depth of .* is not aligned to /cam/image \(Image, rgb8 32x24, 1\): /cam/"
    ):
        BagSource(make(write), with_depth=True)
    with pytest.raises(SourceError, match=r"has no depth to use; its images: /left/image_raw"):
        BagSource(make(two_cameras, name="two"), topic="/left/image_raw", with_depth=True)

    def beside(out: Any) -> None:
        out.image("/cam/image", COLOR, "rgb8", 10**8, frame_id="rgb")
        out.image("/cam/depth", np.full((24, 32), 1000, np.uint16), "16UC1", 10**8, frame_id="ir")

    BagSource(make(beside, name="beside"), choice=CameraChoice(hfov_deg=60), with_depth=True)
    assert "has its depth in the frame ir, its colour in rgb: taken as aligned" in caplog.text


# damage


def test_damaged_messages_are_skipped_and_counted_once(make, caplog):
    def write(out: Any) -> None:
        for n in range(1, 9):
            out.image("/cam/image", COLOR, "rgb8", n * 10**8, cut=100 if n in (3, 4) else None)

    source = BagSource(make(write, "mcap"), choice=CameraChoice(hfov_deg=60))
    assert [frame.time_ns for frame in source] == [n * 10**8 for n in (1, 2, 5, 6, 7, 8)]
    assert source.skipped == 2 and source.count == 8
    first, total = (record.message for record in caplog.records)
    assert first == "skipped an image of /cam/image: the message is damaged" and total == f"2 times in all: {first}"


def test_a_jpeg_that_is_cut_off_is_not_filled_with_gray(make, caplog):
    def write(out: Any) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
        for n in range(1, 4):
            data = cv2.imencode(".jpg", noise)[1].tobytes()
            out.compressed("/cam/image/compressed", data[: len(data) // 2] if n == 2 else data, "jpeg", n * 10**8)

    assert len(list(BagSource(make(write), choice=CameraChoice(hfov_deg=60)))) == 2
    problem = "an image of the format 'jpeg' cannot be decoded: it is cut off"
    assert f"skipped an image of /cam/image/compressed: {problem}" in caplog.text


@pytest.mark.parametrize("name", ["zstd", "lz4", "bz2"])
def test_a_chunk_that_becomes_more_than_any_is_refused_as_damage(monkeypatch, name):
    """A bomb of a few kilobytes; what is cut off is damage too."""
    compress = {
        "zstd": lambda data: storage.library("backports.zstd").compress(data),
        "lz4": lambda data: storage.library("lz4.frame").compress(data),
        "bz2": bz2.compress,
    }[name]
    undo = getattr(storage, f"{name}_decompress")
    monkeypatch.setattr(storage, "MAX_CHUNK", 1 << 20)
    assert undo(compress(bytes(1 << 19))) == bytes(1 << 19)
    with pytest.raises(ValueError, match="it becomes more than 1 MiB"):
        undo(compress(bytes(1 << 21)))
    with pytest.raises(ValueError, match="it is cut off"):
        undo(compress(random.Random(0).randbytes(5000))[:-900])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_off_bag_is_played_up_to_the_damage(make, kind, caplog):
    """Large images, so that each is a chunk of its own."""

    def write(out: Any) -> None:
        for n in range(1, 13):
            out.image("/cam/image", np.full((480, 800, 3), n, np.uint8), "rgb8", n * 10**8)

    path = make(write, kind)
    file = path if path.is_file() else only_file(path, ".db3" if kind == "sqlite3" else ".mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 3 // 5])
    source = BagSource(path, choice=CameraChoice(hfov_deg=60))
    got = list(source)
    assert len(list(source)) == len(got)  # a second pass tells nothing again
    assert [int(frame.image[0, 0, 0]) for frame in got] == list(range(1, 1 + len(got))) and 4 <= len(got) <= 8
    assert caplog.text.count("\n") == 1 and "is not whole: it is cut off" in caplog.text


@pytest.mark.parametrize(("kind", "compression"), [("ros1", "lz4"), ("mcap", "storage")])
def test_a_damaged_chunk_is_left_out(make, kind, compression, caplog):
    def write(out: Any) -> None:
        noise = np.random.default_rng(0)
        for n in range(1, 9):
            out.image("/cam/image", noise.integers(0, 4, (480, 800, 3), np.uint8), "rgb8", n * 10**8)

    path = make(write, kind, compression)
    file = path if path.is_file() else only_file(path, ".mcap")
    data = bytearray(file.read_bytes())
    middle = len(data) * 9 // 16  # in the fifth of eight
    data[middle : middle + 5000] = bytes(5000)
    file.write_bytes(data)
    got = list(BagSource(path, choice=CameraChoice(hfov_deg=60)))
    assert [frame.time_ns // 10**8 for frame in got] == [1, 2, 3, 4, 6, 7, 8]
    assert "is not whole: a chunk is damaged" in caplog.text


@pytest.mark.parametrize(
    ("kind", "of_topic", "damaged"),
    [("ros1", rb"type=", b"ty/e="), ("mcap", rb"(?s)\x04.\0{7}(?=.{4}\x0a\0\0\0/cam/image)", b"\x04" + bytes(8))],
    ids=("ros1", "mcap"),
)
def test_a_record_of_a_topic_that_makes_no_sense_is_damage(make, kind, of_topic, damaged):
    path = make(lambda out: out.image("/cam/image", COLOR, "rgb8", 10**8), kind)
    file = path if path.is_file() else only_file(path, ".mcap")
    content, replaced = re.subn(of_topic, damaged, file.read_bytes())
    file.write_bytes(content)
    assert replaced
    with pytest.raises(SourceError, match="has no message that can be read: it is empty or damaged"):
        BagSource(path, choice=CameraChoice(hfov_deg=60))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bag", b"", "a.bag is empty"),
        ("a.db3", b"", "a.db3 is empty"),
        ("a.mcap", b"", "a.mcap is empty"),
        ("a.bag", b"#ROSBAG V1.2\n" + bytes(90), r"is a bag of an old version \(#ROSBAG V1.2\)"),
        ("a.bag", b"no bag" * 50, "a.bag is no ROS 1 bag"),
        ("a.mcap", b"no bag" * 50, "a.mcap is no MCAP file"),
        ("a.db3", b"no bag" * 50, "a.db3 is no SQLite file"),
        ("a.db3", b"SQLite format 3\0" + bytes(500), "a.db3 is no ROS 2 bag that can be read"),
        ("a.bag", b"#ROSBAG V2.0\n", "a.bag has no message that can be read: it is empty or damaged"),
        ("a.mcap", b"\x89MCAP0\r\n" + bytes(50), "a.mcap has no message that can be read"),
    ],
)
def test_what_is_no_bag(tmp_path, ros_recording, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(SourceSpec(str(tmp_path / name)))


def test_files_compressed_as_a_whole_are_refused(ros_recording, frames, tmp_path):
    folder = ros_recording.write_walk(tmp_path / "walk", frames, "mcap", ros_recording.Coding(compression="file"))
    with pytest.raises(SourceError, match=r"walk are compressed as a whole: unpack them by zstd -d .*walk.mcap.zstd"):
        open_source(SourceSpec(str(folder)))


def test_without_rosbags_one_line_says_what_to_install(ros_recording, frames, tmp_path, monkeypatch):
    path = ros_recording.write_walk(tmp_path / "walk.bag", frames, "ros1")
    monkeypatch.setitem(__import__("sys").modules, "rosbags.typesys", None)
    with pytest.raises(SourceError, match=r"ROS bags need the package rosbags.*pip install 'v2d-slam\[ros\]'"):
        open_source(SourceSpec(str(path)))


# windows, and the recordings of librealsense


def test_window(ros_recording, frames, tmp_path):
    path = ros_recording.write_walk(tmp_path / "walk", frames, "mcap")
    source = BagSource(path, FrameWindow(1, 2, 4))
    assert [frame.time_ns - SHIFT_NS for frame in source] == [frames[1].time_ns, frames[3].time_ns]
    assert source.count == 2
    with pytest.raises(SourceError, match=r"--start 6 is past the end of .*: /camera/color/image_raw has 6 images"):
        BagSource(path, FrameWindow(6))


@pytest.mark.parametrize(("kind", "suffix"), [("ros1", ".bag"), ("sqlite3", ".db3")])
def test_a_realsense_recording_is_told_by_its_topics(make, kind, suffix):
    path = make(lambda out: out.image("/device_0/sensor_1/Color_0/image/data", COLOR, "rgb8", 10**8), kind)
    assert detect(path if path.is_file() else only_file(path, suffix)) == "realsense"


def test_topics_without_index_are_counted(make):
    """The index of a ROS 1 bag and the summary of an MCAP file are only shortcuts."""
    for kind, cut in (("ros1", 1), ("mcap", 8)):
        path = make(two_cameras, kind, name=f"walk_{kind}")
        file = path if path.is_file() else only_file(path, ".mcap")
        whole = {topic.name: topic.count for topic in open_storage(file).topics()}
        file.write_bytes(file.read_bytes()[:-cut])
        assert whole == {"/left/image_raw": 2, "/right/image_raw": 2}
        if kind == "ros1":
            data = bytearray(file.read_bytes())
            position = data.index(b"index_pos=") + 10
            data[position : position + 8] = bytes(8)
            file.write_bytes(data)
        assert {topic.name: topic.count for topic in open_storage(file).topics()} == whole
