"""Depth against geometry solved by hand, agreement of views, batches, rolling shutter."""

import dataclasses

import numpy as np
import pytest
import torch

from slam.geometry import se3
from slam.geometry.camera import Camera, pixel_grid, ray_map, sample
from slam.geometry.flow import in_image, rays, reproject
from slam.rendering.builder import SceneBuilder, yaw_matrix
from slam.rendering.casting import intersect
from slam.rendering.clips import clip_poses
from slam.rendering.paths import between
from slam.rendering.primitives import CYLINDER, ELLIPSOID, NOTHING, Scene, Scenes, distance, stack
from slam.rendering.renderer import render, render_depth
from slam.rendering.scenes import SCENE_KINDS, make_scene
from slam.rendering.textures import default_atlas
from slam.rendering.viewpoints import default_intrinsics, look_at

H, W = 72, 100  # no multiples of the tiles
K = torch.tensor([[80.0, 0, 48.3], [0, 82.0, 35.1], [0, 0, 1]], dtype=torch.float64)


def builder() -> SceneBuilder:
    """A room of 8 x 4 x 10 m, floor at y = 0, origin in the middle of the floor."""
    b = SceneBuilder(np.random.default_rng(0), default_atlas())
    b.room(8, 4, 10, [b.material("wood", 1.0)] * 6)
    b.light((0, -3.5, 0), (1, 1, 1))
    return b


def camera(x: float = 0.0, y: float = -1.5, z: float = 0.0) -> torch.Tensor:
    """A camera that looks along world z."""
    T = torch.eye(4, dtype=torch.float64)
    T[:3, 3] = torch.tensor([x, y, z])
    return T[None]


def directions() -> torch.Tensor:
    return rays(K[None], H, W)[0]


def test_a_wall_ahead_has_one_depth_and_the_floor_that_of_its_plane():
    scene = stack([builder().finish("test", "cpu")])
    depth = render(scene, camera(), K, H, W).depth[0].double()
    d = directions()
    # first of: wall z = 5, walls x = +-4, floor 1.5 m below, ceiling 2.5 m above
    candidates = [torch.full((H, W), 5.0).double(), 4 / d[..., 0].abs(), 1.5 / d[..., 1].clamp_min(1e-9)]
    expected = torch.stack([*candidates, 2.5 / (-d[..., 1]).clamp_min(1e-9)]).amin(0)
    torch.testing.assert_close(depth, expected, rtol=3e-6, atol=0)  # float32 has 6e-8, a few operations
    assert (depth == 5).any() and (depth < 4.5).any()


def test_a_sphere_has_the_depth_of_the_quadratic():
    b = builder()
    centre, r = np.array([0.4, -1.3, 3.0]), 0.6
    b.ellipsoid(centre, (r, r, r), b.material("plain", 1.0))
    depth = render(stack([b.finish("test", "cpu")]), camera(), K, H, W).depth[0].double()
    d, c = directions(), torch.tensor(centre - [0, -1.5, 0])
    dc, dd = (d * c).sum(-1), d.square().sum(-1)
    disc = dc.square() - dd * (c.square().sum() - r * r)
    hit = disc > 1e-4  # off the silhouette, where rounding decides
    expected = ((dc - disc.clamp_min(0).sqrt()) / dd)[hit]
    assert hit.sum() > 500
    torch.testing.assert_close(depth[hit], expected, rtol=2e-5, atol=0)
    empty = render_depth(stack([builder().finish("test", "cpu")]), camera(), K, H, W)[0].double()
    assert torch.equal(depth[disc < -1e-4], empty[disc < -1e-4])


def test_a_turned_box_and_a_thin_pole_have_the_depth_of_their_shapes():
    """Every hit point lies on the surface by the distance function, which is written separately."""
    b = builder()
    b.box(0.5, -1.0, 3.0, (0.7, 0.5, 0.4), b.material("plain", 1.0), yaw=0.6)
    b.rod((-0.8, -2.4, 2.0), (-0.5, -0.4, 3.0), 0.01, b.material("plain", 1.0))
    b.add(CYLINDER, (-1.4, -1.5, 3.5), (0.3, 0.5, 0.3), yaw_matrix(0.3), b.material("plain", 1.0))
    b.add(ELLIPSOID, (1.4, -2.2, 3.5), (0.3, 0.5, 0.2), yaw_matrix(0.3), b.material("plain", 1.0))
    scene = stack([b.finish("test", "cpu")])
    depth = render_depth(scene, camera(), K, H, W)[0].double()
    points = directions() * depth[..., None] + camera()[0, :3, 3]
    off = distance(scene, points.view(1, -1, 3).float()).abs()
    assert off.max() < 2e-4  # the pole is 1 cm wide and 3 m away: 1e-4 is float32's share
    in_front = depth < 4.5
    for x0, x1 in ((-1.8, -1.1), (-0.85, -0.45), (0.1, 0.9), (1.1, 1.7)):  # each thing is seen
        assert (in_front & (points[..., 0] > x0) & (points[..., 0] < x1) & (points[..., 1] < -0.9)).sum() > 20


def test_no_visible_primitive_is_culled():
    """Tiles against all primitives: the same image if every tile takes every primitive."""
    generator = torch.Generator().manual_seed(3)
    scenes = stack([make_scene(kind, generator) for kind in SCENE_KINDS])
    T_wc = clip_poses(scenes, 2, generator)
    depth = render_depth(scenes, T_wc.flatten(0, 1), K, H, W).view(len(scenes), 2, H, W)
    for s in range(len(scenes)):
        one, d = scenes.select([s]), directions()
        nearest = torch.full((2, H, W), torch.inf)
        for p in range(one.kind.shape[1]):
            if one.kind[0, p] == NOTHING:
                continue
            alone = dataclasses.replace(one, **{n: getattr(one, n)[:, [0, p]] for n in _PER_PRIMITIVE})
            nearest = torch.minimum(nearest, _brute(alone, T_wc[s], d))
        torch.testing.assert_close(depth[s], nearest, rtol=1e-4, atol=1e-4)


_PER_PRIMITIVE = ("kind", "R", "centre", "half", "face_material", "uv_offset")


def _brute(scene: Scenes, T_wc: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """(2, H, W) nearest of two primitives, every pixel against both, without tiles."""
    A = (scene.R[0].mT / scene.half[0][..., None]).float()
    best = []
    for p in range(2):
        o_w, d_w = T_wc[:, :3, 3:].float(), (T_wc[:, None, None, :3, :3] @ d[..., None]).squeeze(-1).float()
        o = A[p] @ (o_w - scene.centre[0, p][:, None])
        local = A[p] @ d_w.flatten(1, 2).mT
        best.append(intersect(int(scene.kind[0, p]), o, local).view(2, *d.shape[:2]))
    return torch.minimum(*best)


def test_two_views_agree_in_depth_and_colour():
    """Depth of one view, reprojected, gives the depth of the other; and nearly its colour (lights are fixed)."""
    generator = torch.Generator().manual_seed(1)
    scenes = stack([make_scene(kind, generator) for kind in SCENE_KINDS])
    h, w = 96, 128
    K_small = default_intrinsics(h, w)
    T_wc = clip_poses(scenes, 2, generator, motion_scale=0.2)
    views = render(scenes, T_wc.flatten(0, 1), K_small, h, w)
    depth = views.depth.view(-1, 2, h, w).double()
    image = views.image.view(-1, 2, 3, h, w)
    K_all = K_small.expand(len(scenes), 3, 3)
    uv, q, valid = reproject(1 / depth[:, 0], se3.inverse(T_wc[:, 1]) @ T_wc[:, 0], K_all)
    seen = valid & in_image(uv, h, w, 1)
    there = sample(1 / depth[:, 1:], uv)[:, 0]
    expected = 1 / depth[:, 0] / q[..., 2]
    agree = ((there / expected - 1).abs() < 0.01) & seen
    assert agree.sum() / seen.sum() > 0.9  # the rest is occluded, or interpolated over an edge
    # inverse depth of a plane is linear in the image: away from edges bilinear reading is exact
    assert (there / expected - 1).abs()[seen].median() < 1e-5
    difference = (sample(image[:, 1], uv.float()) - image[:, 0]).abs().mean(1)
    assert difference[agree].mean() < 0.02
    shuffled = (image[:, 1] - image[:, 0]).abs().mean(1)
    assert difference[agree].mean() < 0.5 * shuffled[agree].mean()


def test_rays_of_another_lens_take_the_place_of_the_matrix():
    """Those of a second matrix give what that matrix gives; tiles reach over the border (90 x 70)."""
    scenes = stack([make_scene("living", torch.Generator().manual_seed(3))])
    other = Camera(90, 70, 40.0, 41.0, 47.0, 33.0)
    expected = render(scenes, camera(), other.matrix(), 70, 90)
    seen = render(scenes, camera(), torch.diag(torch.tensor([40.0, 40.0, 1.0])), 70, 90, rays_c=ray_map(other))
    torch.testing.assert_close(seen.depth, expected.depth, rtol=1e-4, atol=1e-4)
    assert float((seen.image - expected.image).abs().mean()) < 1e-3
    with pytest.raises(ValueError, match="cannot be supersampled"):
        render(scenes, camera(), other.matrix(), 70, 90, rays_c=ray_map(other), supersample=2)


def test_batches_and_single_views_are_the_same():
    generator = torch.Generator().manual_seed(2)
    scenes = [make_scene(kind, generator) for kind in ("bare", "office")]
    both = stack(scenes)
    T_wc = clip_poses(both, 3, generator)
    together = render(both, T_wc.flatten(0, 1), K, H, W)
    for s, scene in enumerate(scenes):
        for v in range(3):
            alone = render(stack([scene]), T_wc[s, v][None], K, H, W)
            torch.testing.assert_close(together.depth[3 * s + v], alone.depth[0], rtol=1e-5, atol=0)
            assert (together.image[3 * s + v] - alone.image[0]).abs().mean() < 1e-4


def test_rolling_shutter_rows_are_rows_of_global_views():
    generator = torch.Generator().manual_seed(4)
    scenes = stack([make_scene("clutter", generator)])
    T_wc = clip_poses(scenes, 1, generator)[0]
    twist = torch.tensor([[0.1, 0.03, -0.05, 0.02, 0.1, 0.05]], dtype=torch.float64)
    path = T_wc @ se3.exp(twist * torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64))
    rows = between(path, 0.5 + (torch.arange(H, dtype=torch.float64)[None] + 0.5) / H)
    rolled = render(scenes, T_wc, K, H, W, row_T_wc=rows)
    for row in (0, 17, 40, H - 1):
        still = render(scenes, rows[:, row], K, H, W)
        torch.testing.assert_close(rolled.depth[0, row], still.depth[0, row], rtol=1e-4, atol=1e-4)
        assert (rolled.image[0, :, row] - still.image[0, :, row]).abs().mean() < 1e-3
    assert (rolled.depth - render(scenes, T_wc, K, H, W).depth).abs().max() > 0.01
    middle = 0.5 * (rows[0, H // 2 - 1] + rows[0, H // 2])
    torch.testing.assert_close(middle, T_wc[0], rtol=0, atol=1e-4)


def test_a_seed_gives_the_same_bytes_and_another_does_not():
    def image(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        scenes = stack([make_scene("desk", generator)])
        return render(scenes, clip_poses(scenes, 2, generator)[0], K, H, W).image

    assert torch.equal(image(7), image(7))
    assert not torch.equal(image(7), image(8))


def test_images_are_in_range_and_depths_in_the_room():
    generator = torch.Generator().manual_seed(9)
    scenes = stack([make_scene(kind, generator) for kind in SCENE_KINDS])
    views = render(scenes, clip_poses(scenes, 1, generator)[:, 0], K, H, W)
    assert views.image.shape == (len(SCENE_KINDS), 3, H, W) and views.image.dtype == torch.float32
    assert views.image.min() >= 0 and views.image.max() <= 1
    assert views.image.std((1, 2, 3)).median() > 0.05
    assert torch.isfinite(views.depth).all() and views.depth.min() > 0.02
    indoors = [n for n, kind in enumerate(SCENE_KINDS) if kind != "yard"]
    assert views.depth[indoors].max() < 25 and views.depth.max() < 40  # a yard is 22 x 30 m at most


def test_wrong_arguments_are_refused():
    generator = torch.Generator().manual_seed(0)
    scenes = stack([make_scene("bare", generator), make_scene("bare", generator)])
    with pytest.raises(ValueError, match="2 scenes, got 3"):
        render(scenes, torch.eye(4).expand(3, 4, 4), K, H, W)
    with pytest.raises(ValueError, match="row_T_wc"):
        render(scenes, torch.eye(4).expand(2, 4, 4), K, H, W, row_T_wc=torch.eye(4).expand(2, 5, 4, 4))


def test_depth_is_z_not_range():
    """A wall square to the axis has one depth however far off the axis a pixel lies."""
    scene: Scene = builder().finish("test", "cpu")
    depth = render(stack([scene]), camera(z=4.0), K, H, W).depth[0]
    uv = pixel_grid(H, W, like=depth)
    centre = (uv[..., 0] - 48).abs() < 30
    torch.testing.assert_close(depth[centre], torch.ones(int(centre.sum())), rtol=1e-5, atol=0)


def test_look_at_puts_the_target_in_the_middle():
    position, target = torch.tensor([[1.0, -1.2, 0.3]]).double(), torch.tensor([[-2.0, -0.1, 1.9]]).double()
    T = look_at(position, target, torch.tensor([0.2]).double())
    p_c = (se3.inverse(T)[0] @ torch.cat([target[0], torch.ones(1)]))[:3]
    torch.testing.assert_close(p_c[:2], torch.zeros(2).double(), rtol=0, atol=1e-12)
    assert p_c[2] > 0 and torch.linalg.det(T[0, :3, :3]) == pytest.approx(1)
    assert T[0, 1, 1] > 0.8  # its y axis points down


def test_supersampling_smooths_edges_and_keeps_depth():
    generator = torch.Generator().manual_seed(6)
    scenes = stack([make_scene("clutter", generator)])
    T_wc = clip_poses(scenes, 1, generator)[0]
    one, three = render(scenes, T_wc, K, H, W), render(scenes, T_wc, K, H, W, supersample=3)
    assert torch.equal(one.depth, three.depth)
    assert (one.image - three.image).abs().mean() < 0.02  # the same image, not shifted:
    shifted = (one.image[..., 1:] - three.image[..., :-1]).abs().mean()
    assert (one.image - three.image).abs().mean() < 0.8 * shifted


def test_light_is_dimmer_under_a_table_than_beside_it():
    b = builder()
    b.box(0, -0.8, 3.0, (2, 0.05, 2), b.material("plain", 1.0))
    b.ambient[:] = 0.2
    gray = b.material("plain", 1.0, contrast=0.0)
    b.rows[0][16:22] = gray  # floor, walls: even
    scenes = stack([b.finish("test", "cpu")])
    down = look_at(torch.tensor([[0.0, -0.7, 1.2]]).double(), torch.tensor([[0.0, 0.0, 3.0]]).double())
    beside = look_at(torch.tensor([[0.0, -0.7, -1.2]]).double(), torch.tensor([[0.0, 0.0, -3.0]]).double())
    K_narrow = torch.tensor([[300.0, 0, 31.5], [0, 300, 31.5], [0, 0, 1]])
    images = render(scenes, torch.cat([down, beside]), K_narrow, 64, 64).image
    assert images[0].mean() < 0.85 * images[1].mean()
