"""Gradients through a quantisation, beside explicit matrices."""

import numpy as np
import tensorflow as tf

from t2t_vqem.bottlenecks.estimator import rotation, straight_through

X, Q, UPSTREAM = np.random.default_rng(0).normal(size=(3, 9, 5)).astype(np.float32)


def gradient(estimator, x, q):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = estimator(x, q)
        total = tf.reduce_sum(out * UPSTREAM)
    return out.numpy(), tape.gradient(total, x).numpy()


def test_straight_through():
    out, passed = gradient(straight_through, X, Q)
    np.testing.assert_allclose(out, Q, atol=1e-6)
    np.testing.assert_array_equal(passed, UPSTREAM)


def test_rotation_is_the_stretched_rotation_in_the_plane_of_encoding_and_code():
    out, passed = gradient(rotation, X, Q)
    np.testing.assert_allclose(out, Q, atol=1e-5)
    for x, q, upstream, found in zip(*(a.astype(np.float64) for a in (X, Q, UPSTREAM)), passed, strict=True):
        e, target = x / np.linalg.norm(x), q / np.linalg.norm(q)
        cosine = e @ target
        side = target - cosine * e
        side /= np.linalg.norm(side)
        sine = np.sqrt(1 - cosine**2)
        plane = np.stack([e, side], axis=1)
        turn = np.array([[cosine, -sine], [sine, cosine]])
        matrix = np.eye(len(x)) - plane @ plane.T + plane @ turn @ plane.T
        matrix *= np.linalg.norm(q) / np.linalg.norm(x)
        np.testing.assert_allclose(matrix @ x, q, atol=1e-9)
        np.testing.assert_allclose(found, matrix.T @ upstream, rtol=1e-3, atol=1e-4)


def test_without_a_direction_rotation_passes_straight_through():
    for x, q in ((np.zeros_like(X), Q), (X, np.zeros_like(Q)), (X, -X)):
        out, passed = gradient(rotation, x, q)
        np.testing.assert_allclose(out, q, atol=1e-5)
        np.testing.assert_array_equal(passed, UPSTREAM)
