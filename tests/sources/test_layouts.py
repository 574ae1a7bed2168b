"""Data set layouts: each is found, and gives the frames, the camera, the depth and the truth that were written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from slam.errors import CalibrationError, SourceError, UsageError
from slam.sources import SourceSpec, open_source, resolved
from slam.sources.groundtruth import known_truth, read_groundtruth

FRAMES = 12  # two digits: the natural order of names differs from the order of text
EVERY = ["kitti", "tartanair", "scannet", "replica", "icl", "nerfstudio", "record3d", "openloris", "euroc", "tumvi"]


@pytest.fixture(scope="module")
def written(layouts, rendered, tmp_path_factory):
    """Writes a layout once and gives its folder."""
    frames, T_wc = rendered.frames[:FRAMES], rendered.truth.T_wc[:FRAMES]
    done: dict[str, Path] = {}

    def write(kind: str) -> Path:
        if kind not in done:
            done[kind] = layouts.LAYOUTS[kind].write(tmp_path_factory.mktemp(kind), frames, T_wc)
        return done[kind]

    return write


def motions(T_wc: np.ndarray) -> np.ndarray:
    """Motions between neighbouring frames, which do not depend on the world's axes."""
    return np.linalg.inv(T_wc[:-1]) @ T_wc[1:]


@pytest.mark.parametrize("kind", EVERY)
def test_frames_camera_depth_and_truth_are_those_that_were_written(written, layouts, rendered, kind):
    """Poses have nine digits. A transposed rotation, an inverse, a wrong sign or axis changes motions by far more."""
    path = written(kind)
    has_stamps, scale = layouts.LAYOUTS[kind].has_stamps, layouts.LAYOUTS[kind].depth_scale
    spec = resolved(SourceSpec(str(path), with_depth=True if scale else None))
    assert spec.kind == kind
    source = open_source(spec)
    frames, expected = list(source), rendered.frames[:FRAMES]
    assert len(frames) == source.count == FRAMES
    camera, true_camera = source.camera, rendered.camera
    for name in ("width", "height", "fx", "fy", "cx", "cy"):
        assert getattr(camera, name) == pytest.approx(getattr(true_camera, name), abs=1e-5), name
    for frame, true in zip(frames, expected):
        assert np.array_equal(frame.image, true.image)
        assert not has_stamps or frame.time_ns == pytest.approx(true.time_ns, abs=1e6)
    if scale and kind != "scannet":
        np.testing.assert_allclose(frames[3].depth, expected[3].depth, atol=0.6 / scale + 1e-6)
    truth = read_groundtruth(path)
    assert truth.time_ns.tolist() == [frame.time_ns for frame in frames]
    np.testing.assert_allclose(motions(truth.T_wc), motions(rendered.truth.T_wc[:FRAMES]), atol=2e-6)
    assert len(known_truth(path)) == FRAMES


def test_kitti_is_found_from_where_its_archive_was_unpacked(written):
    assert resolved(SourceSpec(str(written("kitti").parents[2]))).kind == "kitti"


@pytest.mark.parametrize("number", ["nan", "1e300"])
def test_a_projection_of_kitti_that_cannot_be_is_named(written, tmp_path, number):
    path = written("kitti")
    shutil.copytree(path.parents[2], tmp_path / "root")
    file = tmp_path / "root" / path.relative_to(path.parents[2]) / "calib.txt"
    rows = [line.split() for line in file.read_text().splitlines()]
    file.write_text("\n".join(" ".join([*row[:-1], number]) for row in rows))
    with pytest.raises(SourceError, match=r"calib\.txt holds no usable pose"):
        read_groundtruth(file.parent)


def test_the_poses_of_kitti_alone_are_moved_to_the_camera_of_the_images(written):
    path = written("kitti")
    truth = read_groundtruth(path.parent.parent / "poses/07.txt")
    np.testing.assert_array_equal(truth.time_ns, read_groundtruth(path).time_ns)
    np.testing.assert_allclose(truth.T_wc, read_groundtruth(path).T_wc)


def test_depth_of_another_size_is_moved_to_the_pixels_of_the_images(written, rendered):
    """Depth of half the size was taken from every second pixel; between edges it fits to a pixel's slant."""
    frame = next(iter(open_source(SourceSpec(str(written("scannet")), with_depth=True))))
    depth, true = frame.depth, rendered.frames[0].depth
    known = depth > 0
    assert depth.shape == true.shape and known.mean() > 0.95
    assert np.median(np.abs(depth - true)[known] / true[known]) < 0.01


@pytest.mark.parametrize("kind", EVERY)
def test_a_recording_is_found_from_the_folder_above_it_and_from_its_images(written, layouts, kind):
    path = written(kind)
    times = [frame.time_ns for frame in open_source(SourceSpec(str(path)))]
    for near in (path.parent, path / layouts.LAYOUTS[kind].images):
        spec = resolved(SourceSpec(str(near)))
        assert spec.kind == kind
        assert [frame.time_ns for frame in open_source(spec)] == times


@pytest.mark.parametrize("kind", EVERY)
def test_truth_is_found_where_the_images_are(written, layouts, tmp_path, monkeypatch, kind):
    """From the folder above, from the images, and in an archive of it all."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = written(kind)
    times = np.array([frame.time_ns for frame in open_source(SourceSpec(str(path)))])
    truth = read_groundtruth(path, lambda: times)
    archive = Path(shutil.make_archive(str(tmp_path / kind), "zip", path.parent.parent if kind == "kitti" else path))
    places = [path / layouts.LAYOUTS[kind].images, archive]
    for place in [*places, *([] if kind == "kitti" else [path.parent])]:
        found = read_groundtruth(place, lambda: times)
        np.testing.assert_array_equal(found.time_ns, truth.time_ns)
        np.testing.assert_allclose(found.T_wc, truth.T_wc)


@pytest.mark.parametrize(("kind", "file"), [("icl", "livingRoom0.gt.freiburg"), ("openloris", "groundtruth.txt")])
def test_a_file_of_truth_means_what_its_folder_means(written, kind, file):
    """ICL counts its frames from 1; OpenLORIS has poses of the robot."""
    path = written(kind)
    times = np.array([frame.time_ns for frame in open_source(SourceSpec(str(path)))])
    truth, single = read_groundtruth(path, lambda: times), read_groundtruth(path / file, lambda: times)
    np.testing.assert_array_equal(single.time_ns, truth.time_ns)
    np.testing.assert_allclose(single.T_wc, truth.T_wc)


def test_lists_of_other_sensors_are_no_camera(written, tmp_path):
    """EuRoC without the list of its images: the images remain, and motion capture is no camera."""
    path = tmp_path / "room1"
    shutil.copytree(written("euroc"), path)
    (path / "mav0/cam0/data.csv").unlink()
    for root in (path, tmp_path):
        spec = resolved(SourceSpec(str(root)))
        assert spec.kind == "images" and Path(spec.path) == path / "mav0/cam0/data"


def test_several_recordings_are_listed(layouts, rendered, tmp_path):
    frames, T_wc = rendered.frames[:2], rendered.truth.T_wc[:2]
    layouts.scannet(tmp_path, frames, T_wc)
    (tmp_path / "scene0001_00").rename(tmp_path / "scene0000_00")
    layouts.scannet(tmp_path, frames, T_wc)
    with pytest.raises(SourceError, match=r"holds 2 recordings; name one of them: .*scene0000_00 \(scannet\), .*1_00"):
        resolved(SourceSpec(str(tmp_path)))


def test_published_cameras_of_tartanair_and_icl(scenes, tmp_path):
    """Of images of the published size, without a calibration; and another camera of TartanAir by its folder."""
    for name in ("left", "right"):
        scenes.save(tmp_path / f"P000/image_{name}/000000_{name}.png", scenes.image(1, 640, 480))
        (tmp_path / f"P000/pose_{name}.txt").write_text("0 0 0 0 0 0 1\n")
    for path in ("P000", "P000/image_right"):
        camera = open_source(SourceSpec(str(tmp_path / path))).camera
        assert (camera.fx, camera.fy, camera.cx, camera.cy) == (320, 320, 320, 240)
    scenes.save(tmp_path / "icl/rgb/1.png", scenes.image(1, 640, 480))
    (tmp_path / "icl/traj0.gt.freiburg").write_text("1 0 0 -2.25 0 0 0 1\n")
    camera = open_source(SourceSpec(str(tmp_path / "icl"))).camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (481.2, 480.0, 319.5, 239.5)


def test_the_original_form_of_icl(scenes, tmp_path):
    """A camera at (1, 2, 3), y up, that looks along the world's x: right is -z, so down, y mirrored, is -y. A plane at
    z = 2 has longer rays at the edge."""
    scenes.save(tmp_path / "scene_00_0000.png", scenes.image(4, 640, 480))
    (tmp_path / "scene_00_0000.txt").write_text(
        "cam_pos      = [1, 2, 3]';\ncam_dir      = [2, 0, 0]';\ncam_up       = [0, 1, 0]';\ncam_angle = 90;\n"
    )
    u, v = np.meshgrid(np.arange(640), np.arange(480))
    rays = np.sqrt(1 + ((u - 319.5) / 481.2) ** 2 + ((v - 239.5) / 480) ** 2)
    (tmp_path / "scene_00_0000.depth").write_text(" ".join(f"{d:.5f}" for d in (2 * rays).ravel()))
    source = open_source(SourceSpec(str(tmp_path), with_depth=True))
    np.testing.assert_allclose(next(iter(source)).depth, 2, atol=1e-4)
    T_wc = read_groundtruth(tmp_path).T_wc[0]
    # right (0, 0, -1), up (0, 1, 0), forward (1, 0, 0) in the left-handed world; mirrored: y of the position changes
    np.testing.assert_allclose(T_wc, [[0, 0, 1, 1], [0, 1, 0, -2], [-1, 0, 0, 3], [0, 0, 0, 1]], atol=1e-12)
    (tmp_path / "scene_00_0000.depth").write_text("1 2 3")
    assert next(iter(open_source(SourceSpec(str(tmp_path), with_depth=True)))).depth is None


def transforms(path: Path, **content: object) -> Path:
    frames = [{"file_path": f"./r_{n}", "transform_matrix": np.eye(4).tolist()} for n in (1, 0)]
    path.write_text(json.dumps({"frames": frames, **content}))
    return path


@pytest.mark.parametrize(
    ("content", "expected", "model"),
    [
        ({"camera_angle_x": 2 * np.arctan(0.5)}, (32, 32, 15.5, 11.5), "radtan"),
        ({"fl_x": 30, "cx": 16, "cy": 12, "w": 32, "h": 24}, (30, 30, 15.5, 11.5), "radtan"),
        ({"fl_x": 30, "fl_y": 31, "cx": 16, "cy": 12, "camera_model": "PINHOLE"}, (30, 31, 15.5, 11.5), "radtan"),
        ({"fl_x": 30, "fl_y": 30, "k1": 0.01, "camera_model": "OPENCV_FISHEYE"}, (30, 30, 15.5, 11.5), "fisheye"),
    ],
)
def test_intrinsics_of_transforms_json(scenes, tmp_path, content, expected, model):
    """Names without suffix, frames out of order, the forms of instant-ngp, Polycam and nerfstudio."""
    for n in range(2):
        scenes.save(tmp_path / f"r_{n}.png", scenes.image(n))
    transforms(tmp_path / "transforms.json", **content)
    source = open_source(SourceSpec(str(tmp_path)))
    camera = source.camera
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == pytest.approx(expected)
    assert camera.model == model
    assert [scenes.number_of(frame.image) for frame in source] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "transforms.json is not valid JSON"),
        ("[]", "transforms.json must hold a dict, it holds a list"),
        ('{"frames": []}', "has no frames"),
        ('{"frames": [{"file_path": 3}]}', "frame 0 has no file_path"),
        ('{"frames": [{"file_path": "gone.png"}]}', "lists 1 images and none exists; the first would be .*gone.png"),
    ],
)
def test_bad_transforms_json_is_named(tmp_path, text, message):
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(SourceSpec(str(tmp_path)))


def test_a_calibration_for_other_images_is_refused(layouts, rendered, tmp_path):
    """ScanNet's colour images resized, its intrinsics not: the principal point lies outside."""
    path = layouts.scannet(tmp_path, rendered.frames[:2], rendered.truth.T_wc[:2])
    layouts.text(path / "intrinsic/intrinsic_color.txt", "1170 0 647.7 0", "0 1170 483.7 0", "0 0 1 0", "0 0 0 1")
    with pytest.raises(CalibrationError, match=r"intrinsic_color.txt"):
        open_source(SourceSpec(str(path)))
    (path / "calibration.yaml").write_text("width: 160\nheight: 120\ncalibration: [133, 133, 79.5, 59.5]\n")
    assert open_source(SourceSpec(str(path))).camera.fx == 133


def test_depth_of_record3d_is_decompressed(layouts, rendered, tmp_path, caplog):
    """At half the size of the images; without the package each frame goes without, and it is said what to install."""
    path = layouts.record3d(tmp_path, rendered.frames[:2], rendered.truth.T_wc[:2])
    (path / "rgb").rename(path / "rgbd")
    content = json.loads((path / "metadata.json").read_text()) | {"dw": 80, "dh": 60, "frameTimestamps": [0.5, 0.75]}
    (path / "metadata").write_text(json.dumps(content))
    (path / "metadata.json").unlink()
    depths = [np.ascontiguousarray(frame.depth[::2, ::2], np.float32) for frame in rendered.frames[:2]]
    for n, depth in enumerate(depths):
        (path / f"rgbd/{n}.depth").write_bytes(depth.tobytes())
    frames = list(open_source(SourceSpec(str(path), with_depth=True)))
    assert [frame.time_ns for frame in frames] == [500_000_000, 750_000_000]
    assert frames[0].depth is None and caplog.text.count("goes without depth") >= 1
    lzfse = pytest.importorskip("lzfse", reason="the package lzfse is not installed")
    for n, depth in enumerate(depths):
        (path / f"rgbd/{n}.depth").write_bytes(lzfse.compress(depth.tobytes()))
    depth, true = next(iter(open_source(SourceSpec(str(path), with_depth=True)))).depth, rendered.frames[0].depth
    assert np.median(np.abs(depth - true)[depth > 0] / true[depth > 0]) < 0.01


def test_layouts_without_depth_say_so(written):
    for kind in ("kitti", "record3d", "euroc"):
        with pytest.raises(UsageError, match="has no depth to use"):
            open_source(SourceSpec(str(written(kind)), with_depth=True))
