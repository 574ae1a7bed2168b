"""The whole system over a short rendered sequence: states, coverage, what it does in the dark, and its ends."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from slam.build import build_slam
from slam.config import SlamConfig, build_config
from slam.errors import MapError, SourceError, UsageError, WeightsError
from slam.evaluation.trajectory import ate, path_length
from slam.frames import Estimate, Frame, Keyframe, Progress, Status, Trajectory, Update, Window
from slam.frontend.start import PLACED_LIVE
from slam.geometry import se3
from slam.io.map_file import load_map, save_map
from slam.mapping.fusion import FusionConfig, fused_cloud
from slam.networks.motion import FlowSE3
from slam.system import Slam
from slam.warm_up import warm_up

SMALL = {"pixels": 160 * 120}
CLASSICAL = {"correspondence": {"tracking": "dis", "mapping": "dis"}, "depth": {"stereo": "plane_sweep"}}
DARK = range(40, 50)  # frames without an image


class Recorded:
    """Frames of another source, some of them changed."""

    live = False

    def __init__(self, source, frames: list[Frame]) -> None:
        self.frames = frames
        self.camera = source.camera
        self.count = len(frames)
        self.skipped = 0

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def rendered(rendered):
    """The recording without its depth, except in `measured`."""
    source = Recorded(rendered, [replace(f, depth=None) for f in rendered.frames])
    source.truth, source.measured = rendered.truth, rendered
    return source


@pytest.fixture(scope="module")
def measured(rendered):
    """The recording with depth."""
    return rendered.measured


def system(source, threads: bool = False, live: bool = False, earlier: Sequence[Keyframe] = (), **sections) -> Slam:
    config = build_config(SlamConfig, SMALL | sections)
    return build_slam(config, source.camera, threads=threads, live=live, earlier=earlier)


def watched(slam: Slam, source, **options) -> tuple[list[Progress], list[Estimate]]:
    """Run it; what was published, and the poses as first estimated."""
    published: list[Progress] = []
    estimates: list[Estimate] = []
    slam.run(source, published.append, estimates.extend, **options)
    return published, estimates


@pytest.fixture(scope="module")
def through_the_dark(rendered):
    """A run in which ten frames are plain gray."""
    gray = np.full_like(rendered.frames[0].image, 90)
    source = Recorded(rendered, [replace(f, image=gray) if f.id in DARK else f for f in rendered.frames])
    slam = system(source)
    return slam, *watched(slam, source)


def test_states_go_from_init_to_tracking_to_lost_and_back(through_the_dark):
    slam, published, estimates = through_the_dark
    states = [progress.status for progress in published]
    assert len(states) == 75 and states[0] is Status.INIT
    changes = [(n, b) for n, (a, b) in enumerate(itertools.pairwise(states), 1) if a is not b]
    assert [state for _, state in changes] == [Status.TRACKING, Status.LOST, Status.TRACKING]
    assert changes[1][0] == DARK.start and DARK.stop <= changes[2][0] < DARK.stop + 3
    assert [e.frame_id for e in estimates] == list(range(75))  # each frame once, those before the first map too


def test_counts_of_a_run_through_the_dark(through_the_dark):
    slam, published, _ = through_the_dark
    counts = slam.counts
    assert counts.seen == 75 and counts.tracked + counts.lost == 75
    assert len(DARK) <= counts.lost < len(DARK) + 3 and (counts.dropped, counts.skipped) == (0, 0)
    assert [p.counts.seen for p in published] == list(range(1, 76))  # copies, not one that changes


def test_one_trajectory_before_and_after_the_dark(through_the_dark, rendered):
    """Found again against a keyframe of the same map, so one alignment fits both parts: 2 % of the path.

    A second map of its own scale and origin would put the part after the gap decimetres away.
    """
    slam, _, _ = through_the_dark
    trajectory, truth = slam.store.trajectory(), rendered.truth
    result = ate(trajectory, truth, "sim3", frames_seen=75)
    assert result.rmse < 0.02 * path_length(truth)
    assert not set(truth.time_ns[DARK.start : DARK.stop].tolist()) & set(trajectory.time_ns.tolist())
    assert set(truth.time_ns[DARK.stop + 3 :].tolist()) <= set(trajectory.time_ns.tolist())


def test_a_camera_that_stood_still_first_does_not_wait_for_its_old_frames(rendered):
    """Placing hundreds of gathered frames takes seconds, in which a live camera moves out of sight of the first map."""
    frames = [rendered.frames[0]] * 30 + rendered.frames[1:]
    frames = [replace(f, id=n, time_ns=n * 10**7) for n, f in enumerate(frames)]

    def first_map(live: bool) -> list[Estimate]:
        slam = system(rendered, live=live)
        return next(estimates for frame in frames if (estimates := slam.step(frame)))

    recorded, live = first_map(False), first_map(True)
    assert [e.frame_id for e in recorded] == list(range(len(recorded))) and len(recorded) > 30
    assert len(live) == 1 + PLACED_LIVE and live[-1].frame_id == recorded[-1].frame_id  # the keyframe itself, the last
    assert live[-1].status is Status.TRACKING


def test_a_source_without_frames_ends_without_a_map(rendered):
    for threads in (False, True):
        slam = system(rendered, threads)
        published, estimates = watched(slam, Recorded(rendered, []))
        assert (published, estimates, len(slam.store), slam.counts.seen) == ([], [], 0, 0)
        assert len(slam.store.trajectory()) == len(slam.store.keyframe_trajectory()) == 0


def test_nothing_is_tracked_after_stop(rendered):
    for threads in (False, True):
        slam = system(rendered, threads)
        published, _ = watched(slam, rendered, stopped=lambda slam=slam: slam.counts.seen == 20)
        assert slam.counts.seen == len(published) == 20


def test_keyframes_that_the_backend_refined_reach_the_map_in_both_modes(rendered):
    for threads in (False, True):
        slam = system(rendered, threads)
        watched(slam, Recorded(rendered, rendered.frames[:40]))
        assert len(slam.store) > 1
        assert all(keyframe.refined for keyframe in slam.store.keyframes)


def test_a_consumer_that_fails_ends_the_run_and_its_threads(rendered):
    def refuse(progress: Progress) -> None:
        raise RuntimeError("a viewer broke")

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="a viewer broke"):
        system(rendered, threads=True).run(rendered, refuse)
    assert not set(threading.enumerate()) - before


def test_a_source_that_fails_is_heard_in_both_modes(rendered):
    class Failing(Recorded):
        def __iter__(self) -> Iterator[Frame]:
            yield from self.frames[:3]
            raise SourceError("unplugged")

    for threads in (False, True):
        slam = system(rendered, threads)
        with pytest.raises(SourceError, match="unplugged"):
            slam.run(Failing(rendered, rendered.frames))
        assert slam.counts.seen == 3


def test_the_record_says_what_was_built(rendered, tmp_path):
    record = system(rendered).record
    assert (record.tracking, record.mapping, record.stereo) == ("learned_photometric", "dis", "learned")
    assert not record.threads and record.weights == "fast.safetensors" and len(record.weights_sha256) == 64
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        build_slam(build_config(SlamConfig, SMALL), rendered.camera, tmp_path / "none.safetensors", threads=False)
    with pytest.raises(UsageError, match="is not used"):
        build_slam(
            build_config(SlamConfig, SMALL | CLASSICAL), rendered.camera, tmp_path / "x.safetensors", threads=False
        )
    assert system(rendered, **CLASSICAL).record.weights is None


@pytest.mark.parametrize(
    ("correspondence", "bound"),
    [({}, 0.016), ({"tracking": "learned", "mapping": "learned"}, 0.033), ({"tracking": "dis_photometric"}, 0.02)],
    ids=["default", "without refinement", "refined DIS"],
)
def test_the_shipped_networks_run_on_both_threads(rendered, correspondence, bound):
    """Gradients are off on every thread; ATE is held to twice what it was, as part of the path."""
    slam = system(rendered, threads=True, correspondence=correspondence)
    slam.run(rendered)
    trajectory = slam.store.trajectory()
    assert len(trajectory) > 0.9 * len(rendered.frames) and len(slam.store) > 1
    assert ate(trajectory, rendered.truth, "sim3").rmse < bound * path_length(rendered.truth)
    assert all(not k.dense.value.requires_grad for k in slam.store.keyframes)


def test_the_larger_profile_brings_its_image_size_and_runs(measured):
    slam = build_slam(build_config(SlamConfig, {"profile": "base"}), measured.camera, threads=False)
    assert (slam.preparation.camera.width, slam.preparation.camera.height) == (320, 240)
    slam = system(measured, profile="base")
    watched(slam, Recorded(measured, measured.frames[:25]))
    assert slam.preparation.camera.width == 160 and slam.record.weights == "base.safetensors"
    assert slam.counts.tracked == 25 and len(slam.store) > 1
    assert ate(slam.store.trajectory(), measured.truth, "se3").rmse < 0.01 * path_length(measured.truth)


def test_with_depth_the_map_begins_with_the_first_frame_and_is_in_metres(measured):
    """Exact depth, but images of 160x120, where the flow is biased near edges: 1 % of the path, 2 % of scale."""
    slam = system(measured)
    published, estimates = watched(slam, measured)
    assert all(p.status is Status.TRACKING for p in published) and [e.frame_id for e in estimates] == list(range(75))
    trajectory = slam.store.trajectory()
    assert ate(trajectory, measured.truth, "se3").rmse < 0.01 * path_length(measured.truth)
    assert ate(trajectory, measured.truth, "sim3").scale == pytest.approx(1, abs=0.02)
    keyframes = slam.store.keyframes
    assert len(keyframes) > 1 and all(k.metric for k in keyframes) and all(e.metric for e in estimates)
    assert all(k.scale == pytest.approx(1, abs=0.01) for k in keyframes)
    size = keyframes[0].dense.value.shape
    for k in keyframes:
        truth = cv2.resize(measured.frames[k.view.frame_id].depth, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        assert np.median(np.abs(k.dense.value.numpy() * truth - 1)) < 0.01


def test_depth_in_every_third_frame_keeps_the_scale_and_keyframes_wait_for_it(measured):
    frames = [f if f.id % 3 == 1 else replace(f, depth=None) for f in measured.frames]
    slam = system(measured)
    _, estimates = watched(slam, Recorded(measured, frames))
    assert [e.frame_id for e in estimates] == list(range(75))  # the first was placed by the second, which began the map
    assert all(k.view.frame_id % 3 == 1 for k in slam.store.keyframes) and len(slam.store) > 1
    assert ate(slam.store.trajectory(), measured.truth, "se3").rmse < 0.015 * path_length(measured.truth)


def test_when_the_depth_camera_fails_the_map_goes_on_in_metres(measured, caplog):
    """After frame 20 its depth is all zero, then of another size, then not a number: one warning for each kind."""
    gone = np.zeros_like(measured.frames[0].depth)
    broken = {**dict.fromkeys(range(20, 40), gone), **dict.fromkeys(range(40, 50), gone[:60])}
    broken |= dict.fromkeys(range(50, 75), np.full_like(gone, np.nan))
    source = Recorded(measured, [replace(f, depth=broken.get(f.id, f.depth)) for f in measured.frames])
    slam = system(measured)
    watched(slam, source)
    assert len(slam.store.trajectory()) == 75 and all(k.metric for k in slam.store.keyframes)
    assert slam.store.keyframes[-1].view.sensor_depth is None
    assert ate(slam.store.trajectory(), measured.truth, "se3").rmse < 0.03 * path_length(measured.truth)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == [
        "frame 20: 0 % of its sensor depth is known, it is not used",
        "frame 40: depth of 160x60 for an image of 160x120 is not used; align it to the image",
    ]


def test_depth_that_comes_after_the_map_began_does_not_change_its_unit(rendered, measured, caplog):
    frames = [*rendered.frames[:20], *measured.frames[20:35]]
    slam = system(rendered)
    watched(slam, Recorded(rendered, frames))
    assert len(slam.store) > 2
    assert all(not k.metric and k.view.sensor_depth is None for k in slam.store.keyframes)
    late, colour = slam.store.trajectory(), system(rendered)
    watched(colour, Recorded(rendered, rendered.frames[:35]))
    assert np.array_equal(late.T_wc, colour.store.trajectory().T_wc)


def test_a_dark_first_image_does_not_begin_a_map_whatever_its_depth(measured):
    dark = np.full_like(measured.frames[0].image, 8)
    frames = [replace(f, image=dark) if f.id < 5 else f for f in measured.frames[:12]]
    slam = system(measured)
    published, _ = watched(slam, Recorded(measured, frames))
    assert [p.status for p in published] == [Status.INIT] * 5 + [Status.TRACKING] * 7
    assert slam.store.keyframes[0].view.frame_id == 5


def test_a_run_ends_with_a_keyframe_that_the_backend_has_seen(rendered):
    slam = system(rendered)
    frames = [replace(frame, depth=None) for frame in rendered.frames]
    estimates = [estimate for frame in frames[:60] for estimate in slam.step(frame)]
    assert estimates[-1].mean_flow_px > 4 and slam.store.keyframes[-1].view.frame_id < 59
    slam.finish()
    last = slam.store.keyframes[-1]
    assert last.view.frame_id == slam.counts.seen - 1 and last.refined


def test_a_recording_waits_for_its_pending_keyframe_after_a_few_frames(measured, monkeypatch):
    """However slow the backend: of the frames tracked against the old reference none is farther behind."""
    slam = system(measured, threads=True, keyframing={"patience_frames": 3}, correspondence={"tracking": "dis"})
    adjust = slam.parts.backend.adjustment.adjust_window

    def slow(*given):
        time.sleep(0.5)
        return adjust(*given)

    slam.parts.backend.adjustment.adjust_window = slow
    behind: list[int] = []

    def seen(progress: Progress) -> None:
        pending = slam.localiser.pending_id
        behind.append(0 if pending is None else progress.frame.id - slam.store[pending].view.frame_id)

    slam.run(measured, seen)
    assert len(slam.store) >= 3 and max(behind) == 2


def test_a_camera_does_not_wait_for_a_backend_that_is_busy(measured):
    """With its inbox full a keyframe serves as it is: none stays pending, and the next window holds it."""
    slam = system(measured, threads=True, live=True, correspondence={"tracking": "dis"})  # takes three keyframes here
    submit, windows, busy = slam.backend.submit, [], iter([True, *[False] * 100])

    def busy_once(window: Window) -> bool:
        windows.append([k.id for k in window.keyframes])
        return not next(busy) and submit(window)

    slam.backend.submit = busy_once
    for frame in measured.frames:
        slam.step(frame)
        if len(slam.store) == 2:
            assert slam.localiser.pending_id is None and slam.localiser.reference_id == 1
    slam.finish()
    assert windows[:2] == [[0, 1], [0, 1, 2]]
    assert all(k.refined for k in slam.store.keyframes)
    assert ate(slam.store.trajectory(), measured.truth, "se3").rmse < 0.02 * path_length(measured.truth)


def test_what_the_backend_finished_before_it_died_is_kept(measured):
    slam = system(measured, threads=True)
    slam.step(measured.frames[0])
    keyframe = slam.store.keyframes[0]
    slam.backend.submit(Window((keyframe,)))
    slam.backend.submit(Window((keyframe, replace(keyframe, id=1, coarse=None))))  # the worker dies of it
    with pytest.raises(AttributeError):
        slam.finish()
    assert slam.store[keyframe.id].refined


# the map: bounded, saved, gone on in


def test_a_disk_that_takes_no_keyframes_leaves_them_in_memory(measured, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    sections = {"keyframing": {"flow_px": 3.0}, "backend": {"window": 3, "held": 1}, "max_keyframes": 9}
    slam = system(measured, **sections)
    slam.store.archive_in(tmp_path / "file" / "evicted")
    watched(slam, measured)
    assert len(slam.store) > 11 and slam.counts.tracked == 75
    assert caplog.text.count("all keyframes stay in memory") == 1


def test_the_active_map_is_bounded_and_the_results_are_whole(measured, tmp_path):
    """Nine keyframes stay; of the others, on the disk, pose and image are there at the end."""
    sections = {"keyframing": {"flow_px": 3.0}, "backend": {"window": 3, "held": 1}, "max_keyframes": 9}
    slam = system(measured, **sections)
    slam.store.archive_in(tmp_path / "old")
    published, estimates = watched(slam, measured)
    assert max(len(p.snapshot.keyframes) for p in published) == len(slam.store) == 9
    assert slam.store.keyframes[0].id == 0 and len(estimates) == len(slam.store.trajectory()) == 75
    everything = slam.store.everything()
    assert len(everything) > 11 and [k.id for k in everything] == list(range(len(everything)))
    assert len(slam.store.keyframe_trajectory()) == len(everything)
    gone = [k for k in everything if k.id not in slam.store]
    of_frame = dict(zip(measured.truth.time_ns.tolist(), slam.store.trajectory().T_wc, strict=True))
    for k in gone:
        assert np.array_equal(k.view.image.rgb, slam.preparation.prepare(measured.frames[k.view.frame_id]).image.rgb)
        np.testing.assert_allclose(of_frame[k.view.time_ns], k.T_wc.numpy(), atol=1e-9)
    assert ate(slam.store.trajectory(), measured.truth, "se3").rmse < 0.015 * path_length(measured.truth)
    assert len(list((tmp_path / "old").glob("*.raw"))) == len(gone)
    slam.store.close()
    assert not (tmp_path / "old").exists()


@pytest.fixture(scope="module")
def first_half(measured, tmp_path_factory):
    """A run over the first 45 frames, and its map in a file."""
    slam = system(measured)
    watched(slam, Recorded(measured, measured.frames[:45]))
    path = tmp_path_factory.mktemp("map") / "half.map"
    save_map(path, slam.store.everything())
    return slam, path


def test_a_camera_is_found_in_a_saved_map_and_goes_on_in_it(first_half, rendered, measured):
    """Both runs in one frame and one unit, though the second camera has no depth: one alignment fits both."""
    earlier, path = first_half
    slam = system(rendered, earlier=load_map(path))
    assert slam.status is Status.LOST and len(slam.store) == len(earlier.store)
    published, estimates = watched(slam, Recorded(rendered, rendered.frames[45:]))
    assert next(n for n, p in enumerate(published) if p.status is Status.TRACKING) < 15  # of 15 in a second
    assert sum(e.status is Status.TRACKING for e in estimates) > 25 and all(e.metric for e in estimates)
    runs = earlier.store.trajectory(), slam.store.trajectory()
    both = Trajectory(*(np.concatenate([getattr(run, name) for run in runs]) for name in ("time_ns", "T_wc")))
    assert ate(both, measured.truth, "se3").rmse < 0.02 * path_length(measured.truth)
    assert all(k.id >= len(earlier.store) for k in slam.store.keyframes if k.view.frame_id >= 0)
    assert len(slam.store.keyframe_trajectory()) == len(slam.store) - len(earlier.store)  # of this run alone


def test_beginning_in_a_saved_map_encodes_none_of_its_images(first_half, rendered, monkeypatch):
    """Only the few that are matched need features, when they are."""
    encoded: list[int] = []
    encode = FlowSE3.encode

    def counted(network: FlowSE3, images: torch.Tensor):
        encoded.append(len(images))
        return encode(network, images)

    monkeypatch.setattr(FlowSE3, "encode", counted)
    slam = system(rendered, earlier=load_map(first_half[1]))
    assert encoded == []
    slam.step(rendered.frames[45])
    assert encoded


def test_a_foreign_camera_is_not_found_in_a_saved_map(first_half, rendered):
    _, path = first_half
    slam = system(rendered, earlier=load_map(path))
    foreign = np.random.default_rng(0).integers(0, 255, rendered.frames[0].image.shape, np.uint8)
    watched(slam, Recorded(rendered, [replace(f, image=foreign) for f in rendered.frames[:3]]))
    assert slam.counts.lost == 3 and not slam.counts.tracked and len(slam.store.trajectory()) == 0


def test_a_saved_map_that_is_too_large_is_culled_as_it_is_loaded(first_half, rendered):
    known = load_map(first_half[1])
    keyframes = [replace(known[n % len(known)], id=n, parent_id=n - 1) for n in range(14)]
    slam = system(rendered, backend={"window": 3, "held": 1}, max_keyframes=9, earlier=keyframes)
    ids = [k.id for k in slam.store.keyframes]
    assert len(ids) == 9 and ids[0] == 0 and ids[-6:] == list(range(8, 14))
    slam.finish()  # the backend got those and no others
    assert [k.id for k in slam.parts.backend.graph.keyframes] == ids and len(slam.store.everything()) == 14
    slam.store.close()


def test_a_map_of_another_camera_or_flow_is_refused(first_half, rendered):
    keyframes = load_map(first_half[1])
    camera = rendered.camera
    for other in (replace(camera, fx=1.1 * camera.fx, fy=1.1 * camera.fy), replace(camera, height=100)):
        with pytest.raises(MapError, match="another camera"):
            build_slam(build_config(SlamConfig, SMALL), other, threads=False, earlier=keyframes)
    with pytest.raises(MapError, match=r"correspondence\.tracking"):
        system(rendered, correspondence={"tracking": "learned", "mapping": "learned"}, earlier=keyframes)


# gaps in time


def test_after_a_gap_the_place_is_looked_for_and_older_plans_are_dropped(measured):
    """The camera jumps back to its start while the backend works on a keyframe: that is no reference any more."""
    slam = system(measured, live=True)
    results, slam.backend.results = slam.backend.results, lambda: []  # busy
    frames = iter(measured.frames)
    while slam.localiser.pending_id is None:
        last = next(frames)
        slam.step(last)
    back = [
        replace(f, id=last.id + 1 + n, time_ns=last.time_ns + 5 * 10**9 + n * 66 * 10**6)
        for n, f in enumerate(measured.frames[1:4])
    ]
    (found,) = slam.step(back[0])
    assert found.status is Status.TRACKING and found.keyframe_id == slam.localiser.reference_id == 0
    slam.backend.results = results
    for frame in back[1:]:
        (estimate,) = slam.step(frame)
        assert estimate.status is Status.TRACKING and estimate.keyframe_id == 0


def test_a_source_of_the_other_kind_is_refused(measured):
    with pytest.raises(ValueError, match="live=True"):
        system(measured, live=True).run(measured)


# the end


@pytest.mark.parametrize("final_refine", [True, False])
def test_the_whole_map_is_adjusted_together_at_the_end_if_asked(measured, final_refine):
    slam = system(measured, final_refine=final_refine, keyframing={"flow_px": 6.0})
    for frame in measured.frames[:40]:
        slam.step(frame)
    graph = slam.parts.backend.graph
    for update in slam.backend.results():
        slam.store.apply(update)
    keyframe = graph.keyframes[-1]
    truth = se3.inverse(torch.from_numpy(measured.truth.T_wc[0])) @ torch.from_numpy(
        measured.truth.T_wc[keyframe.view.frame_id]
    )
    moved = se3.exp(torch.tensor([0.05, 0, 0, 0, 0, 0], dtype=torch.float64)) @ keyframe.T_wc
    graph.put([replace(keyframe, T_wc=moved)])
    slam.store.apply(Update((graph[keyframe.id],), {}))
    slam.finish()
    before, after = (float((T_wc - truth)[:3, 3].norm()) for T_wc in (moved, slam.store[keyframe.id].T_wc))
    assert after < 0.3 * before if final_refine else after == pytest.approx(before)


def test_the_fused_cloud_lies_on_the_surfaces_and_covers_them(measured):
    """Seen from true poses: each point where some view has a surface, and points wherever keyframes saw one."""
    slam = system(measured)
    watched(slam, measured)
    keyframes = slam.store.everything()
    cloud = fused_cloud(keyframes, FusionConfig())
    T_wc = torch.from_numpy(measured.truth.T_wc)
    points = torch.from_numpy(cloud.points).double()
    points = points @ T_wc[0, :3, :3].T + T_wc[0, :3, 3]  # the first frame is the world of the map
    K = measured.camera.matrix()
    on_surface, covered = torch.zeros(len(points), dtype=torch.bool), []
    for n in range(0, 75, 6):
        p_c = (points - T_wc[n, :3, 3]) @ T_wc[n, :3, :3]
        u, v = ((p_c @ K.T)[:, :2] / p_c[:, 2:]).round().long().T
        seen = (p_c[:, 2] > 0.1) & (u >= 0) & (u < 160) & (v >= 0) & (v < 120)
        true = torch.from_numpy(measured.frames[n].depth).double()
        right = ((p_c[seen, 2] / true[v[seen], u[seen]] - 1).abs() < 0.02).nonzero()[:, 0]
        indices = seen.nonzero()[:, 0][right]
        on_surface[indices] = True
        hit = torch.zeros(15, 20, dtype=torch.bool)
        hit[v[indices] // 8, u[indices] // 8] = True
        covered.append(float(hit.double().mean()))
    assert float(on_surface.double().mean()) > 0.99
    assert np.median(covered) > 0.75  # but along occlusion edges


def test_warming_up_works_on_what_is_not_there_yet_and_leaves_nothing_behind(rendered, caplog):
    """A live system has tracked, adjusted, densified and looked at a single view when its first frame comes."""
    slam = system(rendered, live=True)
    assert len(slam.store) == 0 and len(slam.parts.backend.graph) == 0 and slam.status is Status.INIT
    adjusted: list[int] = []
    densify = slam.parts.backend.densification.densify

    def counted(chain, ends=False):
        dense = densify(chain, ends)
        adjusted.extend(k.id for k in dense)
        assert all(k.refined for k in chain)
        return dense

    slam.parts.backend.densification.densify = counted
    guessed: list[int] = []
    slam.parts.prior.network.register_forward_hook(lambda *_: guessed.append(1))
    warm_up(slam.parts)
    assert adjusted == [0] and guessed and not caplog.records
