import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slam.errors import ConfigError, WeightsError
from slam.geometry import se3
from slam.networks.storage import load_networks, read_metadata
from slam.training.clips import Clip, ClipPool
from slam.training.data import make_batch
from slam.training.trainer import MAX_STEP_S, TrainConfig, Trainer
from slam.training.validation import NO_CHANGE
from tests.training.tiny import TINY

CPU = torch.device("cpu")
PLAIN = replace(NO_CHANGE, crop_height=48, crop_width=64)


def trainer(stage: str, plane_clip, clips: int = 2, rank: int = 0, **settings) -> Trainer:
    generator = torch.Generator().manual_seed(7)
    pool = ClipPool(8)
    for _ in range(clips):
        pool.add(plane_clip(generator))
    config = TrainConfig(stage=stage, clips=2, views=3, edges=8, iters=2, stereo_every=1, augment=PLAIN, **settings)
    return Trainer(TINY, config, pool, lambda g: [], CPU, rank)


@pytest.mark.parametrize(
    ("stage", "name", "steps"), [("motion", "residual", 80), ("stereo", "depth", 60), ("prior", "shape", 150)]
)
def test_training_on_two_clips_lowers_the_error(stage: str, name: str, steps: int, plane_clip):
    """Mean of the first ten steps against the last ten; without learning the ratio is 1, with a wrong sign above it."""
    t = trainer(stage, plane_clip, learning_rate=3e-3)
    errors = [t.step(0.1).get(name) for _ in range(steps)]
    found = [e for e in errors if e is not None]
    assert sum(found[-10:]) < 0.5 * sum(found[:10])


def test_resumed_training_takes_the_same_next_step(tmp_path, plane_clip):
    first = trainer("joint", plane_clip)
    for _ in range(3):
        first.step(0.2)
    first.save(tmp_path)
    resumed = trainer("joint", plane_clip)
    resumed.load(tmp_path / "checkpoint.pt")
    assert first.step(0.3) == resumed.step(0.3)
    for a, b in zip(first.networks.state_dict().values(), resumed.networks.state_dict().values()):
        assert torch.equal(a, b)
    for name, value in first.average.items():
        assert torch.equal(value, resumed.average[name])
    assert vars(first.counts) == vars(resumed.counts) and first.counts.step == 4


def prior_trainer(plane_clip, make: Callable[[torch.Generator], list[Clip]] = lambda g: []) -> Trainer:
    """On pairs of three sizes of image, as `RenderedPairs` makes them."""
    generator, pool = torch.Generator().manual_seed(7), ClipPool(8)
    for height, width in ((48, 64), (64, 48), (48, 64), (32, 96), (64, 48)):
        pool.add(plane_clip(generator, 2, height, width))
    config = TrainConfig(stage="prior", clips=2, views=2, augment=replace(NO_CHANGE, flip=0.5))
    return Trainer(TINY, config, pool, make, CPU)


def test_the_prior_learns_from_pictures_of_several_sizes_one_in_a_step(plane_clip, monkeypatch):
    t = prior_trainer(plane_clip)
    sizes: list[tuple[int, ...]] = []
    prior_part = t.prior_part
    monkeypatch.setattr(t, "prior_part", lambda batch: sizes.append(batch.images.shape) or prior_part(batch))
    for _ in range(12):
        assert t.step(0.2)["loss"] > 0
    assert {size[-2:] for size in sizes} == {(48, 64), (64, 48), (32, 96)}
    assert {size[0] for size in sizes} <= {1, 2} and max(size[0] for size in sizes) == 2
    assert t.counts.prior_pictures == sum(2 * size[0] for size in sizes) and t.counts.skipped == 0


def test_the_stage_of_the_prior_leaves_tracking_and_stereo_as_they_are(plane_clip):
    """To the last bit, in the weights and in their averages."""
    t = prior_trainer(plane_clip)
    before = {k: v.clone() for k, v in t.networks.state_dict().items()}
    for _ in range(3):
        t.step(0.2)
    for now in (t.networks.state_dict(), t.average):
        changed = {k for k, v in now.items() if not torch.equal(v, before[k])}
        assert changed and all(k.startswith("prior.") for k in changed)
    assert {"prior.to_16.weight", "prior.scale.bias", "prior.shape.weight"} <= changed


def test_the_stage_of_the_prior_resumes_exactly(tmp_path, plane_clip):
    first = prior_trainer(plane_clip)
    for _ in range(3):
        first.step(0.2)
    first.save(tmp_path)
    resumed = prior_trainer(plane_clip)
    resumed.load(tmp_path / "checkpoint.pt")
    assert [first.step(0.3) for _ in range(2)] == [resumed.step(0.3) for _ in range(2)]
    assert all(torch.equal(v, resumed.networks.state_dict()[k]) for k, v in first.networks.state_dict().items())
    assert all(torch.equal(v, resumed.average[k]) for k, v in first.average.items())
    assert vars(first.counts) == vars(resumed.counts) and first.counts.prior_pictures > 0


def test_the_agreement_of_two_views_is_measured_with_their_true_motion():
    """A wall at 2, seen again from 0.2 nearer, by a network that says depth 1 of both; see the test of the loss."""
    T_wc = torch.stack([se3.identity(), se3.exp(torch.tensor([0, 0, 0.2, 0, 0, 0], dtype=torch.float64))])
    depth = torch.tensor([2.0, 1.8]).view(2, 1, 1).expand(2, 48, 64)
    K = torch.tensor([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    clip = Clip.pack(torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)), depth, T_wc, K)
    t = Trainer(TINY, TrainConfig(stage="prior", views=2, augment=PLAIN), ClipPool(1), lambda g: [], CPU)
    batch = make_batch([clip], 2, NO_CHANGE, torch.Generator().manual_seed(0), CPU)
    _, parts = t.prior_part(batch)
    assert parts["agreement"].item() == pytest.approx((0.25 / 2.25 + 0.2 / 2.2) / 2, rel=1e-3)
    assert parts["shape"] < 1e-6 and parts["scale"].item() == pytest.approx(math.log(2 * 1.8) / 2, rel=1e-3)


def test_another_stage_starts_from_the_averaged_weights_with_a_new_schedule(tmp_path, plane_clip):
    first = trainer("motion", plane_clip)
    for _ in range(3):
        first.step(0.2)
    first.save(tmp_path)
    second = trainer("stereo", plane_clip)
    second.load(tmp_path / "checkpoint.pt")
    assert second.counts.step == 0 and second.counts.motion_pairs == first.counts.motion_pairs > 0
    before = second.networks.state_dict()
    assert all(torch.equal(v, first.average[k]) for k, v in before.items())
    frozen = {k: v.clone() for k, v in before.items() if "encoder.to_" in k or "unit" in k}
    second.step(0.2)
    after = second.networks.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in frozen.items())
    assert not torch.equal(after["stereo.near.context.weight"], first.average["stereo.near.context.weight"])


@pytest.mark.parametrize("flagged", [True, False])
def test_a_finished_schedule_is_followed_by_a_new_one_from_the_averaged_weights(flagged, tmp_path, plane_clip):
    """Finished is what says so, or what has had all of the minutes asked for."""
    first = trainer("motion", plane_clip)
    first.step(0.2)
    first.counts.stage_seconds = 90.0
    first.is_finished = flagged
    first.save(tmp_path)
    second = trainer("motion", plane_clip)
    second.load(tmp_path / "checkpoint.pt", minutes=2.0 if flagged else 1.5)
    assert (second.counts.step, second.counts.stage_seconds, second.counts.schedules) == (0, 0.0, 1)
    assert second.counts.motion_pairs == first.counts.motion_pairs and not second.optimiser.state
    assert all(torch.equal(v, first.average[k]) for k, v in second.networks.state_dict().items())
    third = trainer("motion", plane_clip)
    third.load(tmp_path / "checkpoint.pt", minutes=2.0)
    assert third.counts.step == (0 if flagged else 1)


def test_a_later_schedule_begins_with_large_motions(plane_clip):
    """Starting again with small ones would unlearn the large ones."""
    t = trainer("motion", plane_clip, max_flow_start=0.0, max_flow_end=50.0)
    t.step(0.0)
    assert t.counts.motion_pairs == 0
    t.counts.schedules = 1
    t.step(0.0)
    assert t.counts.motion_pairs > 0


def test_a_suspended_process_trains_no_longer_than_the_cap(monkeypatch, tmp_path, plane_clip):
    """The clock jumps an hour in every step, as after SIGSTOP."""
    hours = iter(range(10**6))
    monkeypatch.setattr("slam.training.trainer.time.monotonic", lambda: 3600.0 * next(hours))
    t = trainer("motion", plane_clip)
    t.fit(tmp_path, minutes=60, max_steps=2, log_every_s=1e9, save_every_s=1e9)
    assert t.counts.stage_seconds == 2 * MAX_STEP_S


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(plane_clip):
    t = trainer("motion", plane_clip)
    before = {k: v.clone() for k, v in t.networks.state_dict().items()}
    t.apply(next(t.networks.motion.parameters()).sum() * float("nan"), 0.1)
    assert t.counts.skipped == 1
    assert all(torch.equal(v, before[k]) for k, v in t.networks.state_dict().items())


def test_fit_ends_after_its_steps_and_writes_weights_that_load(tmp_path, plane_clip):
    t = trainer("motion", plane_clip)
    t.fit(tmp_path, minutes=60, max_steps=3, validate=lambda t: {"score": 1.0})
    assert t.counts.step == 3
    networks = load_networks(tmp_path / "weights.safetensors")
    for name, value in networks.state_dict().items():
        torch.testing.assert_close(value, t.average[name], rtol=1e-3, atol=1e-6)  # half precision on disk
    assert read_metadata(tmp_path / "weights.safetensors")["train_step"] == "3"
    assert "score=1" in (tmp_path / "validation.csv").read_text()


def test_what_is_no_checkpoint_is_refused(tmp_path, plane_clip):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="no checkpoint"):
        trainer("motion", plane_clip).load(path)


def test_unknown_stage_is_refused():
    with pytest.raises(ConfigError, match="'walking'"):
        TrainConfig(stage="walking")


STEP_OF_TWO = """
import sys, torch
sys.path.insert(0, sys.argv[2])
torch.set_num_threads(1)
from conftest import make_plane_clip
from test_trainer import image_loss, trainer
from slam.training.distributed import average_gradients, check_same, join, largest
from slam.errors import UsageError
from slam.networks import precision
rank, device = join(torch.device("cpu"))
t = trainer("motion", make_plane_clip, rank=rank)
t.step(0.2); t.step(0.2)
shared = trainer("motion", make_plane_clip, rank=rank)
precision.has_fast_half = lambda device: False  # half precision would hide small differences
image_loss(shared, [rank]).backward()
average_gradients(shared.parameters)
gradients = [p.grad for p in shared.parameters]
check_same("same", device)
try:
    check_same(f"of process {rank}", device)
    refused = ""
except UsageError as error:
    refused = str(error)
result = [t.networks.state_dict(), t.generator.get_state(), largest(float(rank), device), gradients, refused]
torch.save(result, f"{sys.argv[1]}/{rank}.pt")
"""


def image_loss(t: Trainer, chosen: list[int]) -> torch.Tensor:
    """Mean over the chosen ones of two images of a loss that touches most of the motion network."""
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(5))[chosen]
    maps = t.networks.motion.encode(images)
    context = t.networks.motion.context(maps)
    return (context.hidden.float().square().mean() + maps.fine_i.float().pow(3).mean()) * 10


def test_two_processes_draw_different_samples_share_gradients_and_keep_the_same_weights(
    tmp_path, plane_clip, monkeypatch
):
    """Their gradients are those of one process with both halves of the batch; 1e-6 is float32 over other sums."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    here = Path(__file__)
    environment = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment |= {"PYTHONPATH": str(here.parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STEP_OF_TWO, str(tmp_path), str(here.parent)]
    runs = [subprocess.Popen(command, env=environment | {"RANK": str(r)}) for r in (0, 1)]
    assert [run.wait(120) for run in runs] == [0, 0]
    (a, samples_a, largest_a, grad_a, same), (b, samples_b, largest_b, grad_b, refused) = (
        torch.load(tmp_path / f"{r}.pt") for r in (0, 1)
    )
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(samples_a, samples_b)
    assert largest_a == largest_b == 1.0
    assert same == "" and "differ from those of the first process" in refused
    monkeypatch.setattr("slam.networks.precision.has_fast_half", lambda device: False)
    alone, half = trainer("motion", plane_clip), trainer("motion", plane_clip)
    image_loss(alone, [0, 1]).backward()
    image_loss(half, [0]).backward()
    used = 0
    for joint, one, mean_a, mean_b in zip(alone.parameters, half.parameters, grad_a, grad_b):
        if joint.grad is None or not joint.grad.any():
            assert mean_a is None and mean_b is None
            continue
        assert torch.equal(mean_a, mean_b)
        torch.testing.assert_close(mean_a, joint.grad, rtol=1e-4, atol=1e-6)
        used += not torch.allclose(joint.grad, one.grad, rtol=1e-2)
    assert used > 10  # the halves differ: the comparison can fail
