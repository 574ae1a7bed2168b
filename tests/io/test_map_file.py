"""Maps on disk: what is written comes back, and what is no map is refused in one line."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from slam.errors import MapError, OutputError
from slam.frames import Image, Keyframe, Keypoints, View
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.io.map_file import VERSION, load_map, save_map

K = torch.tensor([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]], dtype=torch.float64)


def keyframe(n: int) -> Keyframe:
    """Random, with n keypoints."""
    g = torch.Generator().manual_seed(n)
    rng = np.random.default_rng(n)
    view = View(n, 10**9 + n, Image(rng.integers(0, 256, (48, 64, 3), np.uint8)), K)
    dense, coarse = (
        InvDepth(0.2 + torch.rand(size, generator=g), torch.rand(size, generator=g)) for size in ((48, 64), (12, 16))
    )
    found = Keypoints(rng.random((n, 2), np.float32), rng.random((n, 128), np.float32))
    T_wc = se3.exp(torch.randn(6, dtype=torch.float64, generator=g))
    return Keyframe(n, view, T_wc, dense, coarse, 2.0, True, n - 1, keypoints=found)


@pytest.fixture
def path(tmp_path):
    """A map of three keyframes, numbered 3, 4 and 6."""
    save_map(tmp_path / "room.map", [keyframe(n) for n in (3, 4, 6)])
    return tmp_path / "room.map"


def test_a_map_comes_back(path):
    loaded = load_map(path)
    assert [k.id for k in loaded] == [3, 4, 6] and [k.parent_id for k in loaded] == [2, 3, 5]
    for k, n in zip(loaded, (3, 4, 6), strict=True):
        was = keyframe(n)
        assert np.array_equal(k.view.image.rgb, was.view.image.rgb) and k.view.frame_id == -1
        assert torch.equal(k.T_wc, was.T_wc) and torch.equal(k.coarse.value, was.coarse.value)
        torch.testing.assert_close(k.dense.value, was.dense.value, atol=0, rtol=1e-3)
        torch.testing.assert_close(k.dense.confidence, was.dense.confidence, atol=1e-3, rtol=0)
        np.testing.assert_array_equal(k.keypoints.uv, was.keypoints.uv)
        np.testing.assert_allclose(k.keypoints.descriptors, was.keypoints.descriptors, atol=1e-3)
        assert k.scale == 1.0 and k.refined and not k.metric


def test_without_keypoints(tmp_path):
    save_map(tmp_path / "m", [replace(keyframe(1), keypoints=None)])
    assert load_map(tmp_path / "m")[0].keypoints.uv.shape == (0, 2)


def test_what_is_no_map_is_refused(path, tmp_path):
    with pytest.raises(MapError, match="no map at"):
        load_map(tmp_path / "none")
    (tmp_path / "torn").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(MapError, match="torn is damaged or no map"):
        load_map(tmp_path / "torn")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(MapError, match="no map of this program; --save-map"):
        load_map(tmp_path / "other")
    save_file(load_file(path), tmp_path / "newer", {"format": "v2d-slam map", "version": "4"})
    with pytest.raises(MapError, match="version 4, this program reads 3"):
        load_map(tmp_path / "newer")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("T_wc", lambda t: t[:2]),
        ("dense", lambda t: t[:, :, :60]),
        ("coarse_sigma", lambda t: t * float("nan")),
        ("coarse", lambda t: 0 * t),
        ("keypoint_uv", lambda t: t[1:]),
        ("K", None),
        ("image", lambda t: t.float()),
        ("metric", lambda t: t.long()),
        ("image", lambda t: t[:, :0]),
    ],
)
def test_a_map_whose_parts_do_not_fit_is_refused(path, tmp_path, name, change):
    tensors = load_file(path)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, tmp_path / "bad", {"format": "v2d-slam map", "version": VERSION})
    with pytest.raises(MapError, match="bad is damaged"):
        load_map(tmp_path / "bad")


def test_a_folder_that_takes_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*room.map"):
        save_map(tmp_path / "file" / "room.map", [keyframe(1)])


def test_a_map_of_the_version_before_is_one_map(path, tmp_path):
    """It knew no others; there the parent of a keyframe could be forgotten."""
    tensors = load_file(path)
    del tensors["map_ids"]
    tensors["ids"] = torch.tensor([[3, -1], [4, 3], [6, -1]])
    save_file(tensors, tmp_path / "old.map", {"format": "v2d-slam map", "version": "2"})
    assert [(k.id, k.parent_id, k.map_id) for k in load_map(tmp_path / "old.map")] == [(3, -1, 3), (4, 3, 3), (6, 4, 3)]


def changed(value: object, *place: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor[place] = value  # type: ignore[assignment]
        return tensor

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("K", changed(0.0, 2), "keyframe 2 of 3 has intrinsics K of no camera"),
        ("K", changed(1e6, 1, 0, 0), "keyframe 1 of 3 has intrinsics K"),
        ("K", changed(-5.0, 0, 0, 2), "keyframe 0 of 3 has intrinsics K"),
        ("K", changed(3.0, 1, 0, 1), "keyframe 1 of 3 has intrinsics K"),
        ("T_wc", changed(0.0, 1), "keyframe 1 of 3 has a pose T_wc that is no rigid motion"),
        ("T_wc", changed(torch.diag(torch.tensor([1.0, 1, -1, 1])).double(), 2), "keyframe 2 of 3 has a pose T_wc"),
        ("T_wc", changed(1e200, 2, 0, 3), "keyframe 2 of 3 has a pose T_wc"),
        ("T_wc", changed(2.0, 2, 3, 3), "keyframe 2 of 3 has a pose T_wc"),
        ("ids", changed(3, 2, 0), "keyframe 2 of 3 has an id that is none, or that another has"),
        ("ids", changed(-7, 1, 0), "keyframe 1 of 3 has an id"),
        ("ids", changed(4, 1, 1), "keyframe 1 of 3 has an id"),
        ("coarse_sigma", changed(-1e-9, 1, 2, 3), "keyframe 1 of 3 has a sigma below 0"),
        ("dense_sigma", changed(-1.0, 2, 5, 5), "keyframe 2 of 3 has a sigma below 0"),
        ("dense", changed(-1.0, 2, 5, 5), "keyframe 2 of 3 has an inverse depth below 0"),
        ("keypoints", lambda t: torch.tensor([-1, 8, 6]), "no keyframes that could be used"),
    ],
)
def test_numbers_that_are_no_keyframes_are_refused_with_their_place(path, tmp_path, name, change, message):
    """Such a keyframe spoils the map silently, as soon as the camera is tracked against it."""
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, tmp_path / "bad", {"format": "v2d-slam map", "version": VERSION})
    with pytest.raises(MapError, match=f"bad is damaged: .*{message}"):
        load_map(tmp_path / "bad")


def test_a_flipped_bit_is_seen(path, tmp_path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(MapError, match="its checksum is wrong"):
        load_map(tmp_path / "bad")
