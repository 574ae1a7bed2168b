"""Runs over ROS bags, by command line: as over the same images in a folder."""

import json
from typing import Any

import numpy as np
import pytest

from apps.evaluate import main as evaluate
from apps.run import main
from slam.errors import SourceError, UsageError
from slam.evaluation.report import trajectory_report
from slam.frames import Trajectory
from slam.io.run import Run
from slam.io.trajectory import read_tum, write_tum
from slam.sources.groundtruth import known_truth, read_groundtruth
from slam.sources.reopen import reopened

SHIFT_NS = 10**9
OPTIONS = ["--deterministic", "--quiet", "--set", "pixels=19200"]
POSE, ODOMETRY = "geometry_msgs/msg/PoseStamped", "nav_msgs/msg/Odometry"
TRANSFORM = "geometry_msgs/msg/TransformStamped"


def test_a_bag_is_tracked_as_the_same_images_in_a_folder(ros_recording, rendered, recording, tmp_path):
    """To the last digit where nothing is lost; JPEG at OpenCV's 95 costs some accuracy of tiny images."""
    frames = rendered.frames[:60]
    folder, jpeg = tmp_path / "folder", tmp_path / "jpeg"
    assert main(["--sequence", str(recording), "--max-frames", "60", "--out", str(folder), *OPTIONS]) == 0
    bag = ros_recording.write_walk(
        tmp_path / "walk", frames, "mcap", ros_recording.Coding("png", compression="storage")
    )
    run = tmp_path / "run"
    assert main(["--sequence", str(bag), "--topic", "/camera/color/image_raw", "--out", str(run), *OPTIONS]) == 0
    expected, found = read_tum(folder / "trajectory.txt"), read_tum(run / "trajectory.txt")
    assert np.array_equal(found.time_ns - SHIFT_NS, expected.time_ns) and len(found.time_ns) == 60
    assert np.array_equal(found.T_wc, expected.T_wc)
    record = Run(run).record().source
    assert (record.kind, record.topic) == ("ros", "/camera/color/image_raw")
    again = list(reopened(record))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again, frames, strict=True))

    bag = ros_recording.write_walk(tmp_path / "walk.bag", frames, "ros1", ros_recording.Coding("jpg"))
    assert main(["--sequence", str(bag), "--out", str(jpeg), *OPTIONS]) == 0
    truth = Trajectory(rendered.truth.time_ns + SHIFT_NS, rendered.truth.T_wc)
    report = trajectory_report(read_tum(jpeg / "trajectory.txt"), truth)
    assert np.sqrt(np.mean(report.ate["sim3"].errors ** 2)) < 0.03 * report.path_length_m


def test_what_is_wrong_is_one_line_and_a_code(ros_recording, tmp_path, capsys):
    def write(out: Any) -> None:
        for name in ("left", "right"):
            out.image(f"/{name}/image", np.zeros((24, 32, 3), np.uint8), "rgb8", 10**8)

    with ros_recording.bag(tmp_path / "two.bag") as out:
        write(out)
    (tmp_path / "empty.mcap").touch()
    for arguments, code, words in (
        (
            ["--sequence", str(tmp_path / "two.bag")],
            2,
            "several topics with images, name one by --topic: /left/image (",
        ),
        (
            ["--sequence", str(tmp_path / "two.bag"), "--topic", "/up"],
            2,
            "two.bag has no topic /up; topics with images: ",
        ),
        (["--sequence", str(tmp_path / "empty.mcap")], 1, "empty.mcap is empty"),
        (
            ["--sequence", str(tmp_path / "two.bag"), "--topic", "/left/image", "--use-depth", "on"],
            1,
            "no depth to use",
        ),
        (["--demo", "--topic", "/up"], 2, "--topic /up is for --sequence"),
        (["--camera", "webcam", "--topic", "/up"], 2, "--topic /up is for recordings, not for --camera"),
    ):
        assert main([*arguments, "--quiet"]) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line


@pytest.mark.parametrize(("kind", "type_name"), [("ros1", POSE), ("sqlite3", ODOMETRY), ("mcap", TRANSFORM)])
def test_poses_of_a_bag_are_truth_where_they_are_asked_for(ros_recording, rendered, tmp_path, kind, type_name):
    path = ros_recording.path_of(tmp_path, kind)
    truth = rendered.truth
    with ros_recording.bag(path, kind) as out:
        for time_ns, T_wc in zip(truth.time_ns, truth.T_wc, strict=True):
            ros_recording.write_pose(out, "/truth", type_name, T_wc, int(time_ns) + SHIFT_NS)
    found = read_groundtruth(path)
    assert np.array_equal(found.time_ns, truth.time_ns + SHIFT_NS)
    np.testing.assert_allclose(found.T_wc, truth.T_wc, atol=1e-12)
    assert known_truth(path) is None


def test_of_several_topics_with_poses_the_user_names_one(ros_recording, rendered, tmp_path, capsys):
    path, T_wc = tmp_path / "poses.bag", rendered.truth.T_wc
    with ros_recording.bag(path) as out:
        for n, time_ns in enumerate(rendered.truth.time_ns):
            ros_recording.write_pose(out, "/still", POSE, T_wc[0], int(time_ns) + SHIFT_NS)
            ros_recording.write_pose(out, "/truth", POSE, T_wc[n], int(time_ns) + SHIFT_NS)
    with pytest.raises(
        UsageError, match=r"several topics with poses, name one by --topic: /still \(geometry_msgs/msg/Pose"
    ):
        read_groundtruth(path)
    with pytest.raises(UsageError, match=r"--topic is for ROS bags; .* is none"):
        read_groundtruth(tmp_path, topic="/truth")
    with ros_recording.bag(tmp_path / "none.bag") as out:
        out.image("/image", np.zeros((24, 32, 3), np.uint8), "rgb8", 10**8)
    with pytest.raises(SourceError, match=r"none.bag has no ground truth: no topic of geometry_msgs/msg/PoseStamped"):
        read_groundtruth(tmp_path / "none.bag")
    estimate = tmp_path / "trajectory.txt"
    write_tum(estimate, Trajectory(rendered.truth.time_ns + SHIFT_NS, T_wc))
    arguments = [
        str(estimate),
        "--groundtruth",
        str(path),
        "--topic",
        "truth",
        "--out",
        str(tmp_path / "out"),
        "--no-plots",
    ]
    assert evaluate(arguments) == 0
    numbers = json.loads((tmp_path / "out/metrics.json").read_text())["evaluation"]
    assert "ATE" in capsys.readouterr().out and numbers
