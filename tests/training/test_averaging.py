"""The mean of checkpoints: exact, in float64, the rest from the newest; and written whole or not at all."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.errors import UserError
from t2t_vqem.training import averaging, checkpoints


class Weights(keras.layers.Layer):
    bottlenecks = {}

    def __init__(self):
        super().__init__()
        self.kernel = self.add_weight(name="kernel", shape=[2], initializer="zeros")
        self.count = self.add_weight(name="count", shape=[], dtype="int32", trainable=False)


def write(folder, step, kernel, count):
    model = Weights()
    model.kernel.assign(kernel)
    model.count.assign(count)
    path = os.path.join(folder, f"ckpt-{step}")
    tf.train.Checkpoint(**checkpoints.state(model=model), step=tf.Variable(step, dtype=tf.int64)).write(path)
    return path


def test_floats_are_averaged_and_the_rest_is_the_newest(tmp_path):
    values = {5: [1.0, 1e8], 7: [2.0, 1.0], 9: [6.0, -1e8]}
    for step, kernel in values.items():
        write(tmp_path, step, kernel, step * 10)
    chosen = averaging.last(str(tmp_path))
    assert list(chosen) == [5, 7, 9]
    model = Weights()
    averaging.average(list(chosen.values()), model)
    np.testing.assert_allclose(model.kernel, [3.0, 1 / 3], rtol=1e-6)  # float32 sums would lose the 1
    assert int(model.count) == 90


def test_the_last_are_the_newest_by_number(tmp_path):
    for step in (100, 20, 3):
        write(tmp_path, step, [0.0, 0.0], 0)
    assert list(averaging.last(str(tmp_path), 2)) == [20, 100]
    with pytest.raises(UserError, match=r"holds 3 checkpoint\(s\) .* 5 are to be averaged"):
        averaging.last(str(tmp_path), 5)


def test_one_checkpoint_is_no_average(tmp_path):
    write(tmp_path, 3, [0.0, 0.0], 0)
    with pytest.raises(UserError, match=r"holds 1 checkpoint\(s\) .* 2 are to be averaged"):
        averaging.last(str(tmp_path))


def test_a_damaged_checkpoint_is_named(tmp_path):
    paths = [write(tmp_path, step, [1.0, 2.0], 0) for step in (1, 2)]
    with open(f"{paths[1]}.data-00000-of-00001", "wb"):
        pass
    with pytest.raises(UserError, match="ckpt-2 cannot be read"):
        averaging.average(paths, Weights())
