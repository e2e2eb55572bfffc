"""Multi-head attention and sinusoidal positions (Vaswani et al. 2017, arXiv 1706.03762)."""

import math

import keras
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.layers.block import Block

KeyValues = tuple[tf.Tensor, tf.Tensor]


class Attention(Block):
    """Scaled dot-product attention with several heads; of `x` to itself or to a memory."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.query = keras.layers.Dense(dim, use_bias=False)
        self.key_value = keras.layers.Dense(2 * dim, use_bias=False)
        self.combine = keras.layers.Dense(dim, use_bias=False)

    def key_values(self, memory: tf.Tensor) -> KeyValues:
        """Returns keys and values, each [batch, heads, length, dim / heads], of `memory` [batch, length, dim]."""
        key, value = tf.split(self.key_value(memory), 2, axis=-1)
        return self._split_heads(key), self._split_heads(value)

    def attend(
        self, x: tf.Tensor, key_values: KeyValues, mask: tf.Tensor, training: Training | None = None
    ) -> tf.Tensor:
        """Attends from `x` [batch, queries, dim]; `mask` is bool, broadcastable to [batch, heads, queries, keys]."""
        key, value = key_values
        query = self._split_heads(self.query(x)) * (key.shape[-1] ** -0.5)
        # The softmax needs float32's range whatever the policy.
        logits = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32)
        weights = tf.cast(tf.nn.softmax(tf.where(mask, logits, -1e9)), x.dtype)
        if training is not None:
            weights = training.dropout(weights, self.dropout)
        context = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return self.combine(tf.reshape(context, [tf.shape(x)[0], -1, x.shape[-1]]))

    def call(
        self,
        x: tf.Tensor,
        mask: tf.Tensor | None = None,
        memory: tf.Tensor | None = None,
        training: Training | None = None,
    ) -> tf.Tensor:
        """Returns [batch, queries, dim]; `memory` [batch, keys, dim] defaults to `x`."""
        return self.attend(x, self.key_values(x if memory is None else memory), mask, training)

    def _split_heads(self, x: tf.Tensor) -> tf.Tensor:
        split = tf.reshape(x, [tf.shape(x)[0], -1, self.heads, x.shape[-1] // self.heads])
        return tf.transpose(split, [0, 2, 1, 3])


def positions(length: int | tf.Tensor, dim: int, dtype: tf.DType) -> tf.Tensor:
    """Returns sinusoidal position encodings [length, dim], wavelengths from 2 pi to 10,000 * 2 pi."""
    rates = tf.exp(tf.range(dim // 2, dtype=tf.float32) * (-math.log(10_000.0) / (dim // 2 - 1)))
    angles = tf.range(length, dtype=tf.float32)[:, None] * rates[None, :]
    return tf.cast(tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1), dtype)
