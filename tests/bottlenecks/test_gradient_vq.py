"""The codebook loss: its gradient from statistics alone, and what optimizers make of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.bottlenecks.em import HardEM
from t2t_vqem.bottlenecks.gradient_vq import GradientVQ
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.bottlenecks.simvq import SimVQ
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError

ROWS, CODES, DIM = 24, 5, 3
SETTINGS = CodebookSettings(norm=None, revival_threshold=0.0, warmup_steps=0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def place(bottleneck, means, count=1.0):
    book = bottleneck.codebook
    book.means.assign(means)
    book.counts.assign(np.full(len(means), count, np.float32))
    book.sums.assign(count * means)
    return bottleneck


def training(step=10**6):
    return Training(3, tf.constant(step), tf.range(ROWS), ROWS)


def steps(bottleneck, count=3):
    for step in range(count):
        points = normal(ROWS, DIM, seed=10 + step)
        bottleneck.m_step(bottleneck.e_step(points, None, training(step)).statistics)
    return bottleneck.codebook.means.numpy()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_codes_move_as_an_optimizer_moves_them_by_the_gradient_of_the_loss(optimizer):
    start = normal(CODES, DIM, seed=1)
    bottleneck = place(GradientVQ(CODES, DIM, SETTINGS, optimizer=optimizer, learning_rate=0.1), start)
    codes = tf.Variable(start)
    kind = {"sgd": keras.optimizers.SGD(0.1), "adam": keras.optimizers.Adam(0.1, epsilon=1e-8)}[optimizer]
    for step in range(3):
        points = normal(ROWS, DIM, seed=10 + step)
        with tf.GradientTape() as tape:
            distances = tf.reduce_sum(tf.square(points[:, None] - codes[None]), axis=-1)
            loss = tf.reduce_mean(tf.reduce_min(distances, axis=-1))
        kind.apply_gradients([(tape.gradient(loss, codes), codes)])
    np.testing.assert_allclose(steps(bottleneck), codes, rtol=1e-4, atol=1e-5)


def test_sgd_with_the_rate_left_open_moves_evenly_used_codes_as_em_does():
    start = 5.0 * np.eye(4, DIM, dtype=np.float32) + np.float32(0.1)
    points = np.repeat(start, 6, axis=0) + 0.1 * normal(ROWS, DIM)  # six positions a code
    results = []
    for cls in (HardEM, GradientVQ):
        own = {} if cls is HardEM else {"optimizer": "sgd"}
        bottleneck = place(cls(4, DIM, SETTINGS, **own), start, count=6.0)
        bottleneck.codebook.updates.assign(1e6)
        bottleneck.m_step(bottleneck.e_step(points, None, training()).statistics)
        results.append(bottleneck.codebook.means.numpy())
    assert np.abs(results[0] - start).max() > 1e-4
    np.testing.assert_allclose(*results, rtol=1e-4)


def test_adam_forgets_what_it_knew_of_a_code_that_was_revived():
    settings = CodebookSettings(norm=None, revival_threshold=0.5, warmup_steps=0)
    start = normal(CODES, DIM, seed=1)
    start[4] = 100.0  # no position is near
    bottleneck = place(GradientVQ(CODES, DIM, settings), start)
    bottleneck.codebook.first_moment.assign(np.ones([CODES, DIM]))
    steps(bottleneck, 6)
    assert np.abs(bottleneck.codebook.means.numpy()[4]).max() < 10.0
    assert np.all(np.abs(bottleneck.codebook.first_moment.numpy()[4]) < 0.5)


def test_simvq_moves_all_codes_by_one_map_and_the_frozen_ones_never():
    bottleneck = SimVQ(CODES, DIM, SETTINGS)
    frozen = bottleneck.codebook.frozen.numpy()
    with tf.GradientTape() as tape:
        loss = bottleneck.e_step(normal(ROWS, DIM), None, training()).loss.sum
    (weight,) = bottleneck.trainable_variables
    gradient = tape.gradient(loss, weight.value)
    weight.assign_sub(0.1 / ROWS * gradient)
    np.testing.assert_array_equal(bottleneck.codebook.frozen, frozen)
    codes = bottleneck.embed(tf.range(CODES)[:, None])
    np.testing.assert_allclose(codes, frozen @ weight.numpy(), rtol=1e-4, atol=1e-5)
    assert np.all(np.abs(codes - frozen).max(axis=1) > 1e-3)  # used or not
    again = bottleneck.e_step(normal(ROWS, DIM), None, training()).loss.sum
    assert float(again) < float(loss)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("optimizer", "rmsprop"), ("learning_rate", 0.0), ("learning_rate", -1.0), ("learning_rate", "fast")],
)
def test_errors_name_the_parameter(parameter, value):
    with pytest.raises(UserError, match=f"{parameter} = {value!r}"):
        GradientVQ(CODES, DIM, SETTINGS, **{parameter: value})
