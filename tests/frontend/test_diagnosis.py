"""Why there is no first map: one sentence for each kind of evidence, the most telling first."""

from dataclasses import replace

import pytest

from slam.frontend.diagnosis import StartEvidence, diagnosed

ORDINARY = StartEvidence(frames=60, flow_px=12.0, parallax_px=1.8, turned_deg=1.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "the motion never showed enough parallax (1.8 of 3 px): move the camera sideways, slowly"),
        ({"size": (48, 36)}, "(1.8 of 3 px, and the images are only 48x36)"),
        ({"frames": 0}, "0 frames are too few"),
        ({"frames": 1}, "1 frame is too few"),
        ({"gray": 3.0}, "nearly black (median 3 of 255)"),
        ({"gray": 250.0}, "nearly white (median 250 of 255)"),
        ({"textured": 0.004}, "next to nothing to hold on to (texture in 0.4 % of the pixels)"),
        ({"repeated": 0.8, "failed": 0.19}, "slides"),
        ({"repeated": 1.0}, "all images are the same"),
        ({"nearest": 0.3}, "not in the order"),
        ({"failed": 0.7}, "70 % of the frames have hardly anything in common"),
        ({"hfov_deg": 5.0}, "the lens is given as 5 degrees wide"),
        ({"hfov_deg": 170.0}, "the lens is given as 170 degrees wide"),
        ({"flow_px": 0.3, "parallax_px": 0.2}, "the camera stands still (the image moved by 0.3 px)"),
        ({"turned_deg": 12.0, "parallax_px": 0.6}, "the camera only turned (by 12 degrees, with 0.6 of 3 px"),
        ({"parallax_px": 25.0}, "fits no rigid scene"),
        # the cause before its consequences
        ({"gray": 3.0, "textured": 0.0, "failed": 1.0}, "nearly black"),
        ({"textured": 0.0, "failed": 1.0, "flow_px": 0.0}, "next to nothing"),
        ({"repeated": 0.5, "failed": 0.1}, "never showed enough parallax"),  # pulled-down video
        ({"nearest": 0.3, "failed": 0.9}, "not in the order"),
        ({"hfov_deg": 5.0, "parallax_px": 25.0, "failed": 1.0}, "5 degrees wide"),
    ],
)
def test_the_most_likely_reason(change, expected):
    assert expected in diagnosed(replace(ORDINARY, **change))
