"""Compression and decompression of sequences."""

import keras
import numpy as np
import tensorflow as tf

from t2t_vqem.layers.convolution import Compressor, Convolution, Decompressor


def test_a_convolution_is_keras_own():
    x = tf.random.stateless_normal([2, 6, 4], [1, 2])
    ours, theirs = Convolution(5), keras.layers.Conv1D(5, 3, padding="same")
    ours(x)
    theirs(x)
    theirs.set_weights([tf.reshape(ours.kernel.kernel, [3, 4, 5]), ours.kernel.bias])
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def test_compression_halves_n_times_and_marks_the_latents_of_real_positions():
    x = tf.random.stateless_normal([3, 8, 4], [1, 2])
    latents, mask = Compressor(2, 4)(x, mask=tf.sequence_mask([8, 5, 1], 8))
    assert latents.shape == [3, 2, 4]
    np.testing.assert_array_equal(mask, [[True, True], [True, True], [True, False]])


def test_padding_does_not_reach_a_latent():
    compressor = Compressor(2, 4)
    mask = tf.sequence_mask([8, 5], 8)
    x = tf.random.stateless_normal([2, 8, 4], [1, 2])
    left, latent_mask = compressor(x, mask=mask)
    right, _ = compressor(tf.where(mask[:, :, None], x, 100.0), mask=mask)
    np.testing.assert_allclose(
        tf.boolean_mask(left, latent_mask), tf.boolean_mask(right, latent_mask), atol=1e-5
    )
    longer, _ = compressor(tf.pad(x, [[0, 0], [0, 4], [0, 0]]), mask=tf.pad(mask, [[0, 0], [0, 4]]))
    np.testing.assert_allclose(longer[:, :2], left, atol=1e-5)


def test_decompression_undoes_the_lengths():
    x, mask = tf.ones([2, 3, 4]), tf.sequence_mask([3, 1], 3)
    hidden, hidden_mask = Decompressor(2, 4)(x, mask=mask)
    assert hidden.shape == [2, 12, 4]
    np.testing.assert_array_equal(tf.reduce_sum(tf.cast(hidden_mask, tf.int32), axis=1), [12, 4])


def test_no_steps_change_no_length():
    x, mask = tf.ones([2, 3, 4]), tf.sequence_mask([3, 1], 3)
    for layer in (Compressor(0, 4), Decompressor(0, 4)):
        y, y_mask = layer(x, mask=mask)
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(mask, y_mask)
