"""Training by several processes, one for each device, as `torchrun` starts them: same weights, averaged gradients."""

import os
import zlib
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from slam import __version__
from slam.errors import UsageError


def join(device: torch.device) -> tuple[int, torch.device]:
    """Rank of this process and its device: `cuda` becomes the process's own GPU. Joins the others, if there are any."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if str(device) == "cuda":  # no index given
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return rank, device


def is_alone() -> bool:
    """True if there are no other processes."""
    return not dist.is_initialized() or dist.get_world_size() == 1


def check_same(settings: str, device: torch.device) -> None:
    """Refuse to train together with processes that were started in another way.

    Args:
        settings: all that must be the same.

    Raises:
        UsageError: in those that differ from the first.
    """
    own = float(zlib.crc32(f"{__version__} {settings}".encode()))
    shared = torch.tensor(own, dtype=torch.float64, device=device)
    if not is_alone():
        dist.broadcast(shared, 0)
    if shared.item() != own:
        raise UsageError(
            "v2d-slam, or its options --stage, --profile, --config and --set, differ from those of the first "
            "process: start all machines with the same command"
        )


def largest(value: float, device: torch.device) -> float:
    """The largest value of all processes, in all of them."""
    if is_alone():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.item()


def share_weights(weights: Sequence[Tensor]) -> None:
    """Overwrite the weights by those of the first process."""
    if not is_alone():
        for weight in weights:
            dist.broadcast(weight.detach(), 0)


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Mean of the gradients of all processes, in place; a process without a gradient counts as zero."""
    if is_alone():
        return
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters])):
        used = bool(gradient.any())  # a part that no process used must not decay
        parameter.grad = gradient.view_as(parameter).clone() if used else None
