"""The several codes of one position of a field: their embeddings, and their prediction one after the other."""

from collections.abc import Callable

import keras
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.layers.block import Block
from t2t_vqem.layers.embedding import Embedding
from t2t_vqem.layers.transformer import Transformer

Choose = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(logits [rows, num_codes], slot) -> codes int32 [rows]."""


class CodeEmbedding(Block):
    """A table for each slot; what a position stands for is the sum of its slots' vectors."""

    def __init__(self, slots: int, num_codes: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.slots, self.num_codes = slots, num_codes
        self.vectors = Embedding(slots * num_codes, dim)

    def part(self, codes: tf.Tensor, slot: int | tf.Tensor) -> tf.Tensor:
        """Returns what the codes int32 [...] of one slot add, [..., dim]."""
        vectors = self.vectors(codes + slot * self.num_codes)
        return vectors * tf.cast(self.slots**-0.5, vectors.dtype)  # so that the sum is of a vector's size

    def parts(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns what each of the codes int32 [..., slots] adds, [..., slots, dim]."""
        return self.part(codes, tf.range(self.slots))

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns the embeddings of positions, [..., dim], of codes int32 [..., slots]."""
        return tf.reduce_sum(self.parts(codes), axis=-2)


class SlotHead(Block):
    """P(codes of a position | context), one slot after the other: the depth transformer of the RQ-Transformer.

    Lee et al. 2022 (arXiv 2203.01941), equation 8: the first slot's input is the context, that of slot s the sum of
    the embeddings of the slots before it, each with a learned vector of the slot. The field's own network so runs
    once a position and not once a code. Each slot has logits of its own.
    """

    def __init__(
        self, codes: CodeEmbedding, *, num_layers: int, dim: int, heads: int, dropout: float, **kwargs
    ):
        """`codes` is shared with the network that makes the contexts."""
        super().__init__(**kwargs)
        self.codes = codes
        self.slots, self.num_codes, self.dim = codes.slots, codes.num_codes, dim
        self.context_in = keras.layers.Dense(dim)
        self.codes_in = keras.layers.Dense(dim)
        # Not zeros: where the context is none, as at a field's first position, nothing would be left to normalise.
        initializer = keras.initializers.RandomNormal(stddev=0.02)
        self.places = self.add_weight(name="places", shape=[self.slots, dim], initializer=initializer)
        self.stack = Transformer(num_layers, dim, 4 * dim, heads, dropout, causal=True)
        initializer = keras.initializers.RandomNormal(stddev=dim**-0.5)
        self.kernel = self.add_weight(
            name="kernel", shape=[self.slots, dim, self.num_codes], initializer=initializer
        )
        self.bias = self.add_weight(name="bias", shape=[self.slots, self.num_codes], initializer="zeros")

    def call(self, context: tf.Tensor, parts: tf.Tensor, training: Training | None = None) -> tf.Tensor:
        """Teacher forcing: returns logits float32 [batch, positions, slots, num_codes].

        Args:
          context: [batch, positions, dim of the context], with a static number of positions.
          parts: `codes.parts` of the true codes, [batch, positions, slots, dim of the embedding].
        """
        positions = context.shape[1]
        before = self.codes_in(tf.cumsum(parts, axis=2)[:, :, :-1])
        x = tf.concat([self.context_in(context)[:, :, None], before], axis=2) + self._cast(self.places)
        x = tf.reshape(x, [-1, self.slots, self.dim])
        real = tf.ones([tf.shape(x)[0], self.slots], tf.bool)
        x = self.stack(x, mask=real, training=None if training is None else training.split(positions))
        logits = tf.einsum("nsd,sdk->nsk", x, self._cast(self.kernel)) + self._cast(self.bias)
        return tf.cast(tf.reshape(logits, [-1, positions, self.slots, self.num_codes]), tf.float32)

    def generate(self, context: tf.Tensor, choose: Choose) -> tf.Tensor:
        """Has `choose` pick the codes int32 [rows, slots] of one position, whose context is [rows, dim].

        One loop with a cache of keys and values; its logits are those of teacher forcing.
        """
        rows, places = tf.shape(context)[0], tf.range(self.slots)
        kernel, bias, place = (self._cast(weight) for weight in (self.kernel, self.bias, self.places))
        embedded = self.codes.part(tf.zeros([rows], tf.int32), 0)  # for its shape

        def body(slot, x, before, codes, caches):
            hidden, caches = self.stack.step((x + place[slot])[:, None], caches, slot)
            logits = tf.matmul(hidden[:, 0], kernel[slot]) + bias[slot]
            chosen = choose(tf.cast(logits, tf.float32), slot)
            codes = tf.where(places == slot, chosen[:, None], codes)
            before += self.codes.part(chosen, slot)
            return slot + 1, self.codes_in(before), before, codes, caches

        start = (
            tf.constant(0),
            self.context_in(context),
            tf.zeros_like(embedded),
            tf.zeros([rows, self.slots], tf.int32),
            self.stack.empty_caches(rows, self.slots, self.compute_dtype),
        )
        return tf.while_loop(lambda slot, *_: slot < self.slots, body, start)[3]

    def _cast(self, weight: keras.Variable) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(weight), self.compute_dtype)
