import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from slam.errors import ConfigError, WeightsError
from slam.networks.encoder import EncoderConfig
from slam.networks.motion import MotionNetConfig
from slam.networks.prior import PriorNetConfig
from slam.networks.stereo import StereoNet, StereoNetConfig
from slam.networks.storage import NetworkConfig, Networks, load_networks, read_metadata, save_network

TINY = NetworkConfig(
    "tiny",
    64,
    48,
    EncoderConfig(8, 8, 8, stereo=8, image=8),
    MotionNetConfig(8, 8),
    StereoNetConfig(4, 8, 8),
    PriorNetConfig(8, 8, 8, 8),
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    weights = Networks(TINY).state_dict()
    path = tmp_path / "tiny.safetensors"
    save_network(path, TINY, weights, {"train_step": "7"})
    return path, weights


def test_what_was_saved_is_loaded_with_its_configuration(saved):
    path, weights = saved
    networks = load_networks(path)
    motion, stereo = networks.motion, networks.stereo
    assert motion.config == TINY.motion and stereo.config == TINY.stereo and motion.encoder.config == TINY.encoder
    assert not motion.training
    for name, value in networks.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-7)  # half precision on disk
    assert read_metadata(path)["train_step"] == "7"


def test_a_file_from_before_the_prior_loads_with_an_untrained_one(tmp_path, saved):
    """Its configuration does not name a prior either; but a newer file must have one."""
    path, weights = saved
    config = {k: v for k, v in json.loads(read_metadata(path)["config"]).items() if k != "prior"}
    older = {k: v.contiguous() for k, v in weights.items() if not k.startswith("prior.")}
    old = tmp_path / "old.safetensors"
    metadata = read_metadata(path) | {"config": json.dumps(config)}
    save_file(older, str(old), metadata=metadata | {"format_version": "3"})
    networks = load_networks(old)
    assert networks.prior.config == PriorNetConfig()
    for name, value in networks.state_dict().items():
        if not name.startswith("prior."):
            torch.testing.assert_close(value, weights[name])
    K = torch.tensor([[[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]]])
    with torch.no_grad():
        output = networks.prior(networks.motion.encode(torch.rand(1, 3, 48, 64)), K)
    assert not output.log_inv_depth.any()
    save_file(older, str(old), metadata=metadata)
    with pytest.raises(WeightsError, match=r"lacks weights prior\."):
        load_networks(old)


def test_missing_and_unknown_weights_are_named(tmp_path, saved):
    _, weights = saved
    for change, message in (
        (lambda w: w.pop("motion.unit.gates.weight"), "lacks weights motion.unit.gates.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), "has unknown weights extra"),
        (lambda w: w.update({"motion.head.bias": torch.zeros(3)}), "has misshapen weights motion.head.bias"),
    ):
        changed = dict(weights)
        change(changed)
        path = tmp_path / "changed.safetensors"
        save_network(path, TINY, changed, {})
        with pytest.raises(WeightsError, match=message):
            load_networks(path)


def test_missing_damaged_foreign_and_future_files_are_refused(tmp_path, saved):
    path, weights = saved
    with pytest.raises(WeightsError, match="no weights 'nonsense'"):
        load_networks("nonsense")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="damaged"):
        load_networks(damaged)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(1)}, str(foreign))
    with pytest.raises(WeightsError, match="was not made for these networks"):
        load_networks(foreign)
    future = tmp_path / "future.safetensors"
    metadata = read_metadata(path) | {"format_version": "99"}
    save_file({k: v.contiguous() for k, v in weights.items()}, str(future), metadata=metadata)
    with pytest.raises(WeightsError, match="format version 99"):
        load_networks(future)
    strange = tmp_path / "strange.safetensors"
    metadata = read_metadata(path) | {"config": '{"profile": "x", "legs": 4}'}
    save_file({k: v.contiguous() for k, v in weights.items()}, str(strange), metadata=metadata)
    with pytest.raises(WeightsError, match="legs"):
        load_networks(strange)


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="250x192"):
        NetworkConfig(width=250)
    with pytest.raises(ConfigError, match="multiple of 4"):
        StereoNetConfig(near_planes=10)
    with pytest.raises(ConfigError, match="multiple of 4"):
        StereoNetConfig(planes=30)
    with pytest.raises(ConfigError, match="divide"):
        StereoNet(EncoderConfig(stereo=10), StereoNetConfig(groups=4))
    with pytest.raises(ConfigError, match="matching must be from 1 to 512, got 0"):
        replace(EncoderConfig(), matching=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, saved, value):
    """One in a million: the networks would give NaN, and every frame be lost."""
    weights = {name: tensor.contiguous().clone() for name, tensor in saved[1].items()}
    weights["motion.unit.gates.weight"].view(-1)[7] = value
    save_network(tmp_path / "a.safetensors", TINY, weights, {})
    with pytest.raises(WeightsError, match=r"the weights motion\.unit\.gates\.weight are not finite; fetch it again"):
        load_networks(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"encoder": {"width_8": 100000000}}', "encoder: width_8 must be from 1 to 512, got 100000000"),
        ('{"encoder": {"blocks_8": 1000000000}}', "encoder: blocks_8 must be from 1 to 16"),
        ('{"motion": {"radius": 99999}}', "motion: radius must be from 1 to 8"),
        ('{"stereo": {"groups": 7}}', "stereo.groups must divide"),
        ('{"encoder": {"width_8": "wide"}}', "encoder.width_8 must be a whole number"),
        ('{"encoder": [1]}', "encoder is a section of settings"),
        ("[1, 2]", "is a section of settings"),
        ("{" * 9000, "nested too deeply|Expecting"),
        ('{"width": ' + 5000 * "9" + "}", "thousands of digits"),
    ],
)
def test_networks_that_would_take_all_memory_are_refused(tmp_path, saved, config, message):
    path = tmp_path / "a.safetensors"
    weights = {k: v.contiguous() for k, v in saved[1].items()}
    save_file(weights, str(path), metadata=read_metadata(saved[0]) | {"config": config})
    with pytest.raises(WeightsError, match=message):
        load_networks(path)


def test_a_flipped_bit_is_seen(tmp_path, saved):
    data = bytearray(saved[0].read_bytes())
    data[-100] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match="its checksum is wrong"):
        load_networks(tmp_path / "a.safetensors")
