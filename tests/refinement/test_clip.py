"""Frames of a run read again, stretch by stretch, and the depth that the map has for them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slam.errors import SourceError
from slam.frames import Frame, Trajectory
from slam.geometry import se3
from slam.geometry.camera import Camera
from slam.inv_depth import UNMEASURED_SIGMA, InvDepth
from slam.refinement import clip as clip_module
from slam.refinement.clip import Clip, spread_depth, stretches

CAMERA = Camera(64, 64, 60.0, 60.0, 31.5, 31.5)
PIXELS, LENGTH, MARGIN = 64 * 64, 8, 3


class Gray:
    """Frames of one gray level each, every 10 ns from 1000 on."""

    live = False
    camera = CAMERA
    skipped = 0

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.count = len(numbers)
        self.read = 0

    def __iter__(self):
        for n in self.numbers:
            self.read += 1
            yield Frame(n, 1000 + 10 * n, np.full((64, 64, 3), n % 256, np.uint8), CAMERA)

    def close(self) -> None:
        """Nothing is open."""


def poses(numbers: list[int]) -> Trajectory:
    """Frame n stands at x = n."""
    T_wc = np.tile(np.eye(4), (len(numbers), 1, 1))
    T_wc[:, 0, 3] = numbers
    return Trajectory(1000 + 10 * np.array(numbers, np.int64), T_wc)


def cut(numbers: list[int], posed: list[int] | None = None):
    return list(stretches("film", Gray(numbers), PIXELS, poses(posed or numbers), LENGTH, MARGIN))


@pytest.mark.parametrize("margin", [MARGIN, 0, 6])
@pytest.mark.parametrize("count", [2, 3, *range(7, 21), 24, 27, 28, 33, 50])
def test_every_frame_belongs_to_one_stretch_and_has_its_neighbours_beside_it(count: int, margin: int):
    numbers = list(range(count))
    found = list(stretches("film", Gray(numbers), PIXELS, poses(numbers), LENGTH, margin))
    owned: list[int] = []
    for stretch in found:
        ids = [view.frame_id for view in stretch.clip.views]
        own = [ids[n] for n in stretch.own]
        assert ids == list(range(max(own[0] - margin, 0), min(own[-1] + margin + 1, count)))
        assert stretch.clip.T_wc[:, 0, 3].tolist() == ids  # its own pose
        assert [int(view.image.rgb[0, 0, 0]) for view in stretch.clip.views] == ids  # and its own image
        owned += own
    assert owned == numbers
    sizes = [len(stretch.own) for stretch in found]
    assert all(size == LENGTH for size in sizes[:-1])
    assert len(sizes) == 1 or LENGTH / 2 <= sizes[-1] <= LENGTH + max(LENGTH / 2, margin)


def test_frames_without_a_pose_are_left_out():
    """The first ones before the map began, and one that was lost."""
    posed = [n for n in range(5, 30) if n != 17]
    found = cut(list(range(40)), posed)
    owned = [stretch.clip.views[n].frame_id for stretch in found for n in stretch.own]
    assert owned == posed


def test_a_frame_in_a_hundred_may_be_gone():
    posed = list(range(100))
    assert sum(len(s.own) for s in cut(posed[:50] + posed[51:], posed)) == 99


@pytest.mark.parametrize("there", [list(range(90)), list(range(500, 600)), [], [7]])
def test_a_source_that_has_changed_is_refused(there: list[int]):
    count = len([n for n in there if n < 100])
    with pytest.raises(SourceError, match=f"film has {count} of the 100 frames.*run v2d-slam again"):
        cut(there, list(range(100)))


def test_a_long_video_that_is_another_one_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(clip_module, "FIRST_FRAMES", 20)
    source = Gray(list(range(1000, 3000)))
    with pytest.raises(SourceError, match="has 0 of the 100 frames"):
        list(stretches("film", source, PIXELS, poses(list(range(100))), LENGTH, MARGIN))
    assert source.read == 20


def test_the_motion_of_a_clip_takes_frame_i_to_frame_j(room):
    """`p_j = T_ji p_i`: a point of the world, seen from both."""
    i, j = torch.tensor([0, 5]), torch.tensor([7, 2])
    p_w = torch.tensor([0.3, -0.2, 1.5, 1.0], dtype=torch.float64)
    p = torch.linalg.inv(room.clip.T_wc) @ p_w
    torch.testing.assert_close((room.clip.motion(i, j) @ p[i, :, None])[..., 0], p[j])


def test_a_keyframe_keeps_its_depth_and_others_get_that_of_the_nearest_ones(room):
    """Inverse depth from frames up to 4 apart, by splatting: right where no edge has moved."""
    maps = spread_depth(room.clip, room.keyframes(8))
    for n, found in enumerate(maps):
        assert bool(found.known.all())
        if n % 8 == 0:
            torch.testing.assert_close(found.value, room.inv_depth[n])
        else:
            assert (found.value / room.inv_depth[n]).log().abs().median() < 0.02


def test_the_nearest_keyframe_has_the_last_word(room):
    """That of frame 8 is a third too near; frames 6 to 10 are nearest to it, frame 1 is not."""
    keyframes = [replace(k, dense=k.dense.rescaled(0.75)) if k.view.frame_id == 8 else k for k in room.keyframes(8)]
    part = Clip(room.clip.views[:12], room.clip.T_wc[:12])
    ratios = [
        float((m.value / d).median()) for m, d in zip(spread_depth(part, keyframes), room.inv_depth, strict=False)
    ]
    assert all(ratios[n] == pytest.approx(4 / 3, rel=0.1) for n in (6, 7, 8, 9, 10))
    assert all(ratios[n] == pytest.approx(1, rel=0.03) for n in (0, 1, 2))


def test_a_frame_that_sees_nothing_of_the_map_gets_a_depth_all_the_same(room):
    """The camera turned round, and a keyframe whose depth is unknown: the median, as a guess, and never 0."""
    turned = se3.exp(torch.tensor([0, 0, 0, 0, 3.1, 0.0], dtype=torch.float64))
    T_wc = room.clip.T_wc.clone()
    T_wc[5] = T_wc[5] @ turned
    keyframes = room.keyframes(8)
    keyframes[1] = replace(keyframes[1], dense=InvDepth.unknown(keyframes[1].dense.size))
    maps = spread_depth(Clip(room.clip.views, T_wc), keyframes)
    assert all(bool(found.known.all()) for found in maps)
    assert maps[5].value.median() == pytest.approx(float(room.inv_depth.median()), rel=0.2)
    assert maps[5].relative_sigma.min() == pytest.approx(UNMEASURED_SIGMA)
    assert (maps[8].value / room.inv_depth[8]).log().abs().median() < 0.02  # from the other keyframes
