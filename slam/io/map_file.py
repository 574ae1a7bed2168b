"""A map in one file (safetensors: data alone, nothing that runs): to go on in it, or to find a camera in it, later."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slam.errors import MapError
from slam.frames import Image, Keyframe, Keypoints, View
from slam.inv_depth import InvDepth
from slam.io.tensor_file import read_header, read_tensors, write_tensors
from slam.io.trajectory import MAX_VALUE

FORMAT, VERSION, ONE_MAP = "v2d-slam map", "3", "2"  # the latter without map_ids
MAX_HALF = 65504.0
EARLIER_FRAME = -1  # frame id of views that no frame of this run made
SHAPES = {  # of N keyframes; h, w pixels, hc, wc cells
    "image": "N h w 3",
    "K": "N 3 3",
    "T_wc": "N 4 4",
    "dense": "N h w",
    "dense_sigma": "N h w",
    "coarse": "N hc wc",
    "coarse_sigma": "N hc wc",
    "ids": "N 2",
    "map_ids": "N",
    "time_ns": "N",
    "metric": "N",
    "keypoints": "N",
    "keypoint_uv": "L 2",
    "keypoint_descriptors": "L 128",
}
WHOLE = {"image": torch.uint8, "metric": torch.bool}  # the others that are not listed hold fractions
WHOLE |= dict.fromkeys(("ids", "map_ids", "time_ns", "keypoints"), torch.int64)
MAX_ID = 2**31
FOCAL = (0.05, 60.0)  # focal length, share of the longer side: fields of view from 169 degrees down to 1
MAX_SKEW = 1e-3  # of a rotation


def save_map(path: str | Path, keyframes: Sequence[Keyframe]) -> None:
    """Write keyframes, about half a megabyte each at 320x240; whole or not at all.

    Raises:
        OutputError: if the file cannot be written.
    """
    path, keyframes = Path(path), [k.on_host() for k in keyframes]
    keypoints = [k.keypoints or Keypoints.none() for k in keyframes]
    tensors = {
        "image": torch.from_numpy(np.stack([k.view.image.rgb for k in keyframes])),
        "K": torch.stack([k.view.K for k in keyframes]),
        "T_wc": torch.stack([k.T_wc for k in keyframes]),
        "dense": torch.stack([k.dense.value.half() for k in keyframes]),
        "dense_sigma": torch.stack([k.dense.sigma.clamp_max(MAX_HALF).half() for k in keyframes]),
        "coarse": torch.stack([k.coarse.value.float() for k in keyframes]),
        "coarse_sigma": torch.stack([k.coarse.sigma.float() for k in keyframes]),
        "ids": torch.tensor([(k.id, k.parent_id) for k in keyframes]),
        "map_ids": torch.tensor([k.map_id for k in keyframes]),
        "time_ns": torch.tensor([k.view.time_ns for k in keyframes]),
        "metric": torch.tensor([k.metric for k in keyframes]),
        "keypoints": torch.tensor([len(found.uv) for found in keypoints]),
        "keypoint_uv": torch.from_numpy(np.concatenate([found.uv for found in keypoints])),
        "keypoint_descriptors": torch.from_numpy(np.concatenate([found.descriptors for found in keypoints])).half(),
    }
    write_tensors(path, tensors, {"format": FORMAT, "version": VERSION})


def load_map(path: str | Path) -> list[Keyframe]:
    """Keyframes of a file.

    Raises:
        MapError: if it is missing, damaged, of another version, or no map.
    """
    path = Path(path)
    try:
        (metadata, _), tensors = read_header(path), read_tensors(path)
    except FileNotFoundError as error:
        raise MapError(f"no map at {path}") from error
    except (ValueError, OSError) as error:
        raise MapError(f"{path} is damaged or no map ({error})") from error
    if metadata.get("format") != FORMAT:
        raise MapError(f"{path} is no map of this program; --save-map FILE writes one")
    if metadata.get("version") not in (VERSION, ONE_MAP):
        raise MapError(
            f"{path} is a map of version {metadata.get('version')}, this program reads {VERSION}; make it anew"
        )
    if metadata["version"] == ONE_MAP and "time_ns" in tensors:
        tensors["map_ids"] = torch.zeros_like(tensors["time_ns"])
    _check_shapes(path, tensors)
    _check_values(path, tensors)
    if metadata["version"] == ONE_MAP:
        tensors |= _as_one_map(tensors["ids"])
    ends = tensors["keypoints"].cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    uv, descriptors = tensors["keypoint_uv"].numpy(), tensors["keypoint_descriptors"].float().numpy()
    return [
        Keyframe(
            id=int(tensors["ids"][n, 0]),
            view=View(
                EARLIER_FRAME, int(tensors["time_ns"][n]), Image(tensors["image"][n].numpy()), tensors["K"][n].double()
            ),
            T_wc=tensors["T_wc"][n].double(),
            dense=InvDepth(tensors["dense"][n].float(), tensors["dense_sigma"][n].float()),
            coarse=InvDepth(tensors["coarse"][n].float(), tensors["coarse_sigma"][n].float()),
            refined=True,
            parent_id=int(tensors["ids"][n, 1]),
            map_id=int(tensors["map_ids"][n]),
            metric=bool(tensors["metric"][n]),
            dense_version=1,
            keypoints=Keypoints(uv[starts[n] : ends[n]], descriptors[starts[n] : ends[n]]),
        )
        for n in range(len(ends))
    ]


def _as_one_map(ids: Tensor) -> dict[str, Tensor]:
    """What a file says with several maps, of one that knew of one alone: there the first keyframe has no parent, and
    others whose parent was forgotten follow the one before."""
    before = torch.cat([torch.full((1,), -1), ids[:-1, 0]])
    parents = torch.where(ids[:, 1] < 0, before, ids[:, 1])
    return {"ids": torch.stack([ids[:, 0], parents], -1), "map_ids": ids[:1, 0].expand(len(ids))}


def _check_shapes(path: Path, tensors: dict[str, Tensor]) -> None:
    """Every tensor is there, they fit each other, and all numbers are finite."""
    sizes: dict[str, int] = {}
    for name, pattern in SHAPES.items():
        if name not in tensors:
            raise MapError(f"{path} is damaged: it lacks {name}")
        shape, words = tensors[name].shape, pattern.split()
        is_kind = tensors[name].dtype == WHOLE[name] if name in WHOLE else tensors[name].is_floating_point()
        fits = (
            is_kind
            and len(shape) == len(words)
            and all(
                size == (int(word) if word.isdigit() else sizes.setdefault(word, size))
                for word, size in zip(words, shape, strict=False)
            )
        )
        if not fits or (tensors[name].is_floating_point() and not bool(torch.isfinite(tensors[name]).all())):
            raise MapError(f"{path} is damaged: {name} has shape {tuple(shape)} or holds what is no number")
    counts = tensors["keypoints"]
    if min(size for name, size in sizes.items() if name != "L") == 0 or bool((counts < 0).any()):
        raise MapError(f"{path} is damaged: it holds no keyframes that could be used")
    if int(counts.sum()) != sizes["L"]:
        raise MapError(f"{path} is damaged: it has {sizes['L']} keypoints, its keyframes {int(counts.sum())}")


def _check_values(path: Path, tensors: dict[str, Tensor]) -> None:
    """The numbers of every keyframe can be those of a keyframe."""
    K, T, ids = tensors["K"].double(), tensors["T_wc"].double(), tensors["ids"]
    h, w = tensors["image"].shape[1:3]
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1) / max(h, w)
    is_in = (K[:, :2, 2] >= 0) & (K[:, :2, 2] <= torch.tensor([w, h]))
    rest = K.clone()
    rest[:, [0, 1, 0, 1], [0, 1, 2, 2]] = 0.0
    is_camera = (focal > FOCAL[0]).all(-1) & (focal < FOCAL[1]).all(-1) & is_in.all(-1)
    is_camera &= (rest == torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 1]])).all(-1).all(-1)
    R = T[:, :3, :3]
    is_rigid = (R @ R.mT - torch.eye(3)).abs().amax((1, 2)) < MAX_SKEW
    is_rigid &= (torch.linalg.det(R) > 0) & (T[:, 3] == torch.tensor([0.0, 0, 0, 1])).all(-1)
    is_rigid &= T[:, :3, 3].abs().amax(-1) < MAX_VALUE

    def holds(is_right: Tensor) -> Tensor:
        return is_right.flatten(1).all(1)

    problems = {
        "an id that is none, or that another has": _is_id(ids),
        "intrinsics K of no camera": is_camera,
        "a pose T_wc that is no rigid motion": is_rigid,
        "an inverse depth below 0": holds(tensors["dense"] >= 0) & holds(tensors["coarse"] > 0),
        "a sigma below 0": holds(tensors["dense_sigma"] >= 0) & holds(tensors["coarse_sigma"] >= 0),
    }
    for what, is_right in problems.items():
        if not bool(is_right.all()):
            raise MapError(f"{path} is damaged: keyframe {int((~is_right).nonzero()[0])} of {len(ids)} has {what}")


def _is_id(ids: Tensor) -> Tensor:
    """(N,) True of own ids (N, 2: own, parent's) that are numbers of a keyframe, not those of an earlier row."""
    own, parent = ids.unbind(-1)
    is_first = torch.ones(len(own), dtype=torch.bool)
    order = own.argsort(stable=True)
    is_first[order[1:]] = own[order].diff() != 0
    return is_first & (own >= 0) & (own < MAX_ID) & (parent >= -1) & (parent < MAX_ID) & (parent != own)
