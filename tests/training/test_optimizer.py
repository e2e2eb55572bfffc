"""Adam against its closed form, and the schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.training.optimizer import Adam, schedule


def test_adam_is_keras_adam():
    ours, theirs = (tf.Variable([1.0, -2.0, 0.5]) for _ in range(2))
    reference = keras.optimizers.Adam(1e-2, beta_1=0.9, beta_2=0.98, epsilon=1e-9)
    optimizer = Adam(schedule(1e-2, 0, "constant", 10), [ours])
    for step in range(5):
        gradient = tf.constant([0.3, -1.0, 2.0]) * (step + 1.0)
        optimizer.apply(tf.distribute.get_strategy(), [gradient / 2.0], tf.constant(2.0), tf.constant(step))
        reference.apply([gradient], [theirs])
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("constant", [0.1, 1.0, 1.0, 1.0]), ("rsqrt", [0.1, 1.0, 0.5, 0.1]), ("cosine", [0.1, 1.0, None, 0.01])],
)
def test_schedules_rise_to_the_peak_and_decay(decay, expected):
    rate = schedule(1.0, 10, decay, 1000)
    for step, value in zip([0, 9, 39, 999], expected, strict=True):
        if value is not None:
            assert float(rate(tf.constant(step))) == pytest.approx(value, abs=1e-3)


def test_cosine_is_half_way_down_in_the_middle_and_stays_at_its_end():
    rate = schedule(1.0, 100, "cosine", 1100)
    assert float(rate(tf.constant(599))) == pytest.approx(0.505, abs=1e-3)
    assert float(rate(tf.constant(5000))) == pytest.approx(0.01, abs=1e-4)


def test_an_unknown_decay_is_named():
    with pytest.raises(UserError, match="cosine"):
        schedule(1.0, 10, "linear", 100)
