"""The autoregressive transformer over a field of codes: the spatial half of the RQ-Transformer."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.context import Training
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.prior import PriorModel


@registry.models.register("latent_prior")
class LatentPrior(PriorModel):
    """A causal transformer over positions in raster order, with learned places of rows and columns.

    Lee et al. 2022 (arXiv 2203.01941): the input of a position is the sum of the embeddings of all codes of the
    position before, so that the transformer works on height * width positions whatever the number of slots.
    """

    registered_name = "latent_prior"

    def __init__(
        self,
        code_shape: Sequence[int],
        num_codes: int,
        num_classes: int,
        *,
        class_conditional: bool = False,
        dim: int = 256,
        filter_size: int = 1024,
        heads: int = 4,
        layers: int = 6,
        dropout: float = 0.1,
        block: int = 1,
        slot_layers: int = 2,
        slot_dim: int = 128,
        slot_heads: int = 4,
    ):
        """Makes the layers; see `PriorModel`. Raises a UserError for a parameter out of its range."""
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
        self.require_whole(1, layers=layers, filter_size=filter_size, heads=heads)
        self.require(dim % heads == 0, "dim", dim, f"a multiple of heads = {heads}")
        initializer = keras.initializers.RandomNormal(stddev=1.0)  # as large as the embeddings
        self.rows = self.add_weight(name="rows", shape=[self.height, dim], initializer=initializer)
        self.columns = self.add_weight(name="columns", shape=[self.width, dim], initializer=initializer)
        self.transformer = Transformer(
            layers, dim, filter_size, heads, dropout, causal=True, name="transformer"
        )

    def contexts(self, embedded: tf.Tensor, labels: tf.Tensor, training: Training | None) -> tf.Tensor:
        x = tf.pad(embedded, [[0, 0], [1, 0], [0, 0]])[:, :-1] + self._places()
        if self.classes is not None:
            x += self.classes(labels)[:, None]
        if training is not None:
            x = training.dropout(x, self.dropout)
        real = tf.ones([tf.shape(x)[0], self.positions], tf.bool)
        return self.transformer(x, mask=real, training=training)

    def start(self, labels: tf.Tensor) -> list:
        return self.transformer.empty_caches(tf.shape(labels)[0], self.positions, self.compute_dtype)

    def step(
        self, embedded: tf.Tensor, index: tf.Tensor, labels: tf.Tensor, state: list
    ) -> tuple[tf.Tensor, list]:
        x = embedded + self._places()[index]
        if self.classes is not None:
            x += self.classes(labels)
        x, state = self.transformer.step(x[:, None], state, index)
        return x[:, 0], state

    def _places(self) -> tf.Tensor:
        """Returns the place of each position, its row's and its column's, [positions, dim]."""
        rows, columns = tf.convert_to_tensor(self.rows), tf.convert_to_tensor(self.columns)
        places = tf.reshape(rows[:, None] + columns[None, :], [self.positions, -1])
        return tf.cast(places, self.compute_dtype)
