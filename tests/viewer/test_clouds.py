"""Points of keyframes: made when needed, moved when not, subsampled when too many."""

import time
from dataclasses import replace

import numpy as np
import pytest

from slam.viewer.clouds import Clouds
from slam.viewer.run import FinishedRun, Playback
from slam.viewer.view_state import ViewState


@pytest.fixture
def shown(run_path) -> ViewState:
    return Playback(FinishedRun(run_path)).shown()


def settled(clouds: Clouds, shown: ViewState, min_confidence: float = 0.5) -> list[int]:
    """Update until nothing is under way; the keyframes whose points changed, in order, again and again."""
    end_s, changed = time.monotonic() + 30, list(clouds.update(shown, min_confidence))
    while clouds.is_busy:
        assert time.monotonic() < end_s
        time.sleep(0.002)
        changed += sorted(clouds.update(shown, min_confidence))
    return changed


def with_last(shown: ViewState, **changes) -> ViewState:
    return replace(shown, keyframes=(*shown.keyframes[:-1], replace(shown.keyframes[-1], **changes)))


def test_points_lie_on_the_wall_in_the_colours_of_their_pixels(shown):
    clouds = Clouds(10**6)
    assert sorted(settled(clouds, shown)) == [0, 1, 2, 3]
    cloud = clouds.points[1].cloud  # every second row and column of an image that its neighbours see nearly whole
    assert 0.9 * 24 * 32 < len(cloud) <= 24 * 32 and cloud.colors is not None
    np.testing.assert_allclose(cloud.points[:, 2], 2.0, atol=1e-3)
    corner = cloud.points[:, :2].sum(1).argmin()
    assert cloud.points[corner, 0] < -0.9 and cloud.points[corner, 1] < -0.9  # top left, in the camera frame
    assert cloud.colors[corner, 0] > 150 > 60 > cloud.colors[corner, 1]  # red
    clouds.close()


def test_only_a_new_depth_or_another_confidence_makes_points_again(shown):
    clouds = Clouds(10**6)
    settled(clouds, shown)
    assert settled(clouds, shown) == []
    moved = with_last(shown, T_wc=2 * shown.keyframes[-1].T_wc, scale=1.5)
    assert settled(clouds, moved) == [] and clouds.points[3].scale == 1.0
    refined = with_last(moved, dense_version=1)
    assert settled(clouds, refined) == [3] and clouds.points[3].scale == 1.5
    before = len(clouds.points[0].cloud)
    assert sorted(settled(clouds, refined, 0.7)) == [0, 1, 2, 3]  # the lower half of each image is less sure
    assert len(clouds.points[0].cloud) == pytest.approx(before / 2, rel=0.05)
    clouds.close()


def test_too_many_points_thin_the_old_and_spare_the_newest(shown):
    everything, clouds = Clouds(10**6), Clouds(2700)
    settled(everything, shown)
    settled(clouds, shown)
    sizes = {i: len(one.cloud) for i, one in clouds.points.items()}
    full = {i: len(one.cloud) for i, one in everything.points.items()}
    assert sum(full.values()) > 2700 >= sum(sizes.values())
    assert sizes == full | {0: full[0] // 2}
    everything.close()
    clouds.close()
