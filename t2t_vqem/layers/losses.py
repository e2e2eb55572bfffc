"""Losses as sums over real positions; the training step divides by the global weight."""

import tensorflow as tf

from t2t_vqem.context import LossTerm
from t2t_vqem.fusion import fused


def masked_sum(values: tf.Tensor, mask: tf.Tensor) -> LossTerm:
    """Sums `values` [batch, ...] where `mask` [batch, ...] (bool or float weights) is set."""
    weights = tf.cast(mask, tf.float32)
    return LossTerm(tf.reduce_sum(tf.cast(values, tf.float32) * weights), tf.reduce_sum(weights))


@fused
def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns nats [positions] of `labels` int32 [positions] under `logits` [positions, classes].

    Label smoothing (Szegedy et al. 2016) puts the mass `smoothing` uniformly on all classes.
    """
    logits = tf.cast(logits, tf.float32)
    chosen = (1.0 - smoothing) * tf.gather(logits, labels, batch_dims=1)
    if smoothing:
        chosen += smoothing * tf.reduce_mean(logits, axis=-1)
    return tf.reduce_logsumexp(logits, axis=-1) - chosen


def soft_cross_entropy(logits: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
    """Returns nats [positions] against the mean of the one-hots of `samples` int32 [positions, m].

    The target h of paper section 4: like label smoothing, with the floor H(h) <= log m.
    """
    logits = tf.cast(logits, tf.float32)
    chosen = tf.gather(logits, samples, batch_dims=1)
    return tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(chosen, axis=-1)
