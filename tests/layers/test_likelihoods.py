import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from t2t_vqem.layers.likelihoods import LIKELIHOODS, LogisticMixture


def random_parameters(size, pictures, scale=1.0):
    draw = np.random.default_rng(3)
    return tf.constant(draw.normal(scale=scale, size=[pictures, 1, 1, size]), tf.float32)


@pytest.mark.parametrize("scale", [0.3, 3.0])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_levels_of_a_number_have_one_in_all(name, scale):
    likelihood = LIKELIHOODS[name](1)
    levels = tf.reshape(tf.range(256), [256, 1, 1, 1])
    for parameters in tf.unstack(random_parameters(likelihood.size, 8, scale)):
        nats = likelihood.nats(tf.repeat(parameters[None], 256, axis=0), tf.cast(levels, tf.uint8))
        assert nats.shape == [256, 1, 1]
        np.testing.assert_allclose(tf.reduce_sum(tf.exp(-nats)), 1.0, atol=2e-3)


def test_the_levels_of_a_pixel_whose_channels_depend_on_each_other_have_one_in_all():
    likelihood = LogisticMixture(2, components=3)
    parameters = random_parameters(likelihood.size, 1)
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256)), axis=-1).reshape(1, 256, 256, 2)
    spread = tf.broadcast_to(parameters, [1, 256, 256, likelihood.size])
    nats = likelihood.nats(spread, tf.constant(pairs, tf.uint8))
    np.testing.assert_allclose(tf.reduce_sum(tf.exp(-nats)), 1.0, atol=1e-3)


def test_a_gaussian_equals_scipys_between_the_roundings():
    likelihood = LIKELIHOODS["gaussian"](1)
    levels = np.arange(256)
    for mean, scale in ((0.1, 0.05), (-0.9, 0.3), (0.0, 0.004)):
        parameters = tf.broadcast_to(tf.constant([mean, np.log(scale)], tf.float32), [1, 256, 1, 2])
        nats = likelihood.nats(parameters, tf.constant(levels.reshape(1, 256, 1, 1), tf.uint8))[0, :, 0]
        bounds = (np.arange(257) - 0.5) / 127.5 - 1.0
        bounds[0], bounds[-1] = -np.inf, np.inf
        above = bounds[1:] > mean
        upper = np.where(above, scipy.stats.norm.logsf(bounds[:-1], mean, scale), 0)
        lower = np.where(above, scipy.stats.norm.logsf(bounds[1:], mean, scale), 0)
        upper = np.where(above, upper, scipy.stats.norm.logcdf(bounds[1:], mean, scale))
        lower = np.where(above, lower, scipy.stats.norm.logcdf(bounds[:-1], mean, scale))
        expected = -(upper + np.log1p(-np.exp(lower - upper)))
        near = expected < 12.0  # further out the density stands in for the mass
        np.testing.assert_allclose(nats.numpy()[near], expected[near], rtol=2e-3, atol=2e-3)
        assert np.isfinite(nats.numpy()).all()
        beyond = nats.numpy()[(levels > 127.5 * (mean + 1) + 2) & (levels < 255)]  # 255 has the whole tail
        assert (np.diff(beyond) > -1e-3).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_mean_is_the_expectation_under_the_nats(name):
    likelihood = LIKELIHOODS[name](1)
    parameters = random_parameters(likelihood.size, 1, 0.5)
    if (
        name != "softmax"
    ):  # the others' mean is that before the ends are cut off: narrow ones, far from the ends
        sizes = {"gaussian": [0.2, -3.0], "logistic_mixture": [0.0] * 10 + [0.1] * 10 + [-4.0] * 10}
        parameters = tf.constant(sizes[name], tf.float32)[None, None, None]
    levels = tf.reshape(tf.range(256), [256, 1, 1, 1])
    nats = likelihood.nats(tf.repeat(parameters, 256, axis=0), tf.cast(levels, tf.uint8))
    expected = (np.exp(-nats.numpy().ravel()) * np.arange(256)).sum()
    np.testing.assert_allclose(likelihood.mean(parameters)[0, 0, 0, 0], expected, rtol=2e-3)


def test_a_channel_follows_the_deviation_of_those_before_it():
    likelihood = LogisticMixture(2, components=1)
    # One component: weight, two means, two log scales, and the slope of the second channel on the first.
    parameters = tf.constant([0.0, -0.5, 0.2, -4.0, -4.0, 20.0], tf.float32)[None, None, None]
    first, second = 127.5 * (1 - 0.5), 127.5 * (1 + 0.2)
    np.testing.assert_allclose(likelihood.mean(parameters)[0, 0, 0], [first, second], atol=1e-3)
    for deviation in (-30, 0, 45):
        pair = tf.stack([tf.fill([256], int(first) + deviation), tf.range(256)], axis=-1)
        nats = likelihood.nats(tf.repeat(parameters, 256, axis=1), tf.cast(pair[None, :, None], tf.uint8))
        assert abs(int(tf.argmin(nats[0, :, 0])) - (second + deviation)) < 1.5


@pytest.mark.parametrize(("name", "draw"), [("logistic_mixture", "logistic"), ("gaussian", "normal")])
def test_parameters_start_with_scales_of_17_levels(name, draw):
    likelihood = LIKELIHOODS[name](3)
    drawn = getattr(np.random.default_rng(0), draw)(127.5, 17, [1, 32, 32, 3])
    pictures = tf.constant(drawn.round().clip(0, 255).astype(np.uint8))
    less, start, more = (
        tf.reduce_mean(likelihood.nats(tf.ones([1, 32, 32, 1]) * likelihood.start * factor, pictures))
        for factor in (0.7, 1.0, 1.3)
    )
    assert start < min(less, more)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_are_finite_far_from_the_picture(name):
    likelihood = LIKELIHOODS[name](3)
    parameters = tf.concat([random_parameters(likelihood.size, 2, scale) for scale in (1.0, 30.0)], axis=0)
    pictures = tf.constant([0, 255, 1, 254], tf.uint8)[:, None, None, None] * tf.ones([1, 1, 1, 3], tf.uint8)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        nats = likelihood.nats(parameters, pictures)
    gradient = tape.gradient(nats, parameters)
    assert np.isfinite(nats.numpy()).all()
    assert np.isfinite(gradient.numpy()).all()
    assert (np.abs(gradient.numpy()).sum(axis=-1) > 0).all()
