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


CORNERS = {
    1: "rgbw",
    2: "grwb",
    3: "wbgr",
    4: "bwrg",
    5: "rbgw",
    6: "brwg",
    7: "wgbr",
    8: "gwrb",
}  # by EXIF orientation
COLOURS = {"r": (250, 20, 20), "g": (20, 250, 20), "b": (20, 20, 250), "w": (200, 200, 200)}


def quarters() -> np.ndarray:
    """Red, green / blue, grey: every turn and mirror looks different; 40 rows, 60 columns."""
    pixels = np.empty((40, 60, 3), np.uint8)
    for n, name in enumerate("rgbw"):
        pixels[20 * (n // 2) :, 30 * (n % 2) :] = COLOURS[name]
    return pixels


def corners(image: np.ndarray) -> str:
    found = (image[3, 3], image[3, -3], image[-3, 3], image[-3, -3])
    return "".join(min(COLOURS, key=lambda c: np.abs(pixel - np.array(COLOURS[c], float)).sum()) for pixel in found)


@pytest.mark.parametrize("orientation", CORNERS)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_are_as_exif_says_that_they_are_shown(tmp_path, orientation: int, suffix: str):
    """A calibration is of images as shown; 5 to 8 are upright ones of a sensor that lay."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    exif = pil.Exif()
    exif[0x112] = orientation
    pil.fromarray(quarters()).save(tmp_path / f"a{suffix}", exif=exif)
    image = read_color(tmp_path / f"a{suffix}")
    assert image.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    assert corners(image) == CORNERS[orientation]


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("P", "a.png", {}),
        ("CMYK", "a.jpg", {"quality": 95}),
        ("RGBA", "a.png", {}),
        ("RGB", "a.webp", {"animated": True, "lossless": True}),
        ("RGB", "a.png", {"animated": True}),
        ("RGB", "a.tif", {"animated": True}),
        ("RGB", "a.jpg", {"progressive": True, "quality": 95}),
        ("RGB", "a.jp2", {}),
    ],
)
def test_colours_of_every_mode(tmp_path, mode: str, name: str, options: dict):
    """Of animations and pages the first image counts; what is transparent keeps its colour."""
    pil = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    saved = pil.fromarray(quarters()).convert(mode)
    if mode == "RGBA":
        saved.putalpha(0)
    if options.pop("animated", False):
        options |= {"save_all": True, "append_images": [pil.fromarray(255 - quarters())]}
    saved.save(tmp_path / name, **options)
    assert corners(read_color(tmp_path / name)) == "rgbw"


def test_a_damaged_png_is_refused_before_it_is_decoded(tmp_path, capfd):
    """libpng would tell every error to the terminal itself."""
    write_color(tmp_path / "a.png", image())
    whole = (tmp_path / "a.png").read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(16, len(whole) - 12, 97)]
    for data in (*flipped, whole[:-12], whole[:20]):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(SourceError, match="it is damaged"):
            read_color(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


def jpeg(quality: int = 90, **options: int) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    for name, value in options.items():
        flags += [getattr(cv2, f"IMWRITE_JPEG_{name.upper()}"), value]
    done, data = cv2.imencode(".jpg", noise, flags)
    assert done
    return data.tobytes()


def after_scan(data: bytes, at: int = 200) -> int:
    return data.index(b"\xff\xda") + at


@pytest.mark.parametrize("options", [{}, {"progressive": 1}, {"rst_interval": 3}])
def test_whole_jpegs_are_read_with_whatever_stands_behind_them(tmp_path, capfd, options: dict):
    """A preview or a second image behind the end, fill bytes before a marker, a thumbnail in the header."""
    data = jpeg(**options)
    thumbnail = b"\xff\xe1" + (len(jpeg(20)) + 2).to_bytes(2, "big") + jpeg(20)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    for whole in (data, data + jpeg()[:400], data[:-2] + b"\xff\xff" + data[-2:], data[:2] + thumbnail + data[2:]):
        (tmp_path / "a.jpg").write_bytes(whole)
        np.testing.assert_array_equal(read_color(tmp_path / "a.jpg"), expected)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (jpeg()[: after_scan(jpeg())], "it is cut off"),
        (jpeg()[:-2] + bytes(500), "it is cut off"),
        (jpeg()[:100], "it is cut off"),
        (jpeg()[:2] + bytes(100) + jpeg()[102:], "it is damaged"),
        (jpeg()[: after_scan(jpeg())] + b"\xff\x31" + jpeg()[after_scan(jpeg()) + 2 :], "it is damaged"),
        (jpeg(rst_interval=3).replace(b"\xff\xd4", b"\xff\xd5"), "it is damaged"),
    ],
    ids=["half", "zeros at the end", "header", "zeros in the header", "marker in the pixels", "lost rows"],
)
def test_a_damaged_jpeg_is_refused_before_it_is_decoded(tmp_path, capfd, data: bytes, message: str):
    """libjpeg would fill what is missing with gray, and tell it to the terminal itself."""
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(SourceError, match=rf"cannot read the image .*a.jpg: {message}$"):
        read_color(tmp_path / "a.jpg")
    assert capfd.readouterr().err == ""
