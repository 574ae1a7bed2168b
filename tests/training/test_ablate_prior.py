import importlib
from itertools import pairwise
from pathlib import Path

from slam.settings import load_config
from slam.training.trainer import TrainConfig

ROOT = Path(__file__).parents[2]


def test_each_row_of_the_ablation_adds_one_part(monkeypatch):
    """From L_P on; the last row takes the pairs away from the whole."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    variants = importlib.import_module("ablate_prior").VARIANTS
    file = ROOT / "configs" / "train_selfsup.yaml"
    whole = load_config(TrainConfig, file, ["stage=selfsup"])
    configs = {
        name: load_config(TrainConfig, file, ["stage=selfsup", *settings]).selfsup
        for name, settings in variants.items()
    }
    assert configs["+ distillation"] == whole.selfsup
    names = ["+ L_P", "+ M_a", "+ M_s", "+ L_G", "+ distillation"]
    added = []
    for before, after in pairwise(names):
        old, new = vars(configs[before]), vars(configs[after])
        added.append([name for name in new if new[name] != old[name]])
    assert added == [["auto_mask"], ["inconsistency_mask"], ["geometry"], ["distillation"]]
    assert configs["rendered only"].replay_every == 1
    alone = configs["distillation alone"]
    assert (alone.photometric, alone.geometry, alone.smoothness) == (0, 0, 0) and alone.distillation > 0
