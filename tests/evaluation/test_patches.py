import types

import numpy as np

from t2t_vqem.evaluation import patches
from t2t_vqem.models.vqvae import VQVAE


def test_patches_lie_where_their_positions_do():
    pictures = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(np.uint8)
    found = patches.split(pictures, (2, 3, 1), (2, 2))
    assert found.shape == (2, 6, 2, 2, 3)
    np.testing.assert_array_equal(found[1, 4], pictures[1, 2:4, 2:4])  # second row, second column


def test_edges_are_repeated_where_patches_go_beyond_them():
    picture = np.arange(3 * 5).reshape(1, 3, 5, 1).astype(np.uint8)
    found = patches.split(picture, (2, 2, 1), (2, 3))
    assert found.shape == (1, 4, 2, 3, 1)
    assert found[0, 3, :, :, 0].tolist() == [[13, 14, 14], [13, 14, 14]]


def test_means_of_each_code_over_several_additions():
    means = patches.MeanPatches(4, (1, 1, 1))
    means.add(np.array([10, 20, 60]).reshape(3, 1, 1, 1), np.array([2, 0, 2]))
    means.add(np.array([50]).reshape(1, 1, 1, 1), np.array([2]))
    means.add(np.zeros([0, 1, 1, 1]), np.zeros([0], np.int32))
    assert means.means().ravel().tolist() == [20.0, 0.0, 40.0, 0.0]
    assert means.counts.tolist() == [1, 0, 3, 0]
    assert means.picture(2).shape == (16, 33, 3)


def test_a_patch_is_what_strides_make_it():
    """28 pixels halved three times are 14, 7 and 4 positions, of 8 pixels each, and not of 7."""
    sizes = {"codebooks": 1, "num_codes": 4, "code_dim": 2, "residual_units": 0, "dim": 2, "top_dim": 2}
    model = VQVAE((28, 28, 1), 1, num_strides=3, likelihood="gaussian", **sizes)
    assert model.code_shape == (4, 4, 1)
    assert patches.patch_shape(model) == (8, 8)
    plain = types.SimpleNamespace(image_shape=(9, 12, 3), code_shape=(2, 4, 1))
    assert patches.patch_shape(plain) == (5, 3)
