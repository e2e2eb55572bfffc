"""How a gradient passes through a quantisation, which has none of its own."""

from collections.abc import Callable

import tensorflow as tf


def straight_through(x: tf.Tensor, quantized: tf.Tensor) -> tf.Tensor:
    """Returns `quantized` [positions, dim]; its gradient goes to `x` unchanged (Bengio et al. 2013)."""
    return x + tf.stop_gradient(quantized - x)


def rotation(x: tf.Tensor, quantized: tf.Tensor) -> tf.Tensor:
    """Returns `quantized` [positions, dim] as a rotated and stretched `x` (Fifty et al., arXiv 2410.06424).

    Rotation and stretch, which take x to `quantized`, are constants of the gradient: angles between gradient and
    encoding survive. It is written with two reflections: R x = x - 2 r (r.x) + 2 q (e.x), where e and q are the
    directions of x and `quantized`, and r that of e + q. An x or a code next to the origin has no direction and
    takes the straight-through gradient instead.
    """
    lengths = [tf.norm(v, axis=-1, keepdims=True) for v in (x, quantized)]
    e, q = (tf.stop_gradient(v / tf.maximum(n, _TINY)) for v, n in zip((x, quantized), lengths, strict=True))
    r, opposite = e + q, tf.reduce_sum(e * q, axis=-1, keepdims=True) < -0.999
    r = tf.stop_gradient(r / tf.maximum(tf.norm(r, axis=-1, keepdims=True), _TINY))
    rotated = x - 2.0 * r * tf.reduce_sum(r * x, -1, True) + 2.0 * q * tf.reduce_sum(e * x, -1, True)
    stretch = tf.stop_gradient(lengths[1] / tf.maximum(lengths[0], _TINY))
    defined = (lengths[0] > _TINY) & (lengths[1] > _TINY) & ~opposite
    return tf.where(defined, straight_through(stretch * rotated, quantized), straight_through(x, quantized))


_TINY = 1e-6
ESTIMATORS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "straight_through": straight_through,
    "rotation": rotation,
}
