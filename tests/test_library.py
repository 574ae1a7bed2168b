"""The package as programmers use it: the READMEs' examples, public names, and what `feed` refuses."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import slam
from slam.frames import frame_of
from slam.io.calibration import write_calibration
from slam.io.ply import read_ply
from slam.io.trajectory import read_tum

ROOT = Path(__file__).resolve().parents[1]


def example(readme: str) -> str:
    """The Python block of the README's section."""
    section = (ROOT / readme).read_text().split("## As a library\n")[1]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]


@pytest.mark.parametrize(("readme", "longest"), [("README.md", 10), ("slam/README.md", 20)])
def test_the_examples_of_the_readmes_run_as_they_stand(rendered, tmp_path, readme, longest):
    """In a new process, on a video and a calibration of those names."""
    code = example(readme)
    assert len([line for line in code.splitlines() if line.strip()]) <= longest
    writer = cv2.VideoWriter(str(tmp_path / "walk.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, (160, 120))
    for frame in rendered.frames[:24]:
        writer.write(np.ascontiguousarray(frame.image[..., ::-1]))
    writer.release()
    write_calibration(tmp_path / "calibration.yaml", rendered.camera)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    if readme == "slam/README.md":  # which prints every frame; both print keyframes
        assert len(re.findall(r"^\d+ TRACKING \[", done.stdout, re.MULTILINE)) == 24
    assert len(re.findall(r"^\d+ .*tensor\(", done.stdout, re.MULTILINE)) > 1
    trajectory = read_tum(tmp_path / "trajectory.txt")
    assert len(trajectory) == 24 and trajectory.time_ns[1] == pytest.approx(1e9 / 30, abs=1000)
    assert len(read_ply(tmp_path / "map.ply")) > 1000


@pytest.mark.parametrize("name", slam.__all__)
def test_a_public_name_is_there_and_documented(name):
    value = getattr(slam, name)
    assert inspect.getdoc(value), f"slam.{name} has no docstring"
    assert name in dir(slam)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Slamm'"):
        slam.Slamm  # noqa: B018
    assert (Path(slam.__file__).parent / "py.typed").is_file()


GOOD = np.zeros((120, 160, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "time_s", "depth", "message"),
    [
        (GOOD[:, :80], 1.0, None, r"shape \(120, 160, 3\), got uint8 \(120, 80, 3\)"),
        (GOOD.astype(np.float32), 1.0, None, "must be uint8 RGB"),
        (GOOD[..., 0], 1.0, None, "must be uint8 RGB"),
        ([[1]], 1.0, None, "got list"),
        (GOOD, 0.5, None, "times must be finite and increase, got 0.5 s, the image before was taken at 0.5 s"),
        (GOOD, float("nan"), None, "times must be finite"),
        (GOOD, 1.0, np.zeros((60, 80)), "depth must have the shape"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(rendered, image, time_s, depth, message):
    before = frame_of(GOOD, 0.5, rendered.camera)
    with pytest.raises(ValueError, match=message):
        frame_of(image, time_s, rendered.camera, depth, before)


def test_fed_images_are_the_frames_of_a_source(rendered):
    """The same poses to the byte, whichever way they come in; depth in metres begins the map at once."""
    trajectories = []
    for way in ("run", "feed"):
        config = slam.load_config(slam.SlamConfig, overrides=["pixels=19200"])
        system = slam.build_slam(config, rendered.camera, threads=False)
        source = type(rendered)(rendered.frames[:20], rendered.truth)
        if way == "run":
            system.run(source)
        else:
            for frame in source:
                (estimate,) = system.feed(frame.image, frame.time_ns / 1e9, frame.depth)
                assert estimate.status is slam.Status.TRACKING and estimate.metric
            system.finish()
        trajectories.append(system.store.trajectory())
    assert np.array_equal(trajectories[0].T_wc, trajectories[1].T_wc)
    assert np.array_equal(trajectories[0].time_ns, trajectories[1].time_ns)


def test_the_glossary_names_files_that_exist():
    text = (ROOT / "slam" / "README.md").read_text()
    named = {name for name in re.findall(r"`([a-z_]+/[a-z_]+\.py|[a-z_]+\.py)`", text) if "/" in name}
    assert len(named) > 20
    assert [name for name in sorted(named) if not ((ROOT / "slam" / name).is_file() or (ROOT / name).is_file())] == []
    drawn = re.findall(r"\b([a-z_]+\.py)\b", text.split("```")[1])
    files = {path.name for path in (ROOT / "slam").rglob("*.py")}
    assert len(drawn) > 15 and set(drawn) <= files
