"""Tables of vectors; token embeddings are shared by both languages and by the logits (Press & Wolf 2017)."""

import keras
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.layers.attention import positions
from t2t_vqem.layers.block import Block


class Embedding(Block):
    """A vector for each of `size` numbers, scaled by sqrt(dim) as Vaswani et al. (2017) do."""

    def __init__(self, size: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        initializer = keras.initializers.RandomNormal(stddev=dim**-0.5)
        self.table = self.add_weight(name="table", shape=[size, dim], initializer=initializer)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns [..., dim] for int32 [...]."""
        table = tf.cast(tf.convert_to_tensor(self.table), self.compute_dtype)
        return tf.gather(table, ids) * tf.cast(self.dim**0.5, table.dtype)


class TokenEmbedding(Embedding):
    """One table of vectors for tokens that go in and for tokens that come out."""

    def __init__(self, vocab_size: int, dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(vocab_size, dim, **kwargs)
        self.dropout = dropout

    def placed(self, x: tf.Tensor, training: Training | None = None) -> tf.Tensor:
        """Adds positions to `x` [batch, length, dim], then drops out."""
        return placed(x, self.dropout, training)

    def logits(self, x: tf.Tensor) -> tf.Tensor:
        """Returns [positions, vocab_size] for `x` [..., dim].

        Two dimensions: with three, XLA makes a gradient of [batch, vocab_size, dim].
        """
        table = tf.cast(tf.convert_to_tensor(self.table), x.dtype)
        return tf.matmul(tf.reshape(x, [-1, self.dim]), table, transpose_b=True)


def placed(x: tf.Tensor, dropout: float, training: Training | None = None) -> tf.Tensor:
    """Adds positions to `x` [batch, length, dim], then drops out."""
    x += positions(tf.shape(x)[1], x.shape[-1], x.dtype)
    return x if training is None else training.dropout(x, dropout)
