"""Rows taken some at a time."""

import pytest
import tensorflow as tf

from t2t_vqem.tiles import in_tiles


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("count", [0, 1, 4, 6, 8])
def test_no_more_rows_at_a_time_than_are_allowed_and_all_of_them(count, static):
    most_seen = []

    def double(x, y):
        most_seen.append(x.shape[0])
        return {"x": 2.0 * x, "y": y + 1}

    def run(x, y):
        return in_tiles(double, [x, y], 4, {"x": tf.float32, "y": tf.int32})

    x, y = tf.random.stateless_normal([count, 2, 3], [0, 1]), tf.range(count)
    rows = count if static else None
    program = tf.function(run, input_signature=[tf.TensorSpec([rows, 2, 3]), tf.TensorSpec([rows], tf.int32)])
    found = program(x, y)
    assert found["x"].shape == x.shape
    assert bool(tf.reduce_all(found["x"] == 2.0 * x))
    assert found["y"].numpy().tolist() == list(range(1, count + 1))
    if static:
        assert most_seen == [count if count <= 4 else -(-count // 2)]
