"""Which keyframes leave the map, and where they go."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from slam.errors import OutputError
from slam.frames import Keyframe
from slam.geometry import se3
from slam.inv_depth import InvDepth
from slam.mapping.archive import Archive
from slam.mapping.culling import REDUNDANT, covisible_ratios, most_redundant, view_distances


@pytest.fixture(scope="module")
def seen_often(world, wall_and_box) -> tuple[Keyframe, ...]:
    """Two keyframes far apart, and five of one place between them."""
    places = [-2.0, 0.0, 0.02, 0.04, 0.06, 0.08, 2.0]
    return tuple(world.keyframe(wall_and_box.moved(x), n, n) for n, x in enumerate(places))


def test_what_others_see_as_well_is_redundant(seen_often):
    shares = covisible_ratios(seen_often, list(range(7)))
    assert all(shares[n] >= REDUNDANT for n in (2, 3, 4)) and max(shares[0], shares[6]) < 0.5


def test_the_oldest_redundant_keyframe_goes_unless_it_is_protected(seen_often):
    shares = covisible_ratios(seen_often, list(range(7)))
    redundant = [n for n, share in enumerate(shares) if share >= REDUNDANT]
    assert most_redundant(seen_often, set()).id == redundant[0]
    assert most_redundant(seen_often, {redundant[0]}).id == redundant[1]
    assert most_redundant(seen_often, set(range(7))) is None


def test_without_a_redundant_one_the_most_redundant_goes(world, wall_and_box):
    along = tuple(world.keyframe(wall_and_box.moved(0.35 * n), n, n) for n in range(6))
    shares = covisible_ratios(along, list(range(6)))
    assert 0 < max(shares) < REDUNDANT
    best = int(np.argmax(shares))
    assert 0 < best < 5 and most_redundant(along, set()).id == best
    assert most_redundant(along, {best}).id != best


def test_the_distance_of_views_is_shift_by_depth_and_angle(world, wall_and_box):
    k = world.keyframe(se3.identity())
    depth = 1 / float(k.coarse.value.mean())
    T_wc = torch.stack([se3.inverse(wall_and_box.moved(*m)) for m in ((0.3,), (0, 0, 0, 0, 0.2), (0.3, 0, 0, 0, 0.4))])
    distances = view_distances([k, k], T_wc)
    expected = [0.3 / depth, 0.2, np.hypot(0.3 / depth, 0.4)]
    np.testing.assert_allclose(distances.numpy(), np.stack([expected, expected], -1), rtol=2e-3)


def test_a_witness_must_see_the_same_surface_and_as_finely(world, wall_and_box, seen_often):
    """Four who look at it through a wall, or from four times as far, do not replace a keyframe."""
    k = seen_often[1]
    blocked = [replace(k, id=9 + n, coarse=InvDepth(2 * k.coarse.value, k.coarse.sigma)) for n in range(4)]
    assert covisible_ratios((k, *blocked), [0]) == [0.0]
    far = [world.keyframe(wall_and_box.moved(z=6.0), 9 + n, n) for n in range(4)]
    assert (
        covisible_ratios((k, *far), [0]) == [0.0] and covisible_ratios((*far, k), [0])[0] > 0.9
    )  # they are spared by each other


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="this system does not list open files")
def test_archived_keyframes_are_the_same_and_hold_no_files_open(tmp_path, seen_often):
    """A run of hours evicts thousands; a program may have 1024 files open."""
    archive, before = Archive(tmp_path / "old"), len(os.listdir("/dev/fd"))
    for n in range(30):
        archive.store(replace(seen_often[n % 7], id=n))
    stored = [archive.load(n) for n in range(30)]
    assert len(os.listdir("/dev/fd")) == before
    for k, old in zip(stored, seen_often, strict=False):
        assert np.array_equal(k.view.image.rgb, old.view.image.rgb) and k.keypoints is None
        assert torch.equal(k.T_wc, old.T_wc)
        for was, now in ((old.dense, k.dense), (old.coarse, k.coarse)):
            assert torch.equal(was.value, now.value) and torch.equal(was.sigma, now.sigma)
    archive.close()
    archive.close()
    assert not (tmp_path / "old").exists()


def test_the_folder_goes_with_the_archive(seen_often):
    """Whatever a run died of."""
    archive = Archive()
    archive.store(seen_often[0])
    assert archive.folder is not None and any(archive.folder.iterdir())
    folder = archive.folder
    del archive
    assert not folder.exists()


def test_a_keyframe_whose_files_are_gone_is_named(tmp_path: Path, seen_often):
    archive = Archive(tmp_path / "old")
    archive.store(seen_often[0])
    shutil.rmtree(tmp_path / "old")
    with pytest.raises(OutputError, match=r"cannot read old keyframes from .*old"):
        archive.load(seen_often[0].id)


def test_a_disk_that_refuses_is_named(tmp_path: Path, seen_often):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write old keyframes to .*file"):
        Archive(tmp_path / "file" / "old").store(seen_often[0])
