"""Pre-norm transformer stacks, with a key-value cache for autoregressive inference."""

import keras
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.layers.attention import CrossAttention, KeyValues, SelfAttention
from t2t_vqem.layers.block import Block


class FeedForward(Block):
    """Two dense layers with a ReLU between."""

    def __init__(self, dim: int, filter_size: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.dropout = dropout
        self.expand = keras.layers.Dense(filter_size, activation="relu")
        self.contract = keras.layers.Dense(dim)

    def call(self, x: tf.Tensor, training: Training | None = None) -> tf.Tensor:
        hidden = self.expand(x)
        return self.contract(hidden if training is None else training.dropout(hidden, self.dropout))


class TransformerLayer(Block):
    """Self-attention, attention to a memory where there is one, feed-forward; each x + f(norm(x))."""

    def __init__(
        self, dim: int, filter_size: int, heads: int, dropout: float, cross_attention: bool, **kwargs
    ):
        super().__init__(**kwargs)
        self.dropout = dropout
        self.self_norm = keras.layers.LayerNormalization(epsilon=1e-6)
        self.self_attention = SelfAttention(dim, heads, dropout)
        self.cross_attention = None
        if cross_attention:
            self.cross_norm = keras.layers.LayerNormalization(epsilon=1e-6)
            self.cross_attention = CrossAttention(dim, heads, dropout)
        self.feed_norm = keras.layers.LayerNormalization(epsilon=1e-6)
        self.feed_forward = FeedForward(dim, filter_size, dropout)

    def call(
        self,
        x: tf.Tensor,
        mask: tf.Tensor,
        memory_key_values: KeyValues | None = None,
        memory_mask: tf.Tensor | None = None,
        training: Training | None = None,
    ) -> tf.Tensor:
        """Maps `x` [batch, length, dim] to the same shape; the masks are as `Attention.attend` takes them."""
        normed = self.self_norm(x)
        x = self._add(x, self.self_attention(normed, mask=mask, training=training), training)
        return self._after_self_attention(x, memory_key_values, memory_mask, training)

    def step(
        self,
        x: tf.Tensor,
        cache: KeyValues,
        index: tf.Tensor,
        memory_key_values: KeyValues | None,
        memory_mask: tf.Tensor | None,
    ) -> tuple[tf.Tensor, KeyValues]:
        """One position `x` [batch, 1, dim] at `index`; the cache holds [batch, heads, max_length, dim / heads]."""
        normed = self.self_norm(x)
        places = tf.range(tf.shape(cache[0])[2])
        here = (places == index)[None, None, :, None]
        query, new = self.self_attention.projections(normed)
        cache = tuple(tf.where(here, fresh, old) for fresh, old in zip(new, cache, strict=True))
        x += self.self_attention.attend(query, cache, (places <= index)[None, None, None, :])
        return self._after_self_attention(x, memory_key_values, memory_mask, None), cache

    def _after_self_attention(
        self,
        x: tf.Tensor,
        memory_key_values: KeyValues | None,
        memory_mask: tf.Tensor | None,
        training: Training | None,
    ) -> tf.Tensor:
        if self.cross_attention is not None:
            attended = self.cross_attention(
                self.cross_norm(x), memory_key_values, mask=memory_mask, training=training
            )
            x = self._add(x, attended, training)
        return self._add(x, self.feed_forward(self.feed_norm(x), training=training), training)

    def _add(self, x: tf.Tensor, update: tf.Tensor, training: Training | None) -> tf.Tensor:
        return x + (update if training is None else training.dropout(update, self.dropout))


class Transformer(Block):
    """A stack of layers and a last norm; bidirectional or causal, with or without a memory."""

    def __init__(
        self,
        num_layers: int,
        dim: int,
        filter_size: int,
        heads: int,
        dropout: float = 0.0,
        *,
        causal: bool = False,
        cross_attention: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dim = dim
        self.heads = heads
        self.causal = causal
        self.blocks = [
            TransformerLayer(dim, filter_size, heads, dropout, cross_attention, name=f"layer_{i}")
            for i in range(num_layers)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6)

    def call(
        self,
        x: tf.Tensor,
        mask: tf.Tensor,
        memory: tf.Tensor | None = None,
        memory_mask: tf.Tensor | None = None,
        training: Training | None = None,
    ) -> tf.Tensor:
        """Maps `x` [batch, length, dim] to the same shape.

        `mask` [batch, length] and `memory_mask` [batch, memory_length] are True at real positions.
        """
        mask = mask[:, None, None, :]
        if self.causal:
            places = tf.range(tf.shape(x)[1])
            mask = mask & (places[:, None] >= places[None, :])[None, None]
        if memory_mask is not None:
            memory_mask = memory_mask[:, None, None, :]
        for layer in self.blocks:
            key_values = None if memory is None else layer.cross_attention.key_values(memory)
            x = layer(
                x,
                mask=mask,
                memory_key_values=key_values,
                memory_mask=memory_mask,
                training=training,
            )
        return self.norm(x)

    def start(self, memory: tf.Tensor, max_length: int | tf.Tensor) -> tuple[list, list]:
        """Returns (empty caches, the memory's keys and values), one a layer, to call `step` with."""
        caches = self.empty_caches(tf.shape(memory)[0], max_length, memory.dtype)
        return caches, [layer.cross_attention.key_values(memory) for layer in self.blocks]

    def empty_caches(self, batch: int | tf.Tensor, max_length: int | tf.Tensor, dtype: tf.DType) -> list:
        """Returns the caches of a stack without a memory, one a layer, to call `step` with."""
        shape = [batch, self.heads, max_length, self.dim // self.heads]
        return [(tf.zeros(shape, dtype),) * 2 for _ in self.blocks]

    def step(
        self,
        x: tf.Tensor,
        caches: list,
        index: tf.Tensor,
        memory_key_values: list | None = None,
        memory_mask: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, list]:
        """One position `x` [batch, 1, dim] of a causal stack; returns its output and the new caches."""
        if memory_key_values is None:
            memory_key_values = [None] * len(self.blocks)
        else:
            memory_mask = memory_mask[:, None, None, :]
        new_caches = []
        for layer, cache, key_values in zip(self.blocks, caches, memory_key_values, strict=True):
            x, cache = layer.step(x, cache, index, key_values, memory_mask)
            new_caches.append(cache)
        return self.norm(x), new_caches
