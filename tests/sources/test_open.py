"""From what the user says to a source: aliases, detection by content, options."""

import tarfile
from pathlib import Path

import pytest

from slam.errors import SourceError, UsageError
from slam.sources import SOURCES, SourceSpec, alias, detect, open_source
from slam.sources.alias import known_aliases, known_camera, resolve_sequence


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working folder, no data root set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("V2D_DATA", raising=False)
    return tmp_path


def test_every_alias_is_complete():
    aliases = known_aliases()
    assert len(aliases) == 9 + 18 + 20 + 1 + 7
    assert aliases["tum/fr1_desk"].url == (
        "https://cvg.cit.tum.de/rgbd/dataset/freiburg1/rgbd_dataset_freiburg1_desk.tgz"
    )
    assert aliases["tum/fr1_360"].folders[0] == str(Path("tum/rgbd_dataset_freiburg1_360"))
    assert aliases["tum/fr3_office"] == aliases["tum/fr3_long_office_household"]
    assert all("{" not in known.url + "".join(known.folders) for known in aliases.values())
    assert known_camera(Path("rgbd_dataset_freiburg2_desk")).fx == 520.9
    assert known_camera(Path("my_desk")) is None


@pytest.mark.parametrize(
    "folder",
    [
        "datasets/tum/rgbd_dataset_freiburg1_desk",
        "datasets/TUM_RGBD/rgbd_dataset_freiburg1_desk",
        "data/TUM-RGBD/freiburg1_desk",
        "data/rgbd_dataset_freiburg1_desk",
        "datasets/fr1_desk",
    ],
)
def test_folder_variants(place, folder: str):
    (place / folder).mkdir(parents=True)
    assert resolve_sequence("tum/fr1_desk").resolve() == (place / folder).resolve()
    assert resolve_sequence("TUM/rgbd_dataset_freiburg1_desk").resolve() == (place / folder).resolve()


def test_order_of_the_roots(place, monkeypatch):
    for root in ("given", "variable", "datasets", "data"):
        (place / root / "tum/fr1_desk").mkdir(parents=True)
    assert resolve_sequence("tum/fr1_desk") == Path("datasets/tum/fr1_desk")
    monkeypatch.setenv("V2D_DATA", "variable")
    assert resolve_sequence("tum/fr1_desk") == Path("variable/tum/fr1_desk")
    assert resolve_sequence("tum/fr1_desk", Path("given")) == Path("given/tum/fr1_desk")


def test_a_path_is_itself_and_a_folder_inside_can_be_named(place):
    (place / "7scenes/chess/seq-03").mkdir(parents=True)
    assert resolve_sequence("7scenes/chess/seq-03") == Path("7scenes/chess/seq-03")
    (place / "7scenes").rename(place / "data")
    assert resolve_sequence("7scenes/chess/seq-03") == Path("data/chess/seq-03")
    with pytest.raises(SourceError, match=r"chess has no seq-04; .*\(holds seq-03\)"):
        resolve_sequence("7scenes/chess/seq-04")


def test_home_is_expanded(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("USERPROFILE", str(place))
    (place / "desk").mkdir()
    assert resolve_sequence("~/desk") == place / "desk"


def test_missing_sequence_says_where_it_looked(place):
    for n in range(10, 30):
        (place / "datasets" / f"other{n}").mkdir(parents=True)
    with pytest.raises(SourceError) as caught:
        resolve_sequence("tum/fr1_desk", Path("given"))
    message = str(caught.value)
    assert "tum/fr1_desk is not on this computer" in message and "\n" not in message
    assert "rgbd_dataset_freiburg1_desk or fr1_desk or freiburg1_desk" in message
    assert "given (does not exist)" in message and "data (does not exist)" in message
    assert "datasets (holds other10, other11, " in message and "other20, other21, ...)" in message
    assert "--data-root" in message and "--download to fetch https://cvg.cit.tum.de" in message


def test_unknown_names_list_the_known(place):
    with pytest.raises(SourceError, match=r"did you mean tum/fr1_desk\?.*known: tum/fr1_360, .*tum/fr3_walking_xyz"):
        resolve_sequence("tum/fr1_dsk")
    with pytest.raises(SourceError, match=r"did you mean tum/fr1_desk\?.*known: tum/fr1_360, .*7scenes/stairs"):
        resolve_sequence("fr1_desk")
    for path in ("nowhere/at/all", "./nowhere", "/nowhere", "nowhere.mp4"):  # no list of names for a mistyped path
        with pytest.raises(SourceError, match=f"^no file or folder at {path}$"):
            resolve_sequence(path)


def test_download_of_a_known_sequence(place, scenes, monkeypatch):
    """The whole way but the network: the archive is unpacked below the root, opened, and removed."""
    scenes.tum_folder(place / "rgbd_dataset_freiburg1_desk", ["1.0", "2.0"])

    def fake_download(_url: str, file: Path, progress: bool) -> Path:
        file.parent.mkdir(parents=True)
        with tarfile.open(file, "w:gz") as tar:
            tar.add(place / "rgbd_dataset_freiburg1_desk", "rgbd_dataset_freiburg1_desk")
        return file

    monkeypatch.setattr(alias, "download", fake_download)
    source = open_source(SourceSpec("tum/fr1_desk", data_root=Path("root"), download=True))
    assert [frame.time_ns for frame in source] == [10**9, 2 * 10**9]
    assert [p.name for p in (place / "root/tum").iterdir()] == ["rgbd_dataset_freiburg1_desk"]
    assert resolve_sequence("tum/fr1_desk", Path("root")) == Path("root/tum/rgbd_dataset_freiburg1_desk")


def test_kinds_are_told_by_content(place, scenes):
    stamped = scenes.tum_folder(place / "b", ["1.5", "2.5"])
    (stamped / "rgb.txt").unlink()
    scenes.save(place / "c/seq-01/frame-000000.color.png", scenes.image(0))
    (place / "d/mav0/cam0").mkdir(parents=True)
    (place / "d/mav0/cam0/data.csv").write_text("")
    kinds = {
        "tum": [scenes.tum_folder(place / "a", ["1.0"]), stamped],
        "7scenes": [place / "c", place / "c/seq-01"],
        "euroc": [place / "d"],
        "images": [scenes.image_folder(place / "e", ["0001.png"])],
        "video": [scenes.video(place / "f.avi", 2)],
        "ros": [place / "g.db3", place / "G.BAG", place / "h", place / "h/h_0.mcap"],
    }
    (place / "h").mkdir()
    for recording in ("g.db3", "G.BAG", "h/h_0.mcap"):
        (place / recording).touch()
    assert set(SOURCES) - set(kinds) == {"realsense", "webvideo"}  # that one is told from ROS's where bags are tested
    for kind, paths in kinds.items():
        assert [detect(path) for path in paths] == [kind] * len(paths)


def test_every_kind_opens(place, scenes):
    scenes.save(place / "c/frame-000000.color.png", scenes.image(0, 640, 480))
    scenes.tum_folder(place / "a", ["1.0"])
    scenes.image_folder(place / "e", ["0001.png"])
    scenes.video(place / "f.avi", 2)
    for path, kind in (("a", "TumSource"), ("c", "LayoutSource"), ("e", "ImageFolderSource"), ("f.avi", "Video")):
        source = open_source(SourceSpec(path))
        assert type(source).__name__.startswith(kind)
        assert source.live is False and source.skipped == 0
        assert len(list(source)) == source.count
        source.close()


def test_options_reach_the_source(place, scenes):
    scenes.image_folder(place / "e", [f"{n}.png" for n in range(6)])
    spec = SourceSpec("e", start=1, stride=2, max_frames=4, fps=10.0, hfov_deg=90.0)
    source = open_source(spec)
    assert [frame.time_ns for frame in source] == [100000000, 300000000]
    assert source.camera.fx == pytest.approx(16)


def test_wrong_options(place, scenes):
    scenes.tum_folder(place / "a", ["1.0"])
    scenes.image_folder(place / "e", ["1.png"])
    for spec, message in (
        (SourceSpec("a", kind="tumm"), r"unknown kind of source 'tumm'; known: tum, images"),
        (SourceSpec("a", fps=5.0), r"--fps is for images and videos"),
        (SourceSpec("e", with_depth=True), r"e \(images\) has no depth to use"),
        (SourceSpec("a", stride=0), r"--stride and --max-frames >= 1, got 0, 0"),
    ):
        with pytest.raises(UsageError, match=message):
            open_source(spec)


def test_what_cannot_be_opened(place, scenes):
    (place / "empty").mkdir()
    (place / "other").mkdir()
    (place / "other/readme.md").write_text("")
    (place / "text.txt").write_text("no video")
    scenes.save(place / "one.png", scenes.image(0))
    for path, message in (
        ("empty", "has no images .* it is empty"),
        ("other", "it holds readme.md"),
        ("text.txt", "text.txt is no video"),
        ("one.png", "is one image; name its folder"),
        ("tum/missing", "neither a path nor a known sequence"),
    ):
        with pytest.raises(SourceError, match=message):
            open_source(SourceSpec(path))
    with pytest.raises(SourceError, match=r"no video at missing.mp4"):
        open_source(SourceSpec("missing.mp4", kind="video"))


def test_depth_of_data_sets_is_used_only_when_asked_for(recording):
    """It is monocular SLAM; only what a depth camera delivered itself is used unasked."""
    wanted = {None: False, False: False, True: True}
    for with_depth, has_depth in wanted.items():
        frame = next(iter(open_source(SourceSpec(str(recording), with_depth=with_depth))))
        assert (frame.depth is not None) is has_depth, with_depth
