"""Networks and what they read on a GPU against the CPU; solvers: see `test_loops.py`. Skipped where there is no GPU."""

import pytest
import torch

from slam.geometry import se3
from slam.kernels.correlation import Pyramid, correlation, pooled_levels
from slam.kernels.feature_sweep import correlation_volume
from slam.kernels.zncc import zncc_volume
from slam.networks.storage import load_networks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def exact_products():
    """TF32 rounds to ten bits, more than these tolerances."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def both(function, *tensors):
    """Results of a function of tensors on the CPU, and those of the GPU, brought over."""
    found = [function(*(t.to(device) for t in tensors)) for device in ("cpu", "cuda")]
    found = [result if isinstance(result, tuple) else (result,) for result in found]
    assert all(t.device.type == "cuda" for t in found[1])
    return zip(found[0], (t.cpu() for t in found[1]), strict=True)


def test_correlation_lookup():
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 16, 12, 16, generator=g) for _ in range(2)]
    uv = 20 * torch.rand(2, 12, 16, 2, generator=g) - 2
    for cpu, gpu in both(
        lambda i, j, uv: Pyramid.build([correlation(i, p) for p in pooled_levels(j, 2)]).lookup(uv, 3), *features, uv
    ):
        torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=1e-4)


def test_zncc_volume():
    g = torch.Generator().manual_seed(0)
    grays = [torch.randn(1, 1, 48, 64, generator=g) for _ in range(2)]
    T_jk = se3.exp(torch.tensor([[[-0.06, 0, 0, 0, 0.01, 0]]], dtype=torch.float64))
    K = torch.tensor([[[100.0, 0, 31.5], [0, 100.0, 23.5], [0, 0, 1]]], dtype=torch.float64)
    hypotheses = torch.linspace(0.4, 1.6, 7)[None, :, None, None]
    for cpu, gpu in both(lambda k, j, T, K, d: zncc_volume(k, [j], T, K, d), *grays, T_jk, K, hypotheses):
        torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-3)


def test_correlation_volume():
    g = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 16, 24, 32, generator=g) for _ in range(3)]
    T_jk = se3.exp(0.05 * torch.randn(1, 2, 6, generator=g, dtype=torch.float64))
    K = torch.tensor([[[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]]], dtype=torch.float64)
    hypotheses = torch.linspace(0.4, 1.6, 7)[None, :, None, None]
    given = (*features, T_jk, K, hypotheses)
    for cpu, gpu in both(lambda k, i, j, T, K, d: correlation_volume(k, [i, j], T, K, d, 4), *given):
        torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-3)


def test_stereo():
    """Of one image as seen from two places a little apart; half precision on either side moves depths by percents."""
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 24, 32, generator=g)
    image = torch.nn.functional.interpolate(noise, (96, 136), mode="bicubic").clamp(0, 1)
    T_jk = torch.eye(4, dtype=torch.float64)[None, None].clone()
    T_jk[..., 0, 3] = -0.08
    K = torch.tensor([[[100.0, 0, 63.5], [0, 100.0, 47.5], [0, 0, 1]]], dtype=torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        networks = load_networks("fast")
        motion, stereo = networks.motion.to(device), networks.stereo.to(device)
        with torch.inference_mode():
            views = [image[..., :128].to(device), image[..., 8:].to(device)]
            maps_k, maps_j = (motion.encode_for_stereo(motion.encode(view), view) for view in views)
            low, high = torch.full((1,), 0.3, device=device), torch.full((1,), 3.0, device=device)
            found.append(stereo(maps_k, [maps_j], T_jk.to(device), K.to(device), low, high).inv_depth.cpu())
    assert ((found[1] / found[0]).log().abs() < 0.05).float().mean() > 0.95


def test_the_encoder():
    motion = load_networks("fast").motion
    image = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        cpu, gpu = motion.encode(image).trunk, motion.to("cuda").encode(image.cuda()).trunk.cpu()
    torch.testing.assert_close(gpu.float(), cpu.float(), rtol=0.02, atol=0.02 * float(cpu.abs().max()))
