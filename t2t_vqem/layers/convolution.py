"""Convolution stacks that halve and double a sequence (paper section 4; T2T's `transformer_nat`)."""

import keras
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.fusion import fused
from t2t_vqem.layers.block import Block


def _masked(x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return x * tf.cast(mask, x.dtype)[:, :, None]


@fused
def _neighbours(x: tf.Tensor) -> tf.Tensor:
    length = tf.shape(x)[1] if x.shape[1] is None else x.shape[1]
    padded = tf.pad(x, [[0, 0], [1, 1], [0, 0]])
    return tf.concat([padded[:, i : i + length] for i in range(3)], axis=-1)


class Convolution(Block):
    """Width-3 convolution, written as a product over the concatenated neighbours.

    On a CPU, XLA compiles the gradient of a true convolution for minutes, and without XLA the gradient of the
    slices costs as much as the product; so the concatenation is fused.
    """

    def __init__(self, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.kernel = keras.layers.Dense(dim)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [batch, length, dim] to the same shape, zeros beyond both ends."""
        return self.kernel(_neighbours(x))


class ResidualBlock(Block):
    """x + dropout(f(x)) with f = layer norm, then three times ReLU, width-3 convolution, layer norm."""

    def __init__(self, dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.dropout = dropout
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(4)]
        self.convolutions = [Convolution(dim) for _ in range(3)]

    def call(self, x: tf.Tensor, mask: tf.Tensor, training: Training | None = None) -> tf.Tensor:
        """`x` is [batch, length, dim]; `mask` [batch, length] keeps padding from leaking in."""
        hidden = self.norms[0](x)
        for convolution, norm in zip(self.convolutions, self.norms[1:], strict=True):
            hidden = norm(convolution(_masked(tf.nn.relu(hidden), mask)))
        return x + (hidden if training is None else training.dropout(hidden, self.dropout))


class Compressor(Block):
    """Residual block, then width-2 stride-2 convolution, `num_steps` times: length / 2^num_steps."""

    def __init__(self, num_steps: int, dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.residual = [ResidualBlock(dim, dropout) for _ in range(num_steps)]
        self.halve = [keras.layers.Dense(dim) for _ in range(num_steps)]
        self.norms = [keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(num_steps)]

    def call(
        self, x: tf.Tensor, mask: tf.Tensor, training: Training | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps [batch, length, dim], length a multiple of 2^num_steps, to (latents, their mask).

        A latent is real where it covers a real position.
        """
        for block, halve, norm in zip(self.residual, self.halve, self.norms, strict=True):
            x = _masked(block(x, mask=mask, training=training), mask)
            batch, dim = tf.shape(x)[0], x.shape[-1]
            x = norm(halve(tf.reshape(tf.nn.relu(x), [batch, -1, 2 * dim])))
            mask = tf.reduce_any(tf.reshape(mask, [batch, -1, 2]), axis=-1)
        return x, mask


class Decompressor(Block):
    """Residual block, then a dense layer to two positions, `num_steps` times: length * 2^num_steps."""

    def __init__(self, num_steps: int, dim: int, dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.residual = [ResidualBlock(dim, dropout) for _ in range(num_steps)]
        self.double = [keras.layers.Dense(2 * dim) for _ in range(num_steps)]

    def call(
        self, x: tf.Tensor, mask: tf.Tensor, training: Training | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps latents [batch, length, dim] and their mask to [batch, length * 2^num_steps, dim] and its mask."""
        for block, double in zip(self.residual, self.double, strict=True):
            x = block(x, mask=mask, training=training)
            x = tf.reshape(double(tf.nn.relu(x)), [tf.shape(x)[0], -1, x.shape[-1]])
            mask = tf.repeat(mask, 2, axis=1)
        return x, mask
