"""What is no scene in the images of a recording: found where it is, and nowhere else."""

import cv2
import numpy as np
import pytest

from slam.sources.survey import SAMPLES, survey


def pan(step: tuple[int, int] = (5, 9), low: float = 20, high: float = 230, noise: float = 1.0) -> list[np.ndarray]:
    """Images (120, 160, 3) of a camera that moves along a textured wall, by (rows, columns) between images."""
    rng = np.random.default_rng(0)
    wall = cv2.GaussianBlur(rng.standard_normal((320, 400)).astype(np.float32), (0, 0), 2.5)
    wall = low + (high - low) * np.clip(0.5 + wall / (5 * wall.std()), 0, 1)
    images = []
    for n in range(SAMPLES):
        v, u = n * step[0], n * step[1]
        view = wall[v : v + 120, u : u + 160] + noise * rng.standard_normal((120, 160))
        images.append(np.repeat(np.clip(view, 0, 255).round().astype(np.uint8)[..., None], 3, -1))
    return images


def framed(
    images: list[np.ndarray], pixels: tuple[int, int, int, int], color: tuple[int, int, int]
) -> list[np.ndarray]:
    """With bars of (top, bottom, left, right) pixels round them."""
    return [cv2.copyMakeBorder(image, *pixels, cv2.BORDER_CONSTANT, value=color) for image in images]


def found(images: list[np.ndarray]) -> tuple[bool, bool, bool, bool]:
    """Levels, bars, border, overlay: which were found."""
    s = survey(images)
    return s.levels is not None, s.crop is not None, s.border is not None, s.overlay is not None


NOTHING = (False, False, False, False)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (90, 90, 90), (180, 30, 60)])
@pytest.mark.parametrize("pixels", [(20, 20, 0, 0), (0, 0, 40, 40), (0, 12, 0, 0), (10, 14, 30, 26)])
def test_bars_of_any_colour_are_cut_off_to_the_pixel(pixels, color):
    """And one row more on each side that has a bar: in coded video it is a mixture."""
    top, bottom, left, right = (n + 1 if n else 0 for n in pixels)
    H, W = 120 + pixels[0] + pixels[1], 160 + pixels[2] + pixels[3]
    s = survey(framed(pan(), pixels, color))
    assert s.crop == (left, top, W - left - right, H - top - bottom)
    assert s.border is None and s.overlay is None and s.levels is None


def test_bars_of_coded_video():
    """JPEG smears eight pixels of the edge; the cut may be that much off, and no black row may stay."""
    images = framed(pan(), (20, 20, 0, 0), (0, 0, 0))
    coded = [
        cv2.imdecode(cv2.imencode(".jpg", im, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR) for im in images
    ]
    crop = survey(coded).crop
    assert crop is not None
    left, top, width, height = crop
    assert (left, width) == (0, 160) and 16 <= top <= 24 and 136 <= top + height <= 144


def test_a_dark_room_with_a_dark_side_keeps_it():
    """The left half is as black as a bar, but its edge moves with the camera."""
    images = pan(step=(3, 2), low=0, high=160)
    rng = np.random.default_rng(1)
    for n, image in enumerate(images):
        edge = 70 - 2 * n + (np.arange(120) // 8) % 3
        dark = np.arange(160)[None] < edge[:, None]
        image[dark] = rng.integers(0, 3, (int(dark.sum()), 1))
    assert found(images) == NOTHING


def test_a_still_camera_gives_no_borders_and_no_overlays():
    images = framed([pan(noise=2.0)[0]] * SAMPLES, (20, 20, 0, 0), (0, 0, 0))
    assert found(images) == NOTHING


@pytest.mark.parametrize("step", [(5, 9), (0, 12), (9, 0), (2, 1)])
def test_a_moving_scene_has_nothing_to_be_changed(step):
    assert found(pan(step)) == NOTHING


def test_a_long_edge_along_the_motion_is_no_overlay():
    """A dark rail that the camera follows: it stays in its rows, but so does no edge of an end of it."""
    images = pan(step=(0, 12))
    for image in images:
        image[60:66] = 10
    assert survey(images).overlay is None


def test_an_overlay_is_masked_with_its_surroundings_only():
    images = pan()
    for n, image in enumerate(images):
        cv2.putText(image, f"REC {n % 10}", (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    s = survey(images)
    assert s.overlay is not None and s.crop is None
    letters = np.zeros((120, 160), np.uint8)
    cv2.putText(letters, "REC", (8, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 255, 2)
    assert s.overlay[letters > 0].mean() > 0.95
    assert s.overlay.mean() < 0.12 and not s.overlay[60:].any()


def test_an_opaque_logo_is_masked_as_a_whole():
    """Its plain inside too, on which nothing moves."""
    images = pan()
    for image in images:
        image[20:50, 110:154] = (0, 0, 200)
        cv2.putText(image, "TV", (118, 42), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    overlay = survey(images).overlay
    assert overlay is not None and overlay[20:50, 110:154].all() and overlay.mean() < 0.12


def test_the_carrier_at_the_lower_edge_is_masked():
    images = pan()
    v, u = np.mgrid[:120, :160]
    body = v > 100 + 6 * ((u - 80) / 80) ** 2
    texture = cv2.GaussianBlur(np.random.default_rng(3).uniform(0, 255, (120, 160)).astype(np.float32), (0, 0), 3)
    for image in images:
        image[body] = texture[body, None].astype(np.uint8)
    s = survey(images)
    hidden = (
        np.zeros((120, 160), bool)
        if s.crop is None
        else ~np.pad(np.ones((s.crop[3], s.crop[2]), bool), ((s.crop[1], 120 - s.crop[1] - s.crop[3]), (0, 0)))
    )
    for part in (s.border, s.overlay):
        if part is not None:
            hidden[: part.shape[0]] |= part
    assert hidden[body].mean() > 0.85 and hidden[:90].mean() < 0.02


def test_large_images_are_looked_at_in_steps_and_cut_no_less():
    """Four times the size: of bars of 80 pixels nothing may be left, of the image at most two steps' worth is lost."""
    images = [
        cv2.resize(image, (1280, 960), interpolation=cv2.INTER_NEAREST)
        for image in framed(pan(), (20, 20, 0, 0), (0, 0, 0))
    ]
    s = survey(images)
    assert s.crop is not None
    left, top, width, height = s.crop
    scale = 960 / 160
    assert (left, width) == (0, 1280) and 20 * scale <= top <= 20 * scale + 6
    assert 140 * scale - 8 <= top + height <= 140 * scale


@pytest.mark.parametrize("ends", [(100, 120), (0, 30), (225, 255)])
def test_low_contrast_is_stretched(ends):
    levels = survey(pan(low=ends[0], high=ends[1], noise=0.5)).levels
    assert levels is not None
    assert levels[0] == pytest.approx(ends[0], abs=6) and levels[1] == pytest.approx(ends[1], abs=6)


def test_low_contrast_with_a_lens_cap_at_the_beginning_is_stretched_too():
    images = [np.zeros_like(image) for image in pan()[:4]] + pan(low=100, high=120)[4:]
    levels = survey(images).levels
    assert levels is not None and levels[0] == pytest.approx(100, abs=6)


def test_twelve_bits_in_sixteen_are_stretched_and_sixteen_are_not():
    """Stretched beyond what is seen by a tenth of it, on both sides."""
    deep = [(16.0 * image).astype(np.uint16) for image in pan()]
    levels = survey(deep).levels
    assert levels is not None and 0 <= levels[0] < 700 and 3300 < levels[1] < 4400
    assert survey([(256.0 * image).astype(np.uint16) for image in pan()]).levels is None


@pytest.mark.parametrize("value", [0, 3, 255])
def test_images_with_nothing_to_see_are_left_alone(value):
    assert found([np.full((60, 80, 3), value, np.uint8)] * SAMPLES) == NOTHING


def test_few_images_decide_nothing_but_the_levels():
    assert found(framed(pan()[:3], (20, 20, 0, 0), (0, 0, 0))) == NOTHING
    assert survey([]).crop is None
