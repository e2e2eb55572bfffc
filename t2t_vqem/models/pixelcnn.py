"""The gated PixelCNN over a field of codes (van den Oord et al. 2016, arXiv 1606.05328)."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.context import Training
from t2t_vqem.layers.gated import GatedLayer
from t2t_vqem.models.prior import PriorModel


class Caches(NamedTuple):
    """What a position needs of those before it; its size does not depend on the field's height.

    Attributes:
      row: the embedded codes of this row, of the columns to come those of the row above, [batch, width, dim].
      rows: of each layer the last rows of the vertical stack below it, [batch, reach + 1, width, dim].
      projected: of each layer what the horizontal stack reads of this row, [batch, width, 2 * dim].
      columns: of each layer the last columns of the horizontal stack below it, [batch, reach + 1, dim].
    """

    row: tf.Tensor
    rows: list[tf.Tensor]
    projected: list[tf.Tensor]
    columns: list[tf.Tensor]


@registry.models.register("pixelcnn")
class PixelCNN(PriorModel):
    """A vertical and a horizontal stack of gated convolutions over the embedded codes; see `GatedLayer`.

    The prior of van den Oord et al. 2017 (arXiv 1711.00937), but that the codes of one position depend on each other.
    """

    registered_name = "pixelcnn"

    def __init__(
        self,
        code_shape: Sequence[int],
        num_codes: int,
        num_classes: int,
        *,
        class_conditional: bool = False,
        dim: int = 192,
        kernel: int = 3,
        layers: int = 10,
        dropout: float = 0.1,
        block: int = 1,
        slot_layers: int = 2,
        slot_dim: int = 128,
        slot_heads: int = 4,
    ):
        """Makes the layers; see `PriorModel`.

        Args:
          kernel: width of the windows, odd; `layers * (kernel - 1) / 2` rows and columns of blocks are within reach.

        Raises:
          UserError: a parameter is out of its range.
        """
        super().__init__(
            code_shape,
            num_codes,
            num_classes,
            class_conditional=class_conditional,
            dim=dim,
            dropout=dropout,
            block=block,
            slot_layers=slot_layers,
            slot_dim=slot_dim,
            slot_heads=slot_heads,
        )
        self.require_whole(1, layers=layers)
        odd = type(kernel) is int and kernel >= 3 and kernel % 2 == 1
        self.require(odd, "kernel", kernel, "an odd number, 3 or more")
        self.dim, self.reach = dim, kernel // 2
        self.layers = [GatedLayer(dim, kernel, dropout, name=f"layer_{i}") for i in range(layers)]
        self.labels = None
        if class_conditional:
            self.labels = [keras.layers.Dense(4 * dim, use_bias=False) for _ in range(layers)]
        self.out = keras.layers.Dense(dim, name="out")

    def contexts(self, embedded: tf.Tensor, labels: tf.Tensor, training: Training | None) -> tf.Tensor:
        field = tf.reshape(embedded, [-1, self.height, self.width, self.dim])
        above = tf.pad(field, [[0, 0], [1, 0], [0, 0], [0, 0]])[:, :-1]
        before = tf.pad(field, [[0, 0], [0, 0], [1, 0], [0, 0]])[:, :, :-1]
        skips = []
        for layer, label in zip(self.layers, self.biases(labels), strict=True):
            above, before, skip = layer(above, before, label[:, None, None], training=training)
            skips.append(skip)
        return tf.reshape(self._context([*skips, before]), [-1, self.positions, self.dim])

    def start(self, labels: tf.Tensor) -> Caches:
        batch = tf.shape(labels)[0]

        def empty(*shape: int) -> list[tf.Tensor]:
            return [tf.zeros([batch, *shape], self.compute_dtype) for _ in self.layers]

        return Caches(
            row=tf.zeros([batch, self.width, self.dim], self.compute_dtype),
            rows=empty(self.reach + 1, self.width, self.dim),
            projected=empty(self.width, 2 * self.dim),
            columns=empty(self.reach + 1, self.dim),
        )

    def step(
        self, embedded: tf.Tensor, index: tf.Tensor, labels: tf.Tensor, state: Caches
    ) -> tuple[tf.Tensor, Caches]:
        column = index % self.width
        first = column == 0
        biases = self.biases(labels)
        here = tf.range(self.width)[:, None] == (column - 1) % self.width
        row = tf.where(here, embedded[:, None], state.row)
        rows, projected = tf.cond(
            first,
            lambda: self._begin_row(row, state.rows, biases),
            lambda: (state.rows, state.projected),
        )
        before = tf.where(first, tf.zeros([], embedded.dtype), embedded)
        columns, skips = [], []
        for layer, label, window, above in zip(self.layers, biases, state.columns, projected, strict=True):
            window = tf.where(first, tf.zeros([], window.dtype), window)
            window = tf.concat([window[:, 1:], before[:, None]], axis=1)
            columns.append(window)
            before, skip = layer.column(window, tf.gather(above, column, axis=1), label)
            skips.append(skip)
        return self._context([*skips, before]), Caches(row, rows, projected, columns)

    def _begin_row(
        self, row: tf.Tensor, rows: list[tf.Tensor], biases: list[tf.Tensor]
    ) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Runs the vertical stack on a row, whose input is the embedded `row` above it."""
        new_rows, all_projected = [], []
        for layer, label, window in zip(self.layers, biases, rows, strict=True):
            window = tf.concat([window[:, 1:], row[:, None]], axis=1)
            new_rows.append(window)
            projected, row = layer.begin_row(window, label[:, None, None])
            all_projected.append(projected)
        return new_rows, all_projected

    def biases(self, labels: tf.Tensor) -> list[tf.Tensor]:
        """Returns what the gates of each layer are biased by, [batch, 4 * dim]; zeros where labels do not count."""
        if self.classes is None:
            return [tf.zeros([1, 4 * self.dim], self.compute_dtype)] * len(self.layers)
        embedded = self.classes(labels)
        return [dense(embedded) for dense in self.labels]

    def _context(self, outputs: list[tf.Tensor]) -> tf.Tensor:
        return self.out(tf.nn.relu(tf.add_n(outputs)))
