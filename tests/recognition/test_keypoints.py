"""Keypoints on rendered views of a room, whose depth and poses are known."""

import numpy as np
import pytest

from slam.frames import Image, Keypoints
from slam.recognition.keypoints import KeypointConfig, detect_keypoints, match_keypoints, rank_places, solve_pnp
from slam.sources.demo import DemoConfig, DemoSource

CONFIG = KeypointConfig()


@pytest.fixture(scope="module")
def walk():
    """Three frames a second of a walk through a room, and the truth."""
    source = DemoSource(DemoConfig(kind="office", variant="walk", frames=12, fps=3.0), with_depth=True)
    return list(source), source.groundtruth().T_wc


def test_a_pose_from_the_depth_of_another_image(walk):
    frames, T_wc = walk
    a, b = (detect_keypoints(Image(frames[n].image)) for n in (0, 2))
    pairs = match_keypoints(a, b)
    assert len(pairs) > 30
    u, v = np.rint(a.uv[pairs[:, 0]]).astype(int).T
    inv_depth = 1 / frames[0].depth[v, u]
    T_ck, inliers = solve_pnp(
        a.uv[pairs[:, 0]], inv_depth, b.uv[pairs[:, 1]], frames[0].camera.matrix().numpy(), CONFIG
    )
    error = np.linalg.inv(T_ck) @ np.linalg.inv(T_wc[2]) @ T_wc[0]
    moved = np.linalg.norm(T_wc[2, :3, 3] - T_wc[0, :3, 3])
    assert inliers.mean() > 0.5
    assert np.linalg.norm(error[:3, 3]) < 0.15 * moved
    assert np.degrees(np.arccos(np.clip((np.trace(error[:3, :3]) - 1) / 2, -1, 1))) < 0.7


def test_matches_are_mutual(walk):
    a, b = (detect_keypoints(Image(frame.image)) for frame in walk[0][:2])
    there, back = match_keypoints(a, b), match_keypoints(b, a)
    mutual = set(map(tuple, there.tolist())) & {(i, j) for j, i in back.tolist()}
    assert len(mutual) > 0.7 * len(there)  # what is distinct from one side only is left out
    assert len({i for i, _ in there.tolist()}) == len(there) == len({j for _, j in there.tolist()})


def test_votes_go_to_the_nearest_view(walk):
    stored = {n: detect_keypoints(Image(walk[0][n].image)) for n in (0, 6, 11)}
    assert rank_places(detect_keypoints(Image(walk[0][1].image)), stored)[0][0] == 0
    assert rank_places(detect_keypoints(Image(walk[0][10].image)), stored)[0][0] == 11


def test_nothing_to_see():
    blank = detect_keypoints(Image(np.full((60, 80, 3), 90, np.uint8)))
    assert blank.uv.shape == (0, 2) and blank.descriptors.shape == (0, 128)
    assert match_keypoints(blank, blank).shape == (0, 2)
    assert rank_places(blank, {3: blank}) == []
    assert rank_places(blank, {}) == []


def test_points_that_agree_on_nothing_give_no_pose():
    rng = np.random.default_rng(0)
    K = np.array([[200.0, 0, 160], [0, 200.0, 120], [0, 0, 1]])
    uv, other = rng.uniform(0, 200, (2, 60, 2)).astype(np.float32)
    assert solve_pnp(uv, np.ones(60), other, K, CONFIG) is None
    assert solve_pnp(uv[:5], np.ones(5), other[:5], K, CONFIG) is None


def test_a_descriptor_is_a_unit_vector(walk):
    found: Keypoints = detect_keypoints(Image(walk[0][0].image))
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-3)
    assert 50 < len(found.uv) <= CONFIG.count + 10
