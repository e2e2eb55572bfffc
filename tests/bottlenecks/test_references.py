"""Trajectories and fixed points of EM beside SciPy's k-means and an exact EM of the mixture."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.cluster.vq import kmeans2

from t2t_vqem.bottlenecks.em import HardEM, SoftEM
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Training

ROWS, DIM = 256, 2


def mixture(centres, spread, seed=0):
    """Points [ROWS, DIM], as many around each centre."""
    draw = np.random.default_rng(seed)
    places = np.asarray(centres, np.float32)[np.arange(ROWS) % len(centres)]
    return (places + spread * draw.normal(size=places.shape)).astype(np.float32)


def place(bottleneck, means, count):
    book = bottleneck.codebook
    book.means.assign(means)
    book.counts.assign(np.full(len(means), count, np.float32))
    book.sums.assign(count * np.asarray(means, np.float32))
    book.updates.assign(1e6)
    return bottleneck


def learn(bottleneck, points, steps):
    @tf.function(autograph=False)
    def one(step):
        training = Training(0, step, tf.range(ROWS), ROWS)
        bottleneck.m_step(bottleneck.e_step(points, None, training).statistics)

    for step in range(steps):
        one(tf.constant(step))
    return bottleneck.codebook.means.numpy()


def settings(**others):
    return CodebookSettings(norm=None, revival_threshold=0.0, warmup_steps=0, **others)


def test_hard_em_without_memory_follows_scipys_k_means():
    points = np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)
    start = points[:8]
    bottleneck = place(HardEM(8, DIM, settings(decay=0.0)), start, 1.0)
    moved = []
    for iterations in range(1, 9):
        before = bottleneck.codebook.means.numpy()
        means = learn(bottleneck, points, 1)
        expected, _ = kmeans2(
            points.astype(np.float64), start, iter=iterations, minit="matrix", missing="raise"
        )
        np.testing.assert_allclose(means, expected, rtol=1e-4, atol=1e-5)
        moved.append(np.abs(means - before).max())
    assert min(moved) > 1e-3  # else the last iterations compared nothing


def exact_em(points, means, variance, iterations):
    """Fixed point of EM for equal weights and one known isotropic variance, in float64."""
    points, means = points.astype(np.float64), np.asarray(means, np.float64)
    for _ in range(iterations):
        distances = np.square(points[:, None] - means[None]).sum(-1)
        weights = np.exp((distances.min(-1, keepdims=True) - distances) / (2 * variance))
        weights /= weights.sum(-1, keepdims=True)
        means = weights.T @ points / weights.sum(0)[:, None]
    return means


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_em_settles_at_the_fixed_point_of_the_exact_em(temperature):
    centres = [[0.0, 0.0], [2.5, 0.0], [0.0, 2.5], [2.5, 2.5]]
    points, start = mixture(centres, spread=0.9), np.asarray(centres, np.float32) + 0.3
    # exp(-d^2 / temperature) is a Gaussian of variance temperature / 2
    expected = exact_em(points, start, temperature / 2, 500)
    k_means, _ = kmeans2(points, start, iter=300, minit="matrix", missing="raise")
    bottleneck = SoftEM(4, DIM, settings(decay=0.995, temperature=temperature), num_samples=16)
    found = learn(place(bottleneck, start, ROWS / 4), points, 2000)
    error = np.abs(found - expected).max()
    assert error < 0.02, (found, expected)
    assert np.abs(k_means - expected).max() > 4 * error  # and it is not where hard EM ends
