"""Losses against their closed forms."""

import numpy as np
import tensorflow as tf

from t2t_vqem.layers import losses

LOGITS = np.random.default_rng(0).normal(size=[6, 5]).astype(np.float32)
LOG_PROBABILITIES = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
LABELS = np.array([0, 1, 2, 3, 4, 0], np.int32)


def test_cross_entropy_with_and_without_smoothing():
    picked = -LOG_PROBABILITIES[np.arange(6), LABELS]
    np.testing.assert_allclose(losses.cross_entropy(tf.constant(LOGITS), LABELS), picked, rtol=1e-5)
    smoothed = 0.9 * picked - 0.1 * LOG_PROBABILITIES.mean(-1)
    np.testing.assert_allclose(losses.cross_entropy(tf.constant(LOGITS), LABELS, 0.1), smoothed, rtol=1e-5)


def test_a_batch_of_unknown_size_gives_the_same():
    @tf.function(input_signature=[tf.TensorSpec([None, 5]), tf.TensorSpec([None], tf.int32)])
    def loose(logits, labels):
        return losses.cross_entropy(logits, labels, 0.1)

    np.testing.assert_allclose(
        loose(LOGITS, LABELS), losses.cross_entropy(tf.constant(LOGITS), LABELS, 0.1), rtol=1e-5
    )


def test_soft_cross_entropy_averages_over_the_samples():
    samples = np.stack([LABELS, (LABELS + 1) % 5], axis=1)
    expected = -(
        LOG_PROBABILITIES[np.arange(6), samples[:, 0]] + LOG_PROBABILITIES[np.arange(6), samples[:, 1]]
    )
    np.testing.assert_allclose(
        losses.soft_cross_entropy(tf.constant(LOGITS), samples), expected / 2, rtol=1e-5
    )


def test_masked_sums_add():
    values, mask = np.arange(6.0), np.array([1, 0, 1, 1, 0, 0], bool)
    total, weight = losses.masked_sum(values, mask)
    assert (float(total), float(weight)) == (5.0, 3.0)
