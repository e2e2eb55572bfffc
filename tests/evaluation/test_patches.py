import numpy as np

from t2t_vqem.evaluation import patches


def test_patches_lie_where_their_positions_do():
    pictures = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3).astype(np.uint8)
    found = patches.split(pictures, (2, 3, 1))
    assert found.shape == (2, 6, 2, 2, 3)
    np.testing.assert_array_equal(found[1, 4], pictures[1, 2:4, 2:4])  # second row, second column


def test_edges_are_repeated_where_the_field_does_not_divide_the_picture():
    picture = np.arange(3 * 5).reshape(1, 3, 5, 1).astype(np.uint8)
    found = patches.split(picture, (2, 2, 1))
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
