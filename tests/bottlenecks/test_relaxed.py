"""Gumbel softmax and semantic hashing."""

import math

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.bottlenecks.relaxed import GumbelSoftmax, SemanticHashing, from_bits, to_bits
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError

ROWS, CODES, DIM = 64, 8, 6
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)


def training(step=100, rows=ROWS):
    return Training(3, tf.constant(step), tf.range(rows), rows)


def test_gumbel_samples_follow_the_softmax():
    bottleneck = GumbelSoftmax(CODES, DIM)
    rows = 20_000
    x = np.repeat(X[:1], rows, axis=0)
    samples = bottleneck.e_step(x, None, training(rows=rows)).samples.numpy().ravel()
    expected = tf.nn.softmax(bottleneck.logits(X[:1]))[0].numpy()
    deviation = np.bincount(samples, minlength=CODES) / rows - expected
    assert np.all(np.abs(deviation) < 4.5 * np.sqrt(expected * (1 - expected) / rows))


def test_a_hard_sample_is_one_code_and_a_relaxed_one_approaches_it_as_it_cools():
    gaps = []
    hard = GumbelSoftmax(CODES, DIM)
    output = hard.e_step(X, None, training())
    np.testing.assert_allclose(output.quantized, hard.embed(output.samples[..., 0]), atol=1e-5)
    for temperature in (1.0, 0.1, 0.01):
        relaxed = GumbelSoftmax(CODES, DIM, CodebookSettings(temperature=temperature), hard=False)
        for mine, other in zip(relaxed.weights, hard.weights, strict=True):
            mine.assign(other)
        gaps.append(np.abs(relaxed.e_step(X, None, training()).quantized - output.quantized).mean())
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]


def test_the_relaxed_gradient_is_that_of_finite_differences():
    bottleneck = GumbelSoftmax(CODES, DIM, hard=False, kl_weight=0.5)
    weights = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    direction = np.random.default_rng(2).normal(size=X.shape).astype(np.float32)

    def objective(x):
        output = bottleneck.e_step(x, None, training())
        return tf.reduce_sum(output.quantized * weights) + output.loss.sum

    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = objective(x)
    slope = tf.reduce_sum(tape.gradient(total, x) * direction)
    step = 1e-2
    difference = (objective(X + step * direction) - objective(X - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def test_the_kl_term_is_the_distance_from_even_use():
    bottleneck = GumbelSoftmax(CODES, DIM, kl_weight=2.0)
    posterior = tf.nn.softmax(bottleneck.logits(X)).numpy()
    expected = 2.0 * (posterior * np.log(posterior * CODES)).sum(-1)
    output = bottleneck.e_step(X, None)
    np.testing.assert_allclose(output.loss.mean, expected.mean(), rtol=1e-4)
    entropy = math.log(CODES) - expected / 2.0
    np.testing.assert_allclose(output.metrics["effective_codes"].mean, np.exp(entropy).mean(), rtol=1e-4)


def test_bits_and_codes_are_each_others_inverse():
    codes = tf.range(32)
    np.testing.assert_array_equal(from_bits(to_bits(codes, 5) > 0.5), codes)
    np.testing.assert_array_equal(to_bits(tf.constant(6), 4), [0, 1, 1, 0])


def test_semantic_hashing_passes_bits_at_half_of_the_positions_and_the_sigmoid_at_the_others():
    bottleneck = SemanticHashing(CODES, DIM)
    output = bottleneck.e_step(X, None, training())
    bits = output.quantized @ tf.linalg.pinv(bottleneck.project_out.kernel)  # the map out has 3 inputs
    exact = np.all(np.abs(np.abs(bits) - 1.0) < 1e-3, axis=1)
    assert 0.3 * ROWS < exact.sum() < 0.8 * ROWS  # saturated sigmoids look exact, too
    embedded = bottleneck.embed(output.samples[..., 0]).numpy()
    np.testing.assert_allclose(output.quantized.numpy()[exact], embedded[exact], atol=1e-3)
    evaluated = bottleneck.e_step(X, None)
    np.testing.assert_allclose(evaluated.quantized, bottleneck.embed(evaluated.codes), atol=1e-5)
    noisy = np.mean(output.samples[:, 0, 0] != evaluated.codes[:, 0])
    assert 0.1 < noisy < 0.95


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (SemanticHashing, {"num_codes": 12}, "num_codes = 12.*power of two"),
        (SemanticHashing, {"num_codes": 1}, "num_codes = 1"),
        (GumbelSoftmax, {"num_codes": 8, "kl_weight": -1}, "kl_weight = -1"),
        (GumbelSoftmax, {"num_codes": 8, "hard": "yes"}, "hard = 'yes'"),
    ],
)
def test_errors_name_the_parameter(cls, arguments, message):
    with pytest.raises(UserError, match=message):
        cls(dim=DIM, **arguments)
