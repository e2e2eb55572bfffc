"""Codes come back bit for bit, in as few bits as the prior says."""

import math

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.compression import coding
from t2t_vqem.errors import UserError

SHAPE, CODES = (2, 4, 3), 16
NAMES = ("latent_prior", "latent_prior in blocks", "pixelcnn")


def drawn(prior, count):
    return prior.sample(tf.zeros([count], tf.int32), seed=5).numpy()


def exact_bits(prior, codes):
    nats = prior.code_nll({"inputs": tf.zeros([len(codes)], tf.int32), "targets": tf.constant(codes)})
    return float(tf.reduce_sum(tf.cast(nats, tf.float64))) / math.log(2)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 8.0])
@pytest.mark.parametrize("name", NAMES)
def test_codes_of_the_prior_cost_what_it_says(make_prior, name, sharpness):
    prior = make_prior(name, SHAPE, CODES, sharpness)
    codes = drawn(prior, 1000 if sharpness > 1 else 200)
    payload = coding.write(codes, CODES, prior, 64)
    bits = exact_bits(prior, codes)
    assert coding.bound(codes, CODES, prior, 64) == pytest.approx(bits, rel=1e-5)
    assert 8 * len(payload) == pytest.approx(bits, rel=0.01)
    assert bits / codes.size < (4.0 if sharpness < 8 else 0.5)
    np.testing.assert_array_equal(coding.read(payload, len(codes), SHAPE, CODES, prior, 64), codes)


@pytest.mark.parametrize("name", NAMES)
def test_codes_that_the_prior_does_not_expect_come_back_too(make_prior, name):
    """Also those whose probability is 0 in float64: none is impossible."""
    prior = make_prior(name, SHAPE, CODES, 300.0)
    codes = np.random.default_rng(2).integers(0, CODES, [7, *SHAPE]).astype(np.int32)
    payload = coding.write(codes, CODES, prior, 4)
    assert 8 * len(payload) < 25 * codes.size < coding.bound(codes, CODES, prior, 4)
    np.testing.assert_array_equal(coding.read(payload, 7, SHAPE, CODES, prior, 4), codes)


@pytest.mark.parametrize("num_codes", [2, 16, 1000, 70_000])
def test_without_a_prior_all_codes_cost_the_same(num_codes):
    codes = np.random.default_rng(2).integers(0, num_codes, [500, *SHAPE]).astype(np.int32)
    codes[0], codes[1] = 0, num_codes - 1
    payload = coding.write(codes, num_codes, None, 64)
    bound = coding.bound(codes, num_codes, None, 64)
    assert bound == codes.size * math.log2(num_codes)
    assert 8 * len(payload) == pytest.approx(bound, rel=0.01)
    np.testing.assert_array_equal(coding.read(payload, 500, SHAPE, num_codes, None, 64), codes)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_summation_does_not_show(make_prior, name):
    """Teacher forcing stands for another processor: other kernels on the same numbers."""
    prior = make_prior(name, SHAPE, CODES, 4.0)
    codes = drawn(prior, 64)
    stepwise = []

    def choose(logits, number):
        assert logits.dtype == tf.float32
        stepwise.append(coding.likelihoods(logits.numpy()))
        return tf.constant(codes.reshape(64, -1)[:, int(number)])

    prior.generate(tf.zeros([64], tf.int32), choose)
    forced = prior.logits({"inputs": tf.zeros([64], tf.int32), "targets": tf.constant(codes)}).numpy()
    forced = coding.likelihoods(forced.reshape(-1, CODES)).reshape(64, -1, CODES)
    np.testing.assert_array_equal(np.stack(stepwise, axis=1), forced[:, prior.order])
    assert forced.min() < 0.01
    assert prior.head.stack.compute_dtype == "float64"


def test_likelihoods_are_the_softmax_on_a_grid():
    logits = np.random.default_rng(0).normal(size=[50, 30]).astype(np.float32) * 4
    found = coding.likelihoods(logits)
    exact = np.exp(logits - logits.max(axis=1, keepdims=True).astype(float))
    np.testing.assert_allclose(found, exact, rtol=1 / 64)
    np.testing.assert_array_equal(coding.likelihoods(logits + 3.0), found)
    assert coding.likelihoods(np.array([[0.0, -1e9]]))[0, 1] > 0


def test_another_reader_does_not_find_the_codes(make_prior):
    prior = make_prior("latent_prior", SHAPE)
    codes = drawn(prior, 20)
    payload = coding.write(codes, CODES, prior, 8)
    for other, rows in ((make_prior("latent_prior", SHAPE, sharpness=1.01), 8), (prior, 9), (None, 8)):
        assert (coding.read(payload, 20, SHAPE, CODES, other, rows) != codes).any()


@pytest.mark.parametrize("noise", [b"", b"\0\0\0\0", b"\xff" * 4, b"\xff" * 400])
@pytest.mark.parametrize("with_prior", [True, False])
def test_any_bits_are_read_as_some_codes(make_prior, noise, with_prior):
    prior = make_prior("latent_prior", SHAPE) if with_prior else None
    codes = coding.read(noise, 3, SHAPE, CODES, prior, 2)
    assert codes.shape == (3, *SHAPE)
    assert codes.dtype == np.int32
    assert 0 <= codes.min() <= codes.max() < CODES


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(coding, "constriction", None)
    with pytest.raises(UserError, match=r"t2t-vqem\[codec\]"):
        coding.require_library()
