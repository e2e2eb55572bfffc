"""FSQ and LFQ: levels, codes and back, losses."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.bottlenecks.scalar import FSQ, LEVELS, LFQ
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError

ROWS, DIM = 64, 8
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)


def training(step=100):
    return Training(3, tf.constant(step), tf.range(ROWS), ROWS)


def test_the_published_level_sets_have_about_as_many_codes_as_are_asked_for():
    sizes = {num_codes: FSQ(num_codes, DIM).num_codes for num_codes in LEVELS}
    assert sizes == {2**8: 240, 2**10: 1000, 2**12: 4375, 2**14: 15360, 2**16: 64000}
    assert all(abs(math.log2(size / num_codes)) < 0.11 for num_codes, size in sizes.items())


@pytest.mark.parametrize("levels", [(2,), (3,), (8, 5), (4, 3, 2)])
def test_every_level_is_reached_and_every_code_is_its_own_embedding(levels):
    fsq = FSQ(2, DIM, levels=levels)
    grid = np.linspace(-9.0, 9.0, 401, dtype=np.float32)
    bounded = tf.round(fsq._bounded(np.tile(grid[:, None], len(levels)))).numpy()
    for number, count in enumerate(levels):
        np.testing.assert_array_equal(np.unique(bounded[:, number]), np.arange(count) - count // 2)
        assert np.all(np.diff(bounded[:, number]) >= 0)
    assert np.all(np.abs(fsq._bounded(tf.zeros([1, len(levels)]))) < 1e-6)  # 0 stays 0, even counts too
    parts = fsq.parts(tf.range(fsq.num_codes)[:, None])
    fractions = [(np.arange(count) - count // 2) / (count // 2) for count in levels]
    each = np.array([values[::-1] for values in itertools.product(*fractions[::-1])], np.float32)
    np.testing.assert_allclose(parts[:, 0], fsq.project_out(each), atol=1e-6)
    assert len(np.unique(np.round(parts.numpy()[:, 0], 5), axis=0)) == fsq.num_codes


@pytest.mark.parametrize("cls", [FSQ, LFQ])
def test_what_is_quantised_is_the_embedding_of_its_code(cls):
    bottleneck = cls(256, DIM)
    for context in (None, training()):
        output = bottleneck.e_step(X, None, context)
        np.testing.assert_allclose(output.quantized, bottleneck.embed(output.codes), atol=1e-5)
        assert len(np.unique(output.codes)) > 20


def test_the_gradient_of_fsq_is_that_of_the_bounded_numbers():
    fsq = FSQ(2, 2, levels=(5, 4))
    fsq.project_in.kernel.assign(np.eye(2))
    fsq.project_out.kernel.assign(np.eye(2))
    x = tf.constant(X[:, :2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        total = tf.reduce_sum(fsq.e_step(x, None, training()).quantized)
        bounded = tf.reduce_sum(fsq._bounded(x) / [2.0, 2.0])
    np.testing.assert_allclose(tape.gradient(total, x), tape.gradient(bounded, x), rtol=1e-5)


def test_lfq_asks_for_sure_bits_that_are_evenly_used():
    lfq = LFQ(4, DIM, CodebookSettings(beta=0.0, entropy_weight=1.0, temperature=4.0))
    hits = np.array([1.0, 5.0, 2.0, 8.0])
    lfq.uses.hits.assign(hits)
    z = lfq.project_in(X).numpy().astype(np.float64)
    codes = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]])  # of codes 0 to 3, the lowest bit first
    distances = np.square(z[:, None] - codes[None]).sum(-1) / 4.0
    posterior = np.exp(-distances) / np.exp(-distances).sum(-1, keepdims=True)
    entropy = -(posterior * np.log(posterior)).sum(-1)
    output = lfq.e_step(X, None, training())
    np.testing.assert_allclose(output.metrics["effective_codes"].mean, np.exp(entropy).mean(), rtol=1e-4)
    shares = (codes > 0).T @ ((hits + 0.05 * hits.mean()) / (1.05 * hits.sum()))
    on = posterior @ (codes > 0)
    balance = (on * np.log(shares) + (1 - on) * np.log(1 - shares)).sum(-1)
    np.testing.assert_allclose(output.loss.mean, (entropy + balance).mean(), rtol=1e-3)


@pytest.mark.parametrize(
    ("cls", "num_codes", "parameters", "message"),
    [
        (LFQ, 48, {}, "num_codes = 48.*power of two"),
        (FSQ, 48, {}, "num_codes = 48.*256, 1024.*fsq.levels"),
        (FSQ, 256, {"levels": (8, 1)}, r"levels = \(8, 1\)"),
        (FSQ, 256, {"levels": ()}, r"levels = \(\)"),
        (FSQ, 256, {"levels": 8}, "levels = 8"),
    ],
)
def test_errors_name_the_parameter(cls, num_codes, parameters, message):
    with pytest.raises(UserError, match=message):
        cls(num_codes, DIM, **parameters)
