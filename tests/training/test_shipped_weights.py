"""The shipped weights do what their cards say."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from slam.networks.storage import PROFILES, WEIGHTS_DIR, Networks, load_networks, read_config, read_metadata
from slam.training.clips import Clip, ClipPool
from slam.training.rendered import VALIDATION_KINDS, RenderedClips
from slam.training.trainer import TrainConfig, Trainer
from slam.training.validation import validate_motion, validate_stereo

MAX_BYTES = 10_000_000


HELD_TO = 2.0  # times its card
MIN_PAIRS = 6  # of a band, to say anything of it


def clips(profile: str, count: int) -> list[Clip]:
    """Scenes that no training run can have drawn: its seeds are small, and those of validation are 20 million."""
    config, generator = PROFILES[profile], torch.Generator().manual_seed(987_654_321_000)
    make = RenderedClips(config.width, config.height, torch.device("cpu"), views=4, kinds=VALIDATION_KINDS)
    return [clip for _ in range(count) for clip in make(generator)]


def card(path: Path) -> dict[str, float]:
    """The scores that the card of a weights file states."""
    rows = re.findall(r"^\| ([a-z]\S+) \| ([\d.]+) \|$", path.with_suffix(".md").read_text(), re.MULTILINE)
    return {name: float(value) for name, value in rows}


@pytest.mark.parametrize("path", sorted(WEIGHTS_DIR.glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_weights_fit_their_profile_and_have_a_card(path):
    assert path.stat().st_size < MAX_BYTES
    assert read_config(read_metadata(path)) == PROFILES[path.stem]
    text = path.with_suffix(".md").read_text()
    assert "Samples:" in text and hashlib.sha256(path.read_bytes()).hexdigest() in text


@pytest.mark.parametrize(("profile", "count"), [("fast", 8), ("base", 4)])
def test_shipped_weights_keep_to_twice_their_card(profile, count):
    """Error of the flow as a share of it, and of the depth; a few scenes scatter by half about the card's many."""
    stated = card(WEIGHTS_DIR / f"{profile}.safetensors")
    networks = load_networks(profile)
    motion, stereo = networks.motion, networks.stereo
    held_out = clips(profile, count)
    scores = validate_motion(motion, held_out)
    bands = [name.removeprefix("flow_") for name in stated if name.startswith("flow_")]
    bands = [band for band in bands if scores.get(f"pairs_{band}", 0) >= MIN_PAIRS]
    assert len(bands) == 3
    for band in bands:
        error, states = (s[f"epe_{band}"] / s[f"flow_{band}"] for s in (scores, stated))
        assert error < HELD_TO * states, f"{band}: {error:.3f} of the flow, the card says {states:.3f}"
    abs_rel = validate_stereo(motion, stereo, held_out)["abs_rel_median"]
    assert abs_rel < HELD_TO * stated["abs_rel_median"]


def test_untrained_weights_would_fail_that():
    """The bound above tells weights from noise."""
    torch.manual_seed(0)
    motion = Networks(PROFILES["fast"]).motion
    scores = validate_motion(motion, clips("fast", 1))
    assert any(scores[f"epe_{b}"] > 0.5 * scores[f"flow_{b}"] for b in ("0-1px", "1-2.5px") if f"flow_{b}" in scores)


def test_training_goes_on_from_a_profile_by_its_name():
    config = TrainConfig(stage="prior")
    trainer = Trainer(PROFILES["fast"], config, ClipPool(1), lambda generator: [], torch.device("cpu"))
    trainer.load(Path("fast"))
    assert trainer.counts.prior_pictures > 100_000 and trainer.counts.step == 0
