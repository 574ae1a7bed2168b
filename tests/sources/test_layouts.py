"""Data set layouts: each is found, and gives the frames, the camera, the depth and the truth that were written."""

from pathlib import Path

import numpy as np
import pytest

from slam.sources import SourceSpec, open_source, resolved
from slam.sources.groundtruth import known_truth, read_groundtruth

FRAMES = 12  # two digits: the natural order of names differs from the order of text
EVERY = ["kitti", "tartanair", "scannet", "replica", "icl", "nerfstudio", "record3d", "openloris", "euroc"]


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
