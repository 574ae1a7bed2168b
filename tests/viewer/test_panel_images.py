"""The images of the panel."""

import numpy as np

from slam.viewer.panel_images import SIZE, confidence_image, depth_image, stacked


def test_images_are_scaled_not_stretched_and_stand_one_below_the_other():
    wide = np.full((50, 200, 3), 200, np.uint8)
    out = stacked([np.full((12, 16, 3), 100, np.uint8), wide], 3)
    rows, columns = SIZE
    assert out.shape == (3 * rows, columns, 3)
    assert (out[:rows] == 100).all()  # 4:3 fills its place
    assert (out[rows : 2 * rows] == 200).all(2).sum() == columns * columns // 4
    assert (out[2 * rows :] < 50).all()  # nothing yet


def test_near_is_bright_and_unknown_is_black():
    inv_depth = np.full((4, 4), 0.1, np.float32)
    inv_depth[0, 0], inv_depth[3, 3] = 1.0, 0.0
    image = depth_image(inv_depth).astype(int).sum(-1)
    assert image[0, 0] > 2 * image[1, 1] > 0 == image[3, 3]
    assert confidence_image(np.array([[0.0, 0.5, 1.0]]))[0, :, 1].tolist() == [0, 128, 255]
