"""Dense depth of keyframes: of those whose neighbours show parallax."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from slam.backend.densification import MIN_PARALLAX_PX, Densification, is_wanting, without_movers
from slam.frames import Keyframe, View
from slam.geometry import se3
from slam.inv_depth import InvDepth


def stereo(k: Keyframe, neighbours: list[View], T_jk: list[Tensor]) -> InvDepth:
    """A measurement that can be told from all others."""
    return InvDepth(torch.full_like(k.dense.value, 0.25), torch.full_like(k.dense.value, 0.01))


def chain(world, wall_and_box, *x: float) -> tuple[Keyframe, ...]:
    """Keyframes that also turn, so many units to the side."""
    poses = [wall_and_box.moved(at, ry=0.05 * n) for n, at in enumerate(x)]
    return tuple(world.keyframe(T_cw, n, n) for n, T_cw in enumerate(poses))


def test_a_keyframe_whose_neighbours_show_no_parallax_is_left_out(world, wall_and_box):
    """The camera turned, then moved: stereo of the turn would repeat what it was told."""
    keyframes = chain(world, wall_and_box, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.4)
    densification = Densification(stereo)
    assert densification.densify(keyframes[:5], ends=True) == []
    dense = densification.densify(keyframes, ends=True)
    assert [k.id for k in dense] == [4, 5, 6]  # of the three neighbours of keyframe 4 one has moved, of 3 none
    assert all((k.dense.value == 0.25).all() and not is_wanting(k) for k in dense)
    assert all(is_wanting(k) for k in keyframes)
    assert [k.id for k in densification.densify_newest(keyframes)] == [4, 6]
    assert densification.densify_newest(keyframes[:5]) == []


@pytest.mark.parametrize(("share", "is_dense"), [(0.9, False), (1.1, True)])
def test_parallax_is_a_pixel_at_the_median_depth(share, is_dense, world, wall_and_box):
    first = world.keyframe(se3.identity(), 0)
    baseline = share * MIN_PARALLAX_PX / (float(wall_and_box.K[0, 0]) * float(first.coarse.value.median()))
    second = replace(first, id=1, T_wc=se3.inverse(wall_and_box.moved(0, baseline)))
    assert [k.id for k in Densification(stereo).densify((first, second), ends=True)] == [0, 1] * is_dense


def test_a_keyframe_alone_has_no_parallax(world):
    assert Densification(stereo).densify((world.keyframe(se3.identity()),), ends=True) == []


def test_what_moves_keeps_its_depth_without_confidence():
    dense = InvDepth(torch.full((8, 12), 0.5), torch.full((8, 12), 0.01))
    static = torch.ones(2, 3)
    assert without_movers(dense, None) is dense and without_movers(dense, static) is dense
    static[:, 2] = 0
    found = without_movers(dense, static)
    assert torch.equal(found.value, dense.value)
    assert (found.confidence[:, 8:] < 0.02).all() and (found.confidence[:, :8] > 0.9).all()
