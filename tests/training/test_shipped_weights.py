import pytest
import torch

from slam.networks.storage import PROFILES, WEIGHTS_DIR, build_networks, load_network, read_config, read_metadata
from slam.training.rendered import RenderedClips
from slam.training.validation import validate_motion, validate_stereo

MAX_BYTES = 10_000_000


@pytest.fixture(scope="module")
def clips():
    """Scenes that no training run can have drawn: its seeds are small, and those of validation are 20 million."""
    generator = torch.Generator().manual_seed(987_654_321_000)
    make = RenderedClips(256, 192, torch.device("cpu"), views=4)
    return [clip for _ in range(4) for clip in make(generator)]


@pytest.mark.parametrize("path", sorted(WEIGHTS_DIR.glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_weights_fit_their_profile_and_have_a_card(path):
    assert path.stat().st_size < MAX_BYTES
    assert read_config(read_metadata(path)) == PROFILES[path.stem]
    assert "Samples:" in path.with_suffix(".md").read_text()


def test_fast_finds_most_of_the_motion_and_the_depth(clips):
    """Medians of many held-out scenes are about a tenth of motion and depth; four scenes vary, so a third."""
    motion, stereo = load_network("fast")
    scores = validate_motion(motion, clips)
    bands = [name.removeprefix("flow_") for name in scores if name.startswith("flow_")]
    assert bands
    for band in bands:
        if scores[f"pairs_{band}"] >= 4 and band != "2.5-6px":
            assert scores[f"epe_{band}"] < 0.33 * scores[f"flow_{band}"]
    assert validate_stereo(motion, stereo, clips)["abs_rel_median"] < 0.33


def test_untrained_weights_would_fail_that(clips):
    """The bound above tells weights from noise."""
    torch.manual_seed(0)
    motion, _ = build_networks(PROFILES["fast"])
    scores = validate_motion(motion, clips[:1])
    assert any(scores[f"epe_{b}"] > 0.5 * scores[f"flow_{b}"] for b in ("0-1px", "1-2.5px") if f"flow_{b}" in scores)
