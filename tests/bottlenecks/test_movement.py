import numpy as np
import pytest

from t2t_vqem.bottlenecks import movement
from t2t_vqem.bottlenecks.em import HardEM


def test_places_are_what_the_decoder_reads():
    bottleneck = HardEM(5, 3)
    means = np.arange(15, dtype=np.float32).reshape(5, 3)
    bottleneck.codebook.means.assign(means)
    np.testing.assert_array_equal(movement.places(bottleneck), means[:, None])
    np.testing.assert_array_equal(movement.places(bottleneck, most=2), means[[0, 2], None])
    np.testing.assert_array_equal(movement.places(bottleneck, most=5), means[:, None])


def test_moved_by_hand_each_slot_in_its_own_unit():
    before = np.zeros([2, 2, 2], np.float32)
    after = before.copy()
    after[0, 0], after[1, 0] = [3, 4], [0, 1]  # norms 5 and 1: root mean square 13^0.5
    after[:, 1] = [[10, 0], [0, -10]]
    expected = [[5 / 13**0.5, 1.0], [1 / 13**0.5, 1.0]]
    np.testing.assert_allclose(movement.moved(before, after), expected, rtol=1e-6)


def test_codes_without_a_place_did_not_move():
    assert movement.moved(np.ones([2, 1, 3]), np.zeros([2, 1, 3])) == pytest.approx(np.zeros([2, 1]))
