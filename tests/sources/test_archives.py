"""Archives of images and data sets: unpacked once, safely, and never played as a video."""

import bz2
import gzip
import io
import logging
import lzma
import os
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from slam.errors import SourceError
from slam.sources import SourceSpec, open_source, resolved
from slam.sources.archives import Limits, archive_kind, cache_folder, extract, unpacked


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/v2d-slam/archives"


@pytest.fixture
def images(tmp_path, scenes) -> Path:
    path = scenes.image_folder(tmp_path / "in/shots", [f"{n}.jpg" for n in (10, 9, 11)])
    (path / "._9.jpg").write_bytes(b"left by a system")
    (tmp_path / "in/__MACOSX").mkdir()
    (tmp_path / "in/__MACOSX/x.jpg").write_bytes(b"left by a system")
    return tmp_path / "in"


def packed(folder: Path, file: Path, kind: str) -> Path:
    made = shutil.make_archive(str(file.with_suffix(".made")), kind, folder)
    os.replace(made, file)
    return file


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.zip", "zip"),
        ("a.tar", "tar"),
        ("a.tgz", "gztar"),
        ("a.tar.gz", "gztar"),
        ("a.tar.xz", "xztar"),
        ("a.tar.bz2", "bztar"),
        ("a.mp4", "zip"),
        ("no_suffix", "tar"),
    ],
)
@pytest.mark.parametrize("option", ["", "images"])
def test_images_in_an_archive_are_their_folder(tmp_path, scenes, images, caplog, name: str, kind: str, option: str):
    caplog.set_level(logging.INFO)
    archive = packed(images, tmp_path / name, kind)
    for told in ("unpacking", "was unpacked before into"):
        source = open_source(SourceSpec(str(archive), kind=option, fps=10.0))
        assert [scenes.number_of(frame.image) for frame in source] == [1, 0, 2]  # natural order, not the archive's
        assert [frame.time_ns for frame in source] == [0, 10**8, 2 * 10**8] and source.skipped == 0
        assert told in caplog.text and str(cache_folder()) in caplog.text
        caplog.clear()


@pytest.mark.parametrize("name", ["a.zip", "a.mp4", "a.avi"])
@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_is_never_played_as_a_video(tmp_path, images, name: str, kind: str):
    archive = packed(images, tmp_path / name, kind)
    with pytest.raises(SourceError, match=r"is no video but an archive \((ZIP|tar|gzip)\); .* use --sequence"):
        open_source(SourceSpec(str(archive), kind="video"))


def test_an_image_is_no_video(tmp_path, scenes):
    scenes.image_folder(tmp_path / "s", ["a_01.png", "a_02.png"])
    with pytest.raises(SourceError, match=r"a_01.png is one image, not a video; give its folder to --images"):
        open_source(SourceSpec(str(tmp_path / "s/a_01.png"), kind="video"))


def test_a_data_set_keeps_its_layout_and_its_name(tmp_path, scenes):
    name = "rgbd_dataset_freiburg1_desk"
    scenes.tum_folder(tmp_path / "in" / name, ["1.5", "2.5"])
    spec = resolved(SourceSpec(str(packed(tmp_path / "in", tmp_path / "desk.tgz", "gztar"))))
    assert spec.kind == "tum" and Path(spec.path).name == name
    assert [frame.time_ns for frame in open_source(spec)] == [1500000000, 2500000000]


def test_a_single_video_in_an_archive_is_that_video(tmp_path, scenes):
    (tmp_path / "in").mkdir()
    scenes.video(tmp_path / "in/a.avi", 3)
    assert len(list(open_source(SourceSpec(str(packed(tmp_path / "in", tmp_path / "v.zip", "zip")))))) == 3


def test_a_changed_archive_is_unpacked_again(tmp_path, scenes, images, cache):
    archive = packed(images, tmp_path / "a.zip", "zip")
    assert open_source(SourceSpec(str(archive))).count == 3
    scenes.save(images / "shots/12.jpg", scenes.image(3))
    os.utime(packed(images, archive, "zip"), (time.time() + 9, time.time() + 9))
    assert open_source(SourceSpec(str(archive))).count == 4
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(files=2), "more than 2 files"),
        (Limits(total_bytes=1000), "more than 1e-06 GB"),
        (Limits(free_of_ratio_bytes=1000, ratio=100), "more than 100 times its own size"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_bombs_leave_nothing(tmp_path, cache, limits: Limits, message: str, kind: str):
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / f"in/{n}.bmp").write_bytes(bytes(1 << 20))
    archive = packed(tmp_path / "in", tmp_path / "a", kind)
    with pytest.raises(SourceError, match=message):
        unpacked(archive, limits)
    assert list(cache.iterdir()) == []


def test_what_is_inside_counts_too(tmp_path):
    """A bomb in a ZIP in a ZIP."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0.bmp", bytes(1 << 22))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("top/b.zip", inner.getvalue())
    with pytest.raises(SourceError, match="more than 200 times its own size"):
        extract(tmp_path / "a.zip", tmp_path / "out", limits=Limits(free_of_ratio_bytes=1 << 20))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"7z\xbc\xaf\x27\x1c", r"is a 7z archive, .* unpack it: 7z x '.*a.7z' -o'.*a'"),
        (b"Rar!\x1a\x07\x01\x00", r"is a RAR archive, .* unpack it: unrar x"),
        (b"\x28\xb5\x2f\xfd", r"is a zstd archive, .* tar --zstd -xf"),
    ],
)
def test_other_archives_have_a_command(tmp_path, head: bytes, message: str):
    (tmp_path / "a.7z").write_bytes(head + bytes(600))
    for kind in ("", "images"):
        with pytest.raises(SourceError, match=message):
            resolved(SourceSpec(str(tmp_path / "a.7z"), kind=kind))


@pytest.mark.parametrize(("module", "command"), [(gzip, "gunzip -k"), (bz2, "bunzip2 -k"), (lzma, "unxz -k")])
def test_a_single_compressed_file_has_a_command(tmp_path, cache, module, command):
    (tmp_path / "walk.bag.z").write_bytes(module.compress(b"#ROSBAG V2.0\n" + bytes(5000)))
    with pytest.raises(
        SourceError, match=f"walk.bag.z is no archive but a single compressed file; unpack it: {command} '"
    ):
        resolved(SourceSpec(str(tmp_path / "walk.bag.z")))


def test_damaged_and_encrypted_archives(tmp_path, images, cache):
    archive = packed(images, tmp_path / "a.tar.xz", "xztar")
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="is damaged"):
        unpacked(archive)
    archive.write_bytes(whole[:100] + bytes([255 - whole[100]]) + whole[101:])
    with pytest.raises(SourceError, match=r"is damaged|neither a tar nor a zip"):
        unpacked(archive)
    data = bytearray(packed(images, tmp_path / "b.zip", "zip").read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # the flag of encryption, in the directory
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(SourceError, match="is encrypted; unpack it yourself"):
        unpacked(tmp_path / "b.zip")
    assert list(cache.iterdir()) == []


def test_every_zip_of_random_damage_is_refused_or_read(tmp_path, images):
    rng = np.random.default_rng(3)
    whole = packed(images, tmp_path / "a.zip", "zip").read_bytes()
    for n in range(60):
        data = bytearray(whole)
        for at in rng.integers(4, len(data), 3):
            data[at] = rng.integers(256)
        (tmp_path / "b.zip").write_bytes(data)
        try:
            extract(tmp_path / "b.zip", tmp_path / f"out{n}")
        except SourceError as error:
            assert "\n" not in str(error)


def test_kinds_are_told_by_content(tmp_path, scenes, images):
    with tarfile.open(tmp_path / "old.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(images / "shots/9.jpg", "9.jpg")
    data = bytearray((tmp_path / "old.tar").read_bytes())
    data[257:265] = bytes(8)  # as before 1988, without magic
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))
    (tmp_path / "old.tar").write_bytes(data)
    assert archive_kind(tmp_path / "old.tar") == "tar"
    for file in (scenes.video(tmp_path / "a.avi", 2), images / "shots/9.jpg", tmp_path):
        assert archive_kind(file) is None
    (tmp_path / "a.txt").write_text("1 2 3\n" * 300)
    assert archive_kind(tmp_path / "a.txt") is None


@pytest.mark.parametrize("cache", ["file/below", "relative"])
def test_without_a_cache_that_can_be_written_an_archive_is_read_all_the_same(
    tmp_path, images, monkeypatch, caplog, cache
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache) if "/" in cache else cache)
    archive = packed(images, tmp_path / f"{cache[:4]}.zip", "zip")
    for _ in range(2):
        assert len(list(open_source(SourceSpec(str(archive), fps=10.0)))) == 3
    assert caplog.text.count("unpacked for this run alone") == 1 and "XDG_CACHE_HOME=FOLDER" in caplog.text
