"""Gated convolutions that see what comes before in raster order (van den Oord et al. 2016, arXiv 1606.05328)."""

import keras
import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.fusion import fused
from t2t_vqem.layers.block import Block


@fused
def _neighbours(x: tf.Tensor, rows: int, columns: int) -> tf.Tensor:
    """Puts the numbers of each window of `x` [batch, height, width, dim] side by side."""
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    windows = [x[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    return tf.concat(windows, axis=-1)


class GatedLayer(Block):
    """One layer of the vertical and of the horizontal stack; figure 2 of the paper.

    The vertical stack sees the rows up to its own, the horizontal one its row up to its own column and, through a
    1 x 1 convolution, the vertical one; there is no blind spot. A gate is tanh(a) * sigmoid(b). What a stack must
    not see of its own place is kept from it by shifting its input, so that no kernel is masked.

    Unlike the paper's, the vertical stack is residual too: through gates alone its signal would halve at every layer.
    Convolutions are products over concatenated neighbours, see `convolution.Convolution`, which `begin_row` and
    `column` take one row and one position at a time.
    """

    def __init__(self, dim: int, kernel: int, dropout: float = 0.0, **kwargs):
        """`kernel` is odd: the full width of a window, whose height is (kernel + 1) / 2."""
        super().__init__(**kwargs)
        self.reach, self.dropout = kernel // 2, dropout
        self.vertical = keras.layers.Dense(2 * dim)
        self.horizontal = keras.layers.Dense(2 * dim)
        self.across = keras.layers.Dense(2 * dim, use_bias=False)
        self.residual = keras.layers.Dense(dim)
        self.skip = keras.layers.Dense(dim)

    def call(
        self, above: tf.Tensor, before: tf.Tensor, label: tf.Tensor, training: Training | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns both stacks and what the layer adds to the output, all [batch, height, width, dim].

        Args:
          above, before: the vertical and the horizontal stack below this layer.
          label: [batch, 1, 1, 4 * dim], what the gates of the two stacks are biased by, or a zero.
        """
        reach = self.reach
        padded = tf.pad(above, [[0, 0], [reach, 0], [reach, reach], [0, 0]])
        projected, above = self._down(_neighbours(padded, reach + 1, 2 * reach + 1), above, label)
        padded = tf.pad(before, [[0, 0], [0, 0], [reach, 0], [0, 0]])
        before, skip = self._right(_neighbours(padded, 1, reach + 1), before, projected, label, training)
        return above, before, skip

    def begin_row(self, window: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns of one row what `column` reads of it, [batch, width, 2 * dim], and the stack, [batch, width, dim].

        `window` [batch, reach + 1, width, dim] holds the stack below, the row itself last.
        """
        padded = tf.pad(window, [[0, 0], [0, 0], [self.reach, self.reach], [0, 0]])
        neighbours = _neighbours(padded, self.reach + 1, 2 * self.reach + 1)
        projected, above = self._down(neighbours, window[:, -1:], label)
        return projected[:, 0], above[:, 0]

    def column(
        self, window: tf.Tensor, projected: tf.Tensor, label: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns of one position the horizontal stack and what the layer adds to the output, both [batch, dim].

        Args:
          window: [batch, reach + 1, dim], the stack below, the position itself last.
          projected: of the vertical stack here, [batch, 2 * dim].
        """
        neighbours = tf.concat(tf.unstack(window, axis=1), axis=-1)
        return self._right(neighbours, window[:, -1], projected, label, None)

    def _down(self, neighbours: tf.Tensor, x: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        projected = self.vertical(neighbours)
        projected += label[..., : projected.shape[-1]]
        return projected, x + _gate(projected)

    def _right(
        self,
        neighbours: tf.Tensor,
        x: tf.Tensor,
        projected: tf.Tensor,
        label: tf.Tensor,
        training: Training | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        gated = self.horizontal(neighbours) + self.across(projected)
        gated = _gate(gated + label[..., gated.shape[-1] :])
        if training is not None:
            gated = training.dropout(gated, self.dropout)
        return x + self.residual(gated), self.skip(gated)


def _gate(x: tf.Tensor) -> tf.Tensor:
    content, gate = tf.split(x, 2, axis=-1)
    return tf.tanh(content) * tf.sigmoid(gate)
