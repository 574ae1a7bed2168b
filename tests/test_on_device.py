"""A whole run on a device that is not the CPU, without one: by tensors alone, and on a pretended device whose tensors
must not meet those of the host. On a GPU where there is one."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slam.build import build_slam
from slam.config import SlamConfig, build_config
from slam.device import chosen_device
from slam.errors import UsageError
from slam.frames import Frame, Keyframe, Status
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.io.map_file import load_map, save_map
from slam.io.run import write_keyframes
from slam.io.run_directory import RunDirectory
from slam.kernels.compile import tensors_only
from slam.mapping.fusion import fused_cloud
from slam.recognition.relative_pose import median_inv_depths, scale_ratio
from slam.solvers.bundle import bundle_adjust
from slam.solvers.gauss_newton import pose_step
from slam.sources.demo import DemoConfig, DemoSource
from slam.system import Slam
from slam.viewer.shapes import median_depth
from tests.training.pretended import DEVICE, OnDevice, PretendedDevice


@pytest.fixture(scope="module")
def orbit() -> tuple[DemoSource, list[Frame]]:
    """12 frames of a camera that goes around a desk, with depth."""
    config = DemoConfig(kind="office", variant="orbit", frames=12, width=160, height=120, fps=3.0)
    source = DemoSource(config, with_depth=True)
    return source, list(source)


@pytest.fixture
def pretended(monkeypatch) -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Inside its context systems are built on the pretended device."""

    @contextlib.contextmanager
    def entered() -> Iterator[None]:
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        monkeypatch.setattr("slam.build.chosen_device", lambda name: DEVICE)
        with PretendedDevice():
            yield
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        monkeypatch.undo()

    return entered


def ran(
    orbit: tuple[DemoSource, list[Frame]], frames: list[Frame], device: str = "cpu", threads: bool = False, **sections
) -> Slam:
    """The system after it has taken these frames; keyframes are many, and loops may be short."""
    given = {"pixels": 160 * 120, "precision": "float32", "device": device, "keyframing": {"flow_px": 8.0}}
    config = build_config(SlamConfig, given | {"loops": {"min_gap": 1}} | sections)
    slam = build_slam(config, orbit[0].camera, threads=threads)
    for frame in frames:
        slam.step(frame)
    slam.finish()
    return slam


def without_depth(frames: list[Frame]) -> list[Frame]:
    return [replace(frame, depth=None) for frame in frames]


def largest_shift(a: Slam, b: Slam) -> float:
    """Between the positions of two runs, in units of the map."""
    first, second = a.store.trajectory(), b.store.trajectory()
    assert len(first) > 5 and (first.time_ns == second.time_ns).all()
    return float(np.linalg.norm(first.T_wc[:, :3, 3] - second.T_wc[:, :3, 3], axis=-1).max())


def is_split(keyframe: Keyframe) -> bool:
    """True if its maps are on the device and its state is on the host."""
    maps = (keyframe.dense.value, keyframe.dense.sigma, keyframe.coarse.value, keyframe.coarse.sigma)
    state = (keyframe.T_wc, keyframe.view.K)
    return all(isinstance(m, OnDevice) for m in maps) and all(s.device.type == "cpu" for s in state)


def test_tensors_give_the_trajectory_of_the_loops(orbit):
    """They add up in another order: four thousandths of the median depth are more than that does."""
    frames = without_depth(orbit[1])
    by_loops = ran(orbit, frames)
    with tensors_only():
        by_tensors = ran(orbit, frames)
    assert len(by_loops.store) > 2 and by_loops.counts == by_tensors.counts
    assert 0 < largest_shift(by_loops, by_tensors) < 4e-3


def test_a_run_keeps_maps_on_the_device_and_state_on_the_host(orbit, pretended, tmp_path):
    frames = without_depth(orbit[1])
    with tensors_only():
        expected = ran(orbit, frames)
    with pretended():
        slam = ran(orbit, frames)
        assert slam.counts.tracked == len(frames) and slam.record.device == str(DEVICE)
        assert len(slam.store) > 2 and all(is_split(k) for k in slam.store.keyframes)
        assert slam.parts.backend.closer is not None and slam.parts.backend.closer.loops
        written_and_drawn(slam, tmp_path)
    assert largest_shift(expected, slam) < 1e-3


def written_and_drawn(slam: Slam, folder: Path) -> None:
    """All that leaves the system, also of keyframes that are on the disk."""
    slam.store.evict(slam.store.keyframes[1].id)
    everything = slam.store.everything()
    cloud = fused_cloud(everything)
    on_host = fused_cloud(tuple(k.on_host() for k in everything))
    assert len(cloud) > 100 and abs(len(cloud) - len(on_host)) < 0.01 * len(cloud)
    save_map(folder / "map", everything)
    earlier = load_map(folder / "map")
    torch.testing.assert_close(earlier[0].coarse.value, everything[0].on_host().coarse.value)
    config = replace(slam.config, device="cpu")
    again = build_slam(config, slam.preparation.source, threads=False, earlier=earlier)
    assert all(is_split(k) for k in again.store.keyframes)
    run = RunDirectory(folder / "run")
    write_keyframes(run, everything)
    assert not run.missing and median_depth(everything) > 0
    assert median_inv_depths(slam.store.keyframes).device.type == "cpu"
    first, last = slam.store.keyframes[0], slam.store.keyframes[-1]
    T_no = se3.inverse(last.T_wc) @ first.T_wc
    ratio = scale_ratio(first, last, T_no, slam.localiser.matcher.stride)
    assert ratio is not None and 0.8 < ratio < 1.25


def test_sensor_depth_and_a_lost_camera(orbit, pretended):
    """Metric from the first frame; then something that is nowhere in the map, and a place of it."""
    _, frames = orbit
    noise = np.random.default_rng(0).integers(0, 255, frames[0].image.shape).astype(np.uint8)
    shown = [*frames[:4], replace(frames[4], image=noise), replace(frames[5], image=frames[2].image)]
    with pretended():
        slam = ran(orbit, shown)
        assert all(is_split(k) and k.metric for k in slam.store.keyframes) and len(slam.store) > 1
        assert (slam.counts.tracked, slam.counts.lost) == (5, 1) and slam.status is Status.TRACKING


def test_the_backend_waits_for_the_device_once_for_each_step(pretended):
    """And twice more: for the weight of all, and to know that nothing was infinite."""
    g = torch.Generator().manual_seed(0)
    N, pairs = 4, torch.tensor([(i, j) for i in range(4) for j in range(4) if i != j])
    K = torch.tensor([[10.0, 0, 6.5], [0, 11.0, 4], [0, 0, 1]], dtype=torch.float64)
    T_cw = se3.exp(0.05 * torch.randn(N, 6, generator=g, dtype=torch.float64))
    with pretended():
        target = (10 * torch.rand(len(pairs), 9, 14, 2, generator=g)).to(DEVICE)
        weight, inv_depth = torch.ones_like(target), torch.ones(N, 9, 14, device=DEVICE)
        fixed = torch.arange(N) == 0
        before = PretendedDevice.waits
        bundle_adjust(target, weight, pairs, T_cw, inv_depth, (inv_depth, inv_depth), fixed, K, steps=5)
        assert PretendedDevice.waits - before == 5 + 2
        before = PretendedDevice.waits
        pose_step(target[:N], weight[:N], inv_depth, T_cw, K.expand(N, 3, 3), steps=3)
        assert PretendedDevice.waits - before == 3 + 1


def test_a_depth_goes_to_a_device_and_back(pretended):
    depth = InvDepth(torch.rand(3, 4), torch.rand(3, 4))
    assert depth.on_host() is depth
    with pretended():
        there = depth.to(DEVICE)
        assert there.to(DEVICE) is there and there.device == DEVICE
        assert torch.equal(there.on_host().sigma, depth.sigma)


def test_a_device_that_is_not_there_is_one_line_and_auto_does_without(monkeypatch, caplog):
    assert chosen_device("cpu") == torch.device("cpu")
    for name in ("toaster", "cuda:", "mps", "CPU", ""):
        with pytest.raises(UsageError, match=f"--device {name} is not known"):
            chosen_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen_device("auto") == torch.device("cpu") and not caplog.records
    if torch.cuda.device_count() == 0:
        with pytest.raises(UsageError, match=r"--device cuda:1 cannot be used here \(.+\); cpu always can") as caught:
            chosen_device("cuda:1")
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_gpu_that_does_not_work_is_not_used_and_auto_says_why(monkeypatch, caplog):
    def refused(*given):
        raise RuntimeError("no kernel image is available for execution on the device\nCUDA kernel errors ...")

    make = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device=None: make(*size))  # as if it were there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    assert chosen_device("auto") == chosen_device("cuda") == torch.device("cuda")
    monkeypatch.setattr("slam.device.F.conv2d", refused)
    assert chosen_device("auto") == torch.device("cpu")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "Old GPU" in caplog.text and "no kernel image" in caplog.text and "CUDA kernel" not in caplog.text
    with pytest.raises(UsageError, match="--device cuda cannot be used here"):
        chosen_device("cuda")


def test_eight_bits_are_for_the_cpu(orbit, monkeypatch):
    monkeypatch.setattr("slam.build.chosen_device", lambda name: DEVICE)
    config = build_config(SlamConfig, {"precision": "int8"})
    with pytest.raises(UsageError, match="precision=int8 is for the CPU"):
        build_slam(config, orbit[0].camera)


@pytest.mark.parametrize("depth", [False, True], ids=["monocular", "sensor depth"])
@pytest.mark.parametrize("precision", ["float32", "auto"])
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_tracks_and_maps_like_the_cpu(orbit, depth: bool, precision: str, tmp_path):
    """Half precision moves flows by hundredths of a pixel; a pixel is half a percent of the depth."""
    frames = orbit[1] if depth else without_depth(orbit[1])
    expected = ran(orbit, frames)
    slam = ran(orbit, frames, "cuda", precision=precision)
    assert slam.record.device.startswith("cuda (") and slam.counts == expected.counts
    assert all(k.dense.device.type == k.coarse.device.type == "cuda" for k in slam.store.keyframes)
    assert all(k.T_wc.device.type == "cpu" for k in slam.store.keyframes)
    assert largest_shift(expected, slam) < (2e-3 if precision == "float32" else 1e-2)
    fused, save = fused_cloud(slam.store.everything()), tmp_path / "map"
    save_map(save, slam.store.everything())
    assert len(fused) > 100 and len(load_map(save)) == len(slam.store)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_threads_share_a_gpu_and_one_thread_repeats_itself(orbit):
    """Which keyframe a frame is tracked against hangs on time where there are threads: on the CPU that makes 1 % of the
    depth. Without them the same frames give the same poses."""
    frames = without_depth(orbit[1])
    threaded, first, second = ran(orbit, frames, "cuda", threads=True), *(ran(orbit, frames, "cuda") for _ in range(2))
    assert threaded.counts == first.counts and len(threaded.store) == len(first.store)
    assert largest_shift(first, threaded) < 0.05
    assert largest_shift(first, second) == 0
