from dataclasses import replace

import torch

from slam.geometry import se3
from slam.geometry.camera import sample, scaled_intrinsics
from slam.geometry.flow import reproject
from slam.training.clips import INV_DEPTH_SCALE, Clip, ClipPool, fill
from slam.training.data import (
    AugmentConfig,
    all_edges,
    at_cells,
    make_batch,
    mean_flow,
    perturb_depth,
    perturb_pose,
    pick_edges,
    true_flow,
    warp,
)
from slam.training.validation import NO_CHANGE

CPU = torch.device("cpu")
CROPPED = AugmentConfig(
    crop_height=40, crop_width=48, flip=1.0, gray=0, exposure=0, gamma=0, blur=0, noise=0, rolling=0, lens=0
)


def colour_error(batch, stride: int = 1) -> float:
    """Mean absolute difference of an image and its neighbour read at the true flow: small if and only if all agree."""
    a, b = 0, 1
    T_ji = se3.inverse(batch.T_wc[:, b]) @ batch.T_wc[:, a]
    uv, _, _ = reproject(batch.inv_depth[:, a], T_ji, batch.K)
    H, W = uv.shape[1:3]
    inside = ((uv > 0) & (uv < torch.tensor([W - 1.0, H - 1.0]))).all(-1)
    difference = (sample(batch.images[:, b], uv) - batch.images[:, a]).abs().mean(1)
    return difference[inside].mean().item()


def test_crop_and_mirror_keep_images_depth_poses_and_intrinsics_together(plane_clip):
    """Photo-consistency of the true flow: 0.01 as made; a forgotten principal point or sign costs far more."""
    g = torch.Generator().manual_seed(0)
    clips = [plane_clip(g) for _ in range(4)]
    plain = colour_error(make_batch(clips, 2, NO_CHANGE, g, CPU))
    changed = make_batch(clips, 2, CROPPED, g, CPU)
    assert changed.images.shape == (4, 2, 3, 40, 48)
    assert plain < 0.02
    assert colour_error(changed) < 0.02
    shifted = changed.K.clone()
    shifted[:, 0, 2] += 8
    unmirrored = type(changed)(changed.images.flip(-1), changed.inv_depth, changed.T_wc, changed.K)
    assert colour_error(unmirrored) > 0.04  # the check can fail


def shifts(config: AugmentConfig, clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(clips, 3, 96, 128, 2) shift that `warp` gives each pixel, and its offset from the centre, off the middle.

    Depth is 1 at the left, 3 at the right; the image's colours are its coordinates, which bilinear reading keeps.
    """
    uv = torch.stack(torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="xy"), 0)
    K = torch.tensor([[100.0, 0, 60], [0, 100, 50], [0, 0, 1]], dtype=torch.float64)
    inv_depth = (1 / torch.linspace(1, 3, 128)).expand(clips, 3, 96, 128)
    images = torch.cat([uv, torch.zeros(1, 96, 128)]).expand(clips, 3, 3, 96, 128).contiguous()
    row_time = torch.full((clips,), 1 / 96)
    warped = warp(images, inv_depth, K.expand(clips, 3, 3), row_time, config, torch.Generator().manual_seed(4))
    return (warped - images)[:, :, :2].permute(0, 1, 3, 4, 2), (uv - K[:2, 2, None, None]).permute(1, 2, 0).float()


def test_a_rolling_shutter_keeps_the_middle_row_and_shifts_the_others_by_their_time():
    """The row of the principal point, 50, stays; 40 rows above and below it shift opposite ways, near things more."""
    shift, _ = shifts(replace(NO_CHANGE, rolling=1.0, rolling_px=1.5), 40)
    assert shift[:, :, 50].abs().max() < 1e-4
    above, below = shift[:, :, 10, 4:-4], shift[:, :, 90, 4:-4]
    length = below.norm(dim=-1).mean(-1)
    assert 0.2 < length.mean() < 0.9 and length.max() < 2.5
    assert ((above * below).sum((-1, -2)) < 0).float().mean() > 0.9
    assert not torch.allclose(shift[0, 0], shift[0, 1], atol=1e-2)  # each view moves its own way


def test_a_lens_shifts_along_the_radius_by_its_cube_and_alike_in_all_views():
    shift, offset = shifts(replace(NO_CHANGE, lens=1.0, lens_px=1.0), 40)
    radius = offset.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    along = (shift * offset / radius).sum(-1)
    torch.testing.assert_close(shift[inner], (along[..., None] * offset / radius)[inner], rtol=0, atol=1e-3)
    torch.testing.assert_close(shift[:, 0], shift[:, 2], rtol=0, atol=1e-4)
    at = along[:, 0, 50, [90, 120]]  # 30 and 60 pixels from the middle, a factor of 8
    torch.testing.assert_close(at[:, 1], 8 * at[:, 0], rtol=0, atol=1e-3)
    assert 0.2 < (along[:, 0, 50, 120] * 80**3 / 60**3).abs().mean() < 0.8  # up to 1 at 80 pixels, the corner


def test_edges_hold_the_flow_of_the_true_pose_and_picking_respects_the_limit(plane_clip):
    g = torch.Generator().manual_seed(1)
    batch = make_batch([plane_clip(g) for _ in range(3)], 3, NO_CHANGE, g, CPU)
    edges = all_edges(batch, 8)
    assert edges.index.shape == (18, 2) and (edges.index // 3)[:, 0].equal((edges.index // 3)[:, 1])
    uv, _, _ = reproject(edges.inv_depth, edges.T_ji, edges.K)
    torch.testing.assert_close(uv, edges.true_uv)
    limit = float(mean_flow(edges).median())
    picked = pick_edges(edges, 5, limit, g, min_visible=0.1)
    assert 0 < len(picked.index) <= 5 and (mean_flow(picked) < limit).all()


def test_a_surface_behind_another_is_not_visible():
    """View j has a near wall (inverse depth 2) on its left half; the far wall of i (1) is hidden there."""
    far, near = torch.ones(1, 16, 32), torch.ones(1, 16, 32)
    near[..., :16] = 2.0
    K = torch.tensor([[[20.0, 0, 15.5], [0, 20, 7.5], [0, 0, 1]]], dtype=torch.float64)
    eye = torch.eye(4, dtype=torch.float64)[None]
    cells, uv, visible = true_flow(far, near, eye, K, 8)
    assert not visible[0, :, :2].any()
    assert visible[0, :, 2:].all()
    assert cells.shape == (1, 2, 4) and uv.shape == (1, 2, 4, 2)


def test_cells_read_the_pixels_around_their_centre():
    """Inverse depth = 1 + column: the centre of cell 0 of 8 is at 3.5, so 4.5; a ramp of 5 % and more is no surface."""
    ramp = 1 + torch.arange(16.0).expand(1, 8, 16)
    value, smooth = at_cells(ramp, 8)
    torch.testing.assert_close(value, torch.tensor([[[4.5, 12.5]]]))
    assert not smooth.any()
    assert at_cells(ramp / 100 + 1, 8)[1].all()
    ramp[0, 3, 3] = 0.0  # unknown
    value, _ = at_cells(ramp, 8)
    assert value[0, 0, 0] == 0


def test_intrinsics_of_cells_project_cell_centres():
    """A pixel at 8 c + 3.5 is cell c: the rule that `at_cells` and `scaled_intrinsics` must share."""
    K = torch.tensor([[200.0, 0, 100.3], [0, 210, 90.1], [0, 0, 1]], dtype=torch.float64)
    p = torch.tensor([0.2, -0.1, 1.3], dtype=torch.float64)
    pixel, cell = (K @ p / p[2])[:2], (scaled_intrinsics(K, 1 / 8) @ p / p[2])[:2]
    torch.testing.assert_close(cell * 8 + 3.5, pixel)


def test_disturbances_cover_truth_constant_and_holes_and_start_poses_stay_between_rest_and_motion():
    g = torch.Generator().manual_seed(2)
    truth = 0.5 + torch.rand(300, 6, 8, generator=g)
    disturbed = perturb_depth(truth, g)
    same = (disturbed == truth).flatten(1).all(1)
    constant = (disturbed.flatten(1).std(1) < 1e-6) & ~same
    holes = (disturbed == 0).flatten(1).any(1)
    assert 0.2 < same.float().mean() < 0.45 and 0.08 < constant.float().mean() < 0.28 and holes.float().mean() > 0.3
    xi = torch.randn(300, 6, generator=g).double() * 0.05
    start = se3.log(perturb_pose(se3.exp(xi), g))
    assert 0.4 < (start.abs().amax(1) < 1e-12).double().mean() < 0.6
    assert (start.norm(dim=1) < 2.5 * xi.norm(dim=1)).all()


def test_pool_keeps_the_newest_and_survives_on_disk(tmp_path, plane_clip):
    g = torch.Generator().manual_seed(3)
    clips = [plane_clip(g, 2, 16, 16) for _ in range(5)]
    pool = ClipPool(3, tmp_path)
    for clip in clips:
        pool.add(clip)
    again = ClipPool(3, tmp_path)
    assert [c is d for c, d in zip(pool.clips, clips[2:])] == [True] * 3
    assert again.added == 5 and len(again) == 3
    for a, b in zip(pool.clips, again.clips):
        for name, value in vars(a).items():
            assert torch.equal(value, getattr(b, name))


def test_a_rewound_pool_asks_for_the_clips_it_lacks_by_number_and_gets_the_same(tmp_path, plane_clip):
    """Two clips were added after the checkpoint, two of the window are gone: all as it was, each clip by its number."""

    def make(number: int) -> list[Clip]:
        return [plane_clip(torch.Generator().manual_seed(number), 2, 16, 16)]

    def same(pool: ClipPool, other: ClipPool) -> bool:
        pairs = [(pool.held[n], other.held[n]) for n in pool.held]
        return pool.held.keys() == other.held.keys() and all(torch.equal(a.images, b.images) for a, b in pairs)

    pool, later = ClipPool(3), ClipPool(3, tmp_path)
    while pool.added < 5:
        pool.add(make(pool.added)[0])
    while later.added < 7:
        later.add(make(later.added)[0])
    later.rewind(5)
    assert later.missing() == [2, 3] and sorted(int(p.stem) for p in tmp_path.glob("*.safetensors")) == [4]
    fill(later, 1, make)
    assert same(pool, later) and same(pool, ClipPool(3, tmp_path))
    empty = ClipPool(3)
    empty.rewind(5)
    fill(empty, 1, make, stop=lambda: len(empty) == 2)
    assert empty.missing() == [4]


def test_packing_keeps_inverse_depth_to_its_step_and_marks_the_unknown():
    depth = torch.tensor([[[0.0, 1.0, 3.0, float("inf")]]])
    clip = Clip.pack(torch.zeros(1, 3, 1, 4), depth, torch.eye(4)[None], torch.eye(3))
    expected = torch.tensor([[[0.0, 1.0, 1 / 3, 0.0]]])
    torch.testing.assert_close(clip.inv_depth, expected, rtol=0, atol=0.5 / INV_DEPTH_SCALE)
