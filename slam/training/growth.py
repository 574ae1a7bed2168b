"""A larger profile that begins as the same function as a smaller one's weights.

New channels read what the old ones read and are read by nobody at first: their outgoing weights are zero and learn
before anything else does. New residual blocks begin as the identity.

Reference: Chen, Goodfellow & Shlens, Net2Net: accelerating learning via knowledge transfer, ICLR 2016 (there channels
are copied; here they are added, as in a progressive network).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from slam.errors import WeightsError
from slam.kernels.zncc import WINDOWS
from slam.networks.storage import NetworkConfig, Networks

Sizes = tuple[int, ...]


def grow_weights(weights: Mapping[str, Tensor], small: NetworkConfig, large: NetworkConfig) -> dict[str, Tensor]:
    """Weights of a larger network, named as in `Networks`, that computes what a smaller one does.

    Args:
        weights: of the smaller network.
        small, large: configurations; sizes of `large` are at least as large, those of what is matched are the same.

    Raises:
        WeightsError: if `large` cannot hold `small`.
    """
    _check(small, large)
    layers_s, layers_l = _layers(small), _layers(large)
    state = {name: value.detach().clone() for name, value in Networks(large).state_dict().items()}
    for name, old in weights.items():
        if name.startswith("prior."):  # it reads another trunk, and is trained anew
            continue
        new, (layer, kind) = state[name], name.rsplit(".", 1)
        ins_s, outs_s = layers_s.get(layer, (old.shape[1:2], old.shape[:1]))
        ins_l, outs_l = layers_l.get(layer, (new.shape[1:2], new.shape[:1]))
        rows = _places(outs_s or old.shape[:1], outs_l or new.shape[:1])
        if kind == "bias":
            new[rows] = old
            continue
        columns = _places(ins_s or old.shape[1:2], ins_l or new.shape[1:2])
        new[rows] = 0
        new[rows[:, None], columns] = old
    return state


def _layers(config: NetworkConfig) -> dict[str, tuple[Sizes, Sizes]]:
    """Layers whose inputs or outputs are several things side by side: the sizes of these; () is one thing."""
    e, m, s = config.encoder, config.motion, config.stereo
    n = m.hidden
    layers: dict[str, tuple[Sizes, Sizes]] = {
        "motion.encoder.from_8": ((), (e.stereo, e.image)),
        "motion.encoder.stereo": ((), (e.stereo, e.image)),
        "motion.context_head": ((), (n, n, n, n)),
        "motion.unit.gates": ((n, m.motion), (n, n)),
        "motion.unit.candidate": ((n, m.motion), ()),
        "motion.unit.global_context": ((), (n, n, n)),
        "stereo.mask.0": ((e.image, 1), ()),
    }
    for sweep in ("wide", "near"):
        layers[f"stereo.{sweep}.sigma_head.0"] = ((e.image, 2), ())
        layers[f"stereo.{sweep}.hourglass.stem.space"] = ((s.groups, 1, WINDOWS), ())
    return layers


def _places(small: Sequence[int], large: Sequence[int]) -> Tensor:
    """Where the channels of a row of things lie once each has become larger."""
    starts = [sum(large[:k]) for k in range(len(large))]
    return torch.cat([start + torch.arange(size) for start, size in zip(starts, small)])


def _check(small: NetworkConfig, large: NetworkConfig) -> None:
    same = ("encoder.matching", "encoder.fine", "encoder.stereo", "motion.radius", "stereo.groups")
    least = (
        *("encoder.width_2", "encoder.width_4", "encoder.width_8", "encoder.blocks_4", "encoder.blocks_8"),
        *("encoder.image", "motion.hidden", "motion.motion", "motion.levels", "stereo.width"),
    )
    for names, what in ((same, "equal to"), (least, "at least")):
        for name in names:
            part, size = name.split(".")
            a, b = getattr(getattr(small, part), size), getattr(getattr(large, part), size)
            if b < a or (names is same and a != b):
                raise WeightsError(
                    f"profile {large.profile} cannot grow out of weights of {small.profile}: {name} must be "
                    f"{what} {a}, is {b}; train it from the beginning, without --resume"
                )
