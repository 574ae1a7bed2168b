"""A run in a notebook."""

import io
import re
import sys
import urllib.error
import urllib.request
from operator import methodcaller

import matplotlib.image
import numpy as np
import pytest

import slam
from slam.errors import SourceError, ViewerError


def test_the_figure_has_map_path_and_keyframes_with_their_depth(run_path, tmp_path):
    figure = slam.run_figure(run_path, columns=3)
    left, right = figure.subfigs
    (plan,) = left.axes
    path, stations = plan.lines
    np.testing.assert_allclose(path.get_xdata(), 0.05 * np.arange(8), atol=1e-9)
    np.testing.assert_allclose(stations.get_xdata(), 0.1 * np.arange(4), atol=1e-9)
    assert len(plan.collections[0].get_offsets()) == 48 * 64
    assert [axis.get_title() for axis in right.axes[:3]] == ["keyframe 0", "keyframe 2", "keyframe 3"]
    image, depth = right.axes[0].images[0].get_array(), right.axes[3].images[0].get_array()
    assert tuple(image[0, 0]) == (200, 0, 0) and depth.std((0, 1)).max() == 0  # a wall
    figure.savefig(tmp_path / "run.png", dpi=60)
    assert matplotlib.image.imread(tmp_path / "run.png")[..., :3].std() > 0.1
    shown = matplotlib.image.imread(io.BytesIO(methodcaller("_repr_png_")(figure)))  # what a notebook asks for
    assert shown.shape[:2] == (450, 1200) and shown[..., :3].std() > 0.1


def test_no_matplotlib_is_one_line(run_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ViewerError, match=r"cannot load matplotlib: .*; pip install matplotlib"):
        slam.run_figure(run_path)


def test_what_is_no_run_is_named(tmp_path):
    for show in (slam.run_figure, slam.web_view):
        with pytest.raises(SourceError, match="no run directory at"):
            show(tmp_path / "nowhere")


def test_a_notebook_gets_a_frame_of_the_page_until_it_is_closed(run_path, capfd):
    pytest.importorskip("viser", reason="viser is not installed (the extra web)")
    view = slam.web_view(run_path, port=0, height=321)
    (url,) = re.findall(r'<iframe src="(http://127.0.0.1:\d+)" .*height="321"', view.iframe())
    assert b"<title>" in urllib.request.urlopen(url, timeout=10).read()
    view.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)
    assert capfd.readouterr().out == ""
