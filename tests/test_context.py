"""Random numbers belong to the example: to its row in the global batch, not to its device."""

import numpy as np
import tensorflow as tf

from t2t_vqem.context import LossTerm, Training


def training(rows=range(8), step=3, seed=1):
    return Training(seed, tf.constant(step), tf.constant(list(rows), tf.int32), 8)


def test_a_row_draws_the_same_numbers_in_any_part_of_the_batch():
    whole = training().uniform([8, 5, 7]).numpy()
    parts = [training(rows).uniform([4, 5, 7]).numpy() for rows in (range(4), range(4, 8))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_steps_seeds_rows_and_call_sites_draw_differently():
    first = training()
    draws = [first.uniform([8, 100]), first.uniform([8, 100]), training(step=4).uniform([8, 100])]
    draws += [training(seed=2).uniform([8, 100]), tf.roll(draws[0], 1, axis=0)]
    for i, left in enumerate(draws):
        for right in draws[i + 1 :]:
            assert abs(np.corrcoef(np.ravel(left), np.ravel(right))[0, 1]) < 0.15


def test_rows_that_are_split_draw_numbers_of_their_own_in_any_part_of_the_batch():
    whole = training()
    before, finer = whole.uniform([8, 50]), whole.split(5)
    after = whole.uniform([8, 50])
    drawn = finer.uniform([40, 50]).numpy()
    assert finer.global_rows == 40
    assert len(np.unique(drawn)) > 0.99 * drawn.size
    parts = []
    for rows in (range(4), range(4, 8)):
        part = training(rows)
        part.uniform([4, 50])
        parts.append(part.split(5).uniform([20, 50]))
    np.testing.assert_array_equal(drawn, np.concatenate(parts))
    for other in (before, after):
        assert abs(np.corrcoef(np.ravel(drawn[:8]), np.ravel(other))[0, 1]) < 0.15


def test_the_numbers_are_uniform_and_neighbours_are_independent():
    draws = training(range(500)).uniform([500, 400]).numpy()
    assert draws.min() > 0.0
    assert draws.max() < 1.0
    counts, _ = np.histogram(draws, bins=100, range=(0, 1))
    chi2 = ((counts - 2000.0) ** 2 / 2000.0).sum()
    assert 50 < chi2 < 170  # 99 degrees of freedom: about 1e-5 lies outside
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.01


def test_compiled_numbers_are_the_eager_ones():
    compiled = tf.function(lambda: training().uniform([8, 33]), jit_compile=True)
    np.testing.assert_array_equal(compiled(), training().uniform([8, 33]))


def test_dropout_keeps_the_expectation_and_the_type():
    x = tf.ones([8, 10_000], tf.bfloat16)
    y = training().dropout(x, 0.2)
    assert y.dtype == tf.bfloat16
    kept = np.asarray(tf.cast(y, tf.float32))
    assert set(np.unique(kept)) == {0.0, 1.25}
    assert abs(kept.mean() - 1.0) < 0.01


def test_a_term_without_positions_has_mean_zero():
    assert LossTerm(tf.constant(0.0), tf.constant(0.0)).mean == 0.0
    assert LossTerm(tf.constant(6.0), tf.constant(4.0)).mean == 1.5
