"""Images keep their colours, depths their metres."""

import cv2
import numpy as np
import pytest

from slam.errors import OutputError, SourceError
from slam.io.images import (
    read_color,
    read_confidence,
    read_depth,
    read_mask,
    write_color,
    write_confidence,
    write_depth,
    write_mask,
)


def image(h: int = 48, w: int = 64) -> np.ndarray:
    """Smooth, with different red, green and blue."""
    v, u = np.mgrid[:h, :w]
    return np.stack([u * 255 // w, v * 255 // h, np.full_like(u, 30)], -1).astype(np.uint8)


def test_png_is_exact_and_jpeg_close(tmp_path):
    write_color(tmp_path / "a.png", image())
    np.testing.assert_array_equal(read_color(tmp_path / "a.png"), image())
    write_color(tmp_path / "a.jpg", image())
    assert np.abs(read_color(tmp_path / "a.jpg").astype(int) - image()).mean() < 2


def test_the_file_is_rgb_for_others(tmp_path):
    """OpenCV reads blue first, so our red must be its last channel."""
    write_color(tmp_path / "a.png", image())
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], image())


def test_gray_and_16_bit_become_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "g.png"), image()[..., 0])
    np.testing.assert_array_equal(read_color(tmp_path / "g.png"), image()[..., :1].repeat(3, -1))
    cv2.imwrite(str(tmp_path / "h.png"), image()[..., 0].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_color(tmp_path / "h.png"), image()[..., :1].repeat(3, -1))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_cut_off_images_are_refused(tmp_path, suffix: str):
    path = tmp_path / f"a{suffix}"
    write_color(path, image())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(SourceError, match=f"a{suffix}"):
        read_color(path)


def test_missing_empty_and_foreign_images(tmp_path):
    with pytest.raises(SourceError, match=r"cannot read the image .*a.png: No such file"):
        read_color(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match="it is empty"):
        read_color(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(SourceError, match="it is damaged"):
        read_color(tmp_path / "a.png")


def test_depth_round_trip_and_range(tmp_path):
    depth = np.array([[0.0, 1.0, 0.00012], [13.107, 13.108, np.nan], [np.inf, -1.0, 2.5]], np.float32)
    write_depth(tmp_path / "d.png", depth)
    expected = [[0, 1, 0.0002], [13.107, 0, 0], [0, 0, 2.5]]  # 0.6 of a step is one; past 65535 is unknown
    np.testing.assert_allclose(read_depth(tmp_path / "d.png"), expected, atol=1e-6)
    assert cv2.imread(str(tmp_path / "d.png"), cv2.IMREAD_UNCHANGED)[0, 1] == 5000


def test_depth_error_is_at_most_half_a_step(tmp_path):
    depth = np.random.default_rng(0).uniform(0.2, 10, (48, 64)).astype(np.float32)
    write_depth(tmp_path / "d.png", depth, scale=1000)
    np.testing.assert_allclose(read_depth(tmp_path / "d.png", scale=1000), depth, atol=0.5001e-3)


def test_invalid_value_becomes_unknown(tmp_path):
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[65535, 1000]], np.uint16))
    np.testing.assert_array_equal(read_depth(tmp_path / "d.png", 1000, invalid=65535), [[0, 1]])


def test_colour_is_no_depth(tmp_path):
    write_color(tmp_path / "a.png", image())
    with pytest.raises(SourceError, match="is no depth image: expected one channel of 16 bits, got uint8"):
        read_depth(tmp_path / "a.png")
    with pytest.raises(SourceError, match="is no confidence image"):
        read_confidence(tmp_path / "a.png")
    with pytest.raises(SourceError, match="is no mask"):
        read_mask(tmp_path / "a.png")


def test_confidence_round_trip(tmp_path):
    confidence = np.array([[0, 0.5, 1, 2, -1, np.nan]], np.float32)
    write_confidence(tmp_path / "c.png", confidence)
    np.testing.assert_allclose(read_confidence(tmp_path / "c.png"), [[0, 0.5, 1, 1, 0, 0]], atol=0.5 / 255)


def test_unwritable(tmp_path):
    with pytest.raises(OutputError, match=r"no image format has the suffix '.xyz'"):
        write_color(tmp_path / "a.xyz", image())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_color(tmp_path / "file" / "a.png", image())
    with pytest.raises(ValueError, match="uint8"):
        write_color(tmp_path / "a.png", image().astype(np.float32))


def test_mask_round_trip(tmp_path):
    mask = np.array([[True, False, False], [False, True, True]])
    write_mask(tmp_path / "m.png", mask)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    assert set(np.unique(read_confidence(tmp_path / "m.png"))) == {0.0, 1.0}  # 0 and 255 in the file
