import pytest
import torch
import torch.nn.functional as F

from slam.errors import UsageError
from slam.geometry.camera import pixel_grid
from slam.networks import precision
from slam.networks.int8 import Int8Conv2d, has_fast_int8, quantised, uses_int8
from slam.networks.storage import load_networks

needs_int8 = pytest.mark.skipif(not has_fast_int8(), reason="eight-bit convolutions are not fast here, or not exact")


@pytest.mark.parametrize("signed", [False, True])
def test_levels_stand_for_the_values_within_half_a_step_and_zero_is_exact(signed: bool):
    x = torch.randn(2, 5, 7, 9)
    x = x if signed else x.relu()
    x[0, 0] = 0
    levels, scale, zero = quantised(x)
    found = scale * (levels.float() - zero)
    assert levels.is_contiguous(memory_format=torch.channels_last) and (zero == 0) != signed
    assert (found - x).abs().max() <= 0.51 * scale and (found[0, 0] == 0).all()


def test_nothing_but_zeros_stays_zero():
    levels, scale, zero = quantised(torch.zeros(1, 8, 4, 4))
    assert scale > 0 and (levels == zero).all()


@needs_int8
@pytest.mark.parametrize(("stride", "size", "bias"), [(1, 3, True), (2, 3, False), (1, (3, 1), True), (2, 4, True)])
def test_a_layer_is_near_its_float_version_for_any_input_size(stride: int, size, bias: bool):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(24, 40, size, stride=stride, padding=1, bias=bias)
    layer = Int8Conv2d(conv)
    with torch.inference_mode():
        for shape in ((1, 24, 12, 16), (3, 24, 9, 5), (1, 24, 12, 16)):
            signed = 3 * torch.randn(shape)
            for x in (signed, 0.1 * signed.relu()):  # what the weights were packed for must not matter
                for relu in (False, True):
                    expected = F.relu(conv(x)) if relu else conv(x)
                    found = layer(x, relu=relu)
                    assert found.shape == expected.shape and found.dtype == torch.float32
                    assert (found - expected).norm() < 0.015 * expected.norm()


@needs_int8
@torch.inference_mode()
def test_the_shipped_flow_moves_by_a_hundredth_of_a_cell():
    """Mean difference of the residual flow and of its confidence, on a textured image that moves by three pixels."""
    exact, rounded = load_networks("fast").motion, load_networks("fast").motion
    precision.with_int8(rounded)
    assert uses_int8(rounded) and not uses_int8(exact)
    texture = F.interpolate(torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)), (96, 136))
    images = [texture[..., :128], texture[..., 3:131]]
    found = []
    for network in (exact, rounded):
        a, b = (network.encode(image) for image in images)
        state = network.start(network.context(a), a, b)
        for _ in range(3):
            state, residual_uv, weight = network.update(state, pixel_grid(12, 16, like=texture)[None])
        found.append((residual_uv, weight))
    (flow, weight), (flow_8, weight_8) = found
    assert flow[..., 0].mean() < -0.2  # it sees the motion
    assert (flow - flow_8).abs().mean() < 0.01 and (weight - weight_8).abs().mean() < 0.02


def test_int8_is_refused_where_the_processor_lacks_it_and_auto_goes_without(monkeypatch):
    monkeypatch.setattr(precision, "has_fast_int8", lambda: False)
    network = load_networks("fast").motion
    with pytest.raises(UsageError, match="leave it at auto"):
        precision.prepare(network, "int8")
    precision.prepare(network, "auto")
    assert not uses_int8(network)


def test_auto_takes_it_where_it_is_fast(monkeypatch):
    monkeypatch.setattr(precision, "has_fast_int8", lambda: True)
    network = load_networks("fast").motion
    precision.prepare(network, "float32")
    assert not uses_int8(network)
    precision.prepare(network, "auto")
    assert uses_int8(network) and any(isinstance(m, Int8Conv2d) for m in network.modules())
    assert isinstance(has_fast_int8(), bool)
