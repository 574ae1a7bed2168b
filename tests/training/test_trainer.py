import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slam.errors import ConfigError, WeightsError
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import MotionNetConfig
from slam.networks.stereo import StereoNetConfig
from slam.networks.storage import NetworkConfig, load_networks, read_metadata
from slam.training.clips import ClipPool
from slam.training.trainer import MAX_STEP_S, TrainConfig, Trainer
from slam.training.validation import NO_CHANGE

TINY = NetworkConfig(
    "tiny",
    64,
    48,
    EncoderConfig(8, 16, 24, blocks_4=1, blocks_8=1, matching=24, stereo=8, image=8),
    MotionNetConfig(hidden=16, motion=16, levels=2, radius=2),
    StereoNetConfig(groups=4, width=8, planes=16),
)
CPU = torch.device("cpu")
PLAIN = replace(NO_CHANGE, crop_height=48, crop_width=64)


def trainer(stage: str, plane_clip, clips: int = 2, rank: int = 0, **settings) -> Trainer:
    generator = torch.Generator().manual_seed(7)
    pool = ClipPool(8)
    for _ in range(clips):
        pool.add(plane_clip(generator))
    config = TrainConfig(stage=stage, clips=2, views=3, edges=8, iters=2, stereo_every=1, augment=PLAIN, **settings)
    return Trainer(TINY, config, pool, lambda g: [], CPU, rank)


@pytest.mark.parametrize(("stage", "name", "factor"), [("motion", "residual", 0.5), ("stereo", "depth", 0.6)])
def test_training_on_two_clips_lowers_the_error(stage: str, name: str, factor: float, plane_clip):
    """Ten steps' mean before against after 150 steps; without learning the ratio is 1, with a wrong sign above it."""
    t = trainer(stage, plane_clip, learning_rate=3e-3)
    errors = [t.step(0.1).get(name) for _ in range(150)]
    found = [e for e in errors if e is not None]
    assert sum(found[-10:]) < factor * sum(found[:10])


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
from slam.training.distributed import agreed, average_gradients, join
from slam.networks import precision
rank, device = join(torch.device("cpu"))
t = trainer("motion", make_plane_clip, rank=rank)
t.step(0.2); t.step(0.2)
shared = trainer("motion", make_plane_clip, rank=rank)
precision.has_fast_half = lambda device: False  # half precision would hide small differences
image_loss(shared, [rank]).backward()
average_gradients(shared.parameters)
gradients = [p.grad for p in shared.parameters]
result = [t.networks.state_dict(), t.generator.get_state(), agreed(float(rank), device), gradients]
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
    (a, samples_a, first_a, grad_a), (b, samples_b, first_b, grad_b) = (
        torch.load(tmp_path / f"{r}.pt") for r in (0, 1)
    )
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(samples_a, samples_b)
    assert first_a == first_b == 0.0
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
