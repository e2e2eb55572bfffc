"""Multi-head attention and sinusoidal positions (Vaswani et al. 2017, arXiv 1706.03762)."""

import math

import keras
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.layers.block import Block

KeyValues = tuple[tf.Tensor, tf.Tensor]


class Attention(Block):
    """Scaled dot-product attention with several heads: what attention to itself and to a memory share."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads = heads
        self.dropout = dropout
        self.combine = keras.layers.Dense(dim, use_bias=False)

    def attend(
        self, query: tf.Tensor, key_values: KeyValues, mask: tf.Tensor, training: Training | None = None
    ) -> tf.Tensor:
        """Returns [batch, queries, dim] for `query` [batch, heads, queries, dim / heads].

        `mask` is bool, broadcastable to [batch, heads, queries, keys].
        """
        key, value = key_values
        query *= key.shape[-1] ** -0.5
        # The softmax needs at least float32's range whatever the policy.
        exact = tf.float64 if query.dtype == tf.float64 else tf.float32
        logits = tf.cast(tf.matmul(query, key, transpose_b=True), exact)
        weights = tf.cast(tf.nn.softmax(tf.where(mask, logits, -1e9)), query.dtype)
        if training is not None:
            weights = training.dropout(weights, self.dropout)
        context = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
        return self.combine(tf.reshape(context, [tf.shape(context)[0], -1, self.heads * key.shape[-1]]))

    def split_heads(self, x: tf.Tensor, parts: int) -> list[tf.Tensor]:
        """Returns `parts` tensors [batch, heads, length, dim / heads] of `x` [batch, length, parts * dim]."""
        size = x.shape[-1] // self.heads // parts
        split = tf.reshape(x, [tf.shape(x)[0], -1, parts, self.heads, size])
        return tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]))


class SelfAttention(Attention):
    """Attention of a sequence to itself. One product makes queries, keys and values: three are slower."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, **kwargs):
        super().__init__(dim, heads, dropout, **kwargs)
        self.project = keras.layers.Dense(3 * dim, use_bias=False)

    def projections(self, x: tf.Tensor) -> tuple[tf.Tensor, KeyValues]:
        """Returns queries, and keys and values, each [batch, heads, length, dim / heads]."""
        query, key, value = self.split_heads(self.project(x), 3)
        return query, (key, value)

    def call(self, x: tf.Tensor, mask: tf.Tensor, training: Training | None = None) -> tf.Tensor:
        """Maps `x` [batch, length, dim] to the same shape; `mask` as in `attend`."""
        return self.attend(*self.projections(x), mask, training)


class CrossAttention(Attention):
    """Attention of a sequence to a memory, whose keys and values are made once."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0, **kwargs):
        super().__init__(dim, heads, dropout, **kwargs)
        self.query = keras.layers.Dense(dim, use_bias=False)
        self.key_value = keras.layers.Dense(2 * dim, use_bias=False)

    def key_values(self, memory: tf.Tensor) -> KeyValues:
        """Returns keys and values, each [batch, heads, length, dim / heads], of `memory` [batch, length, dim]."""
        return tuple(self.split_heads(self.key_value(memory), 2))

    def call(
        self, x: tf.Tensor, key_values: KeyValues, mask: tf.Tensor, training: Training | None = None
    ) -> tf.Tensor:
        """Maps `x` [batch, queries, dim] to the same shape; `mask` as in `attend`, over the memory."""
        (query,) = self.split_heads(self.query(x), 1)
        return self.attend(query, key_values, mask, training)


def positions(length: int | tf.Tensor, dim: int, dtype: tf.DType) -> tf.Tensor:
    """Returns sinusoidal position encodings [length, dim], wavelengths from 2 pi to 10,000 * 2 pi."""
    rates = tf.exp(tf.range(dim // 2, dtype=tf.float32) * (-math.log(10_000.0) / (dim // 2 - 1)))
    angles = tf.range(length, dtype=tf.float32)[:, None] * rates[None, :]
    return tf.cast(tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1), dtype)
