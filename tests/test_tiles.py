"""Rows taken some at a time."""

import pytest
import tensorflow as tf

from t2t_vqem.tiles import in_tiles


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("count", [0, 1, 4, 6, 8])
def test_no_more_rows_at_a_time_than_are_allowed_and_all_of_them(count, static):
    seen = []

    def double(x, y):
        seen.append(x.shape[0])
        tf.debugging.assert_less_equal(tf.shape(x)[0], 4)
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
        assert seen == [{6: 3, 8: 4}.get(count, count)]


@pytest.mark.parametrize(
    ("count", "size"), [(12, 4), (9, 3), (10, 4)], ids=["whole tiles", "smaller, even tiles", "a padded one"]
)
def test_tiles_are_even_where_they_can_be(count, size):
    seen = []
    found = tf.function(
        lambda x: in_tiles(lambda rows: seen.append(rows.shape[0]) or -rows, [x], 4, tf.int32)
    )(tf.range(count))
    assert found.numpy().tolist() == [-row for row in range(count)]
    assert seen == [size]
