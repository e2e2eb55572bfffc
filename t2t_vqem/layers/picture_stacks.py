"""Convolution stacks that shrink a picture to a field of positions and grow it back (arXiv 1711.00937, section 4.1)."""

import keras
import tensorflow as tf

from t2t_vqem.layers.block import Block


class ResidualUnit(Block):
    """x + f(x) with f = ReLU, 3 x 3 convolution, ReLU, 1 x 1 convolution."""

    def __init__(self, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.wide = keras.layers.Conv2D(dim, 3, padding="same")
        # A 1 x 1 convolution; as one, TensorFlow's rewriter fails to fuse it with the sum, and says so at length.
        self.narrow = keras.layers.Dense(dim)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [batch, height, width, dim] to the same shape."""
        return x + self.narrow(tf.nn.relu(self.wide(tf.nn.relu(x))))


class PictureEncoder(Block):
    """Stride-2 convolutions of 4 x 4, then residual units."""

    def __init__(self, dim: int, num_strides: int, residual_units: int, **kwargs):
        super().__init__(**kwargs)
        self.halve = [keras.layers.Conv2D(dim, 4, strides=2, padding="same") for _ in range(num_strides)]
        self.units = [ResidualUnit(dim) for _ in range(residual_units)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [batch, height, width, channels] to [batch, height / 2^num_strides, width / 2^num_strides, dim].

        Sizes that do not divide are rounded up.
        """
        for number, halve in enumerate(self.halve):
            x = halve(x if number == 0 else tf.nn.relu(x))
        for unit in self.units:
            x = unit(x)
        return tf.nn.relu(x)


class PictureDecoder(Block):
    """The encoder's mirror: residual units, then transposed stride-2 convolutions of 4 x 4."""

    def __init__(self, dim: int, num_strides: int, residual_units: int, top_dim: int, **kwargs):
        """`top_dim` is the number of channels at full size, where a channel costs most."""
        super().__init__(**kwargs)
        self.enter = keras.layers.Conv2D(dim, 3, padding="same")
        self.units = [ResidualUnit(dim) for _ in range(residual_units)]
        dims = [dim] * (num_strides - 1) + [top_dim]
        self.double = [
            keras.layers.Conv2DTranspose(size, 4, strides=2, padding="same") for size in dims[:num_strides]
        ]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps [batch, height, width, any] to [batch, height * 2^num_strides, width * 2^num_strides, top_dim]."""
        x = self.enter(x)
        for unit in self.units:
            x = unit(x)
        for double in self.double:
            x = double(tf.nn.relu(x))
        return tf.nn.relu(x)
