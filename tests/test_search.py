"""Greedy search over a step function."""

import numpy as np
import tensorflow as tf

from t2t_vqem import search


def table_step(scores):
    """The logits of each step are row `index` of each sequence's table [batch, steps, classes]."""

    def step(last, index, state):
        return scores[:, index], state + last

    return step


def test_sequences_end_by_themselves_or_at_their_greatest_length():
    end = 3
    best = [[0, 1, 3, 2], [2, 2, 2, 2], [3, 0, 0, 0]]
    scores = tf.one_hot(tf.constant(best), 4)
    found = search.greedy(
        table_step(scores),
        tf.zeros([3], tf.int32),
        batch=tf.constant(3),
        start_id=0,
        end_id=end,
        max_length=tf.constant([4, 3, 4]),
    )
    np.testing.assert_array_equal(found.lengths, [2, 3, 0])
    np.testing.assert_array_equal(found.ids, [[0, 1, 3], [2, 2, 2], [3, 3, 3]])


def test_a_step_sees_what_was_chosen_last_and_carries_its_state():
    def step(last, index, total):
        total += last
        return tf.one_hot(total + 1, 10), total  # 1, then 1 + 1, then 1 + 2 + 1 ...

    found = search.greedy(
        step,
        tf.zeros([1], tf.int32),
        batch=tf.constant(1),
        start_id=0,
        end_id=9,
        max_length=tf.constant([4]),
    )
    np.testing.assert_array_equal(found.ids, [[1, 2, 4, 8]])
