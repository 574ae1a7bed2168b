"""Rendering and training on a device that is not the CPU, without one: tensors of both must not meet."""

import contextlib
import math
from collections.abc import Iterator

import pytest
import torch

from slam.training.clips import ClipPool
from slam.training.data import AugmentConfig
from slam.training.rendered import RenderedClips
from slam.training.trainer import TrainConfig, Trainer
from slam.training.validation import validate_motion, validate_stereo
from tests.training.pretended import DEVICE, OnDevice, PretendedDevice
from tests.training.test_trainer import TINY


class AnyGenerator(torch.Generator):
    """A CPU generator, whatever device it is asked for."""

    def __new__(cls, device: object = "cpu") -> "AnyGenerator":
        return super().__new__(cls)

    def __init__(self, device: object = "cpu") -> None:
        """The device is not looked at."""


@pytest.fixture
def pretended(monkeypatch) -> Iterator[None]:
    make = torch.tensor
    monkeypatch.setattr(torch, "Generator", AnyGenerator)
    monkeypatch.setattr(torch, "tensor", lambda data, dtype=None, device="cpu": make(data, dtype=dtype).to(device))
    for module in ("motion", "stereo"):  # there is no half precision for the pretended type
        monkeypatch.setattr(f"slam.networks.{module}.half_precision", lambda *_: contextlib.nullcontext())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with PretendedDevice():
        yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def test_tensors_of_both_devices_do_not_meet(pretended):
    """The pretence itself: what a GPU would refuse fails, what it allows does not."""
    there = torch.ones(3, device=DEVICE)
    with pytest.raises(RuntimeError, match="both devices"):
        there + torch.ones(3)
    with pytest.raises(RuntimeError, match="both devices"):
        torch.where(torch.ones(3) > 0, there, there)
    assert isinstance(there + torch.ones(()), OnDevice)
    assert (there + torch.ones(3).to(there)).cpu().tolist() == [2.0, 2.0, 2.0]


def test_clips_are_rendered_on_their_device_and_come_to_the_cpu(pretended):
    generator = torch.Generator().manual_seed(1)
    make = RenderedClips(64, 48, DEVICE, views=2)
    (clip,) = make(generator)
    assert not any(isinstance(part, OnDevice) for part in vars(clip).values())
    assert (clip.inv_depth > 0).float().mean() > 0.99 and clip.images.float().std() > 1


def test_a_training_step_and_validation_run_on_the_device(pretended, plane_clip):
    pool, generator = ClipPool(4), torch.Generator().manual_seed(7)
    for _ in range(2):
        pool.add(plane_clip(generator))
    augment = AugmentConfig(crop_height=48, crop_width=64, rolling=1.0, lens=1.0)
    config = TrainConfig(stage="joint", clips=2, views=3, edges=4, iters=2, stereo_every=1, augment=augment)
    trainer = Trainer(TINY, config, pool, lambda g: [], DEVICE)
    before = {name: value.cpu() for name, value in trainer.average.items()}
    for _ in range(2):
        parts = trainer.step(0.5)
        assert {"pose", "depth"} <= parts.keys() and all(math.isfinite(v) for v in parts.values())
    assert all(isinstance(p, OnDevice) for p in trainer.parameters)
    assert sum(not torch.equal(before[name], value.cpu()) for name, value in trainer.average.items()) > 20
    assert validate_motion(trainer.networks.motion, pool.clips)
    assert validate_stereo(trainer.networks.motion, trainer.networks.stereo, pool.clips)
