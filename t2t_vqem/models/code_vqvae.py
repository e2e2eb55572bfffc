"""A VQ-VAE over the codes of another: a whole field becomes a few codes (arXiv 1711.00937, section 4.2, DM-Lab).

There a field of 21 x 21 codes becomes three codes of 512 each, 27 bits, and a PixelCNN writes the field back. A decoder
as strong as that may leave its latents unread; that it does not is what the experiment is about.
"""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.bottleneck import BottleneckOutput
from t2t_vqem.bottlenecks.composite import sliced
from t2t_vqem.context import Draws, Training
from t2t_vqem.layers.picture_stacks import PictureEncoder
from t2t_vqem.models.model import Features, ModelOutput
from t2t_vqem.models.pixelcnn import PixelCNN


@registry.models.register("code_vqvae")
class CodeVQVAE(PixelCNN):
    """P(codes | z) of a `PixelCNN` whose gates know z, the latent codes of the whole field.

    -log P(codes | z) + `side_nats`, those of z under a uniform prior, bounds -log P(codes) from above. What a prior
    takes as labels is here the quantised encoding of the field, [batch, latents * latent_dim]; `sample` draws z.
    """

    registered_name = "code_vqvae"

    def __init__(
        self,
        code_shape: Sequence[int],
        num_codes: int,
        num_classes: int,
        *,
        bottleneck: str = "soft_em",
        latents: int = 3,
        latent_codes: int = 512,
        latent_dim: int = 64,
        num_strides: int = 2,
        dim: int = 192,
        kernel: int = 3,
        layers: int = 10,
        dropout: float = 0.1,
        block: int = 1,
        slot_layers: int = 2,
        slot_dim: int = 128,
        slot_heads: int = 4,
    ):
        """Makes the layers; see `PixelCNN` for those that are its own.

        Args:
          bottleneck: name of a registered bottleneck.
          latents: codes of a whole field, each with a bottleneck of its own.
          latent_codes: codes that each of them chooses from.
          latent_dim: numbers of a latent code's embedding.
          num_strides: of the encoder; what is left of the field then is encoded as a whole.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__(
            code_shape,
            num_codes,
            num_classes,
            dim=dim,
            kernel=kernel,
            layers=layers,
            dropout=dropout,
            block=block,
            slot_layers=slot_layers,
            slot_dim=slot_dim,
            slot_heads=slot_heads,
        )
        self.require_whole(1, latents=latents, latent_dim=latent_dim, num_strides=num_strides)
        self.require_sliceable(bottleneck, latents)
        self.encoder = PictureEncoder(dim, num_strides, residual_units=1, name="encoder")
        self.to_latents = keras.layers.Dense(latents * latent_dim, name="to_latents")
        self.bottleneck = sliced(bottleneck, latent_codes, latents, latent_dim)
        self.bottlenecks = {"latents": self.bottleneck}
        self.told = [keras.layers.Dense(4 * dim, use_bias=False) for _ in range(layers)]
        self.side_nats = self.bottleneck.slots * math.log(self.bottleneck.num_codes)

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """The codes of a field from its latents, and what the bottleneck asks for."""
        found = self._discretise(features["targets"], training)
        output = super().call(features | {"inputs": found.quantized}, training)
        return output._replace(
            losses=output.losses | {"commitment_loss": found.loss},
            statistics={"latents": found.statistics},
            metrics=output.metrics | found.metrics,
        )

    def logits(self, features: Features, training: Training | None = None) -> tf.Tensor:
        """See `PriorModel`; "inputs" may be labels, which say nothing, or quantised encodings, taken as they are."""
        if not features["inputs"].dtype.is_floating:
            features = features | {"inputs": self._discretise(features["targets"], training).quantized}
        return super().logits(features, training)

    def infer(self, features: Features) -> Features:
        """Draws each field anew from its own latents; "latents" int32 [batch, slots] are they."""
        found = self._discretise(features["targets"], None)
        drawn = super().infer(features | {"inputs": found.quantized})
        return drawn | {"latents": found.codes}

    def sample(
        self, labels: tf.Tensor, rows: tf.Tensor | None = None, *, seed: int = 0, **drawing: float
    ) -> tf.Tensor:
        """Draws latents, all equally likely, and codes given these; `labels` are as "inputs" of `logits`."""
        if not labels.dtype.is_floating:
            numbers = tf.range(tf.shape(labels)[0]) if rows is None else rows
            unit = Draws(seed, -1, numbers).uniform([tf.size(numbers), self.bottleneck.slots])
            latents = tf.cast(unit * self.bottleneck.num_codes, tf.int32)
            labels = tf.cast(self.bottleneck.embed(latents), self.compute_dtype)
        return super().sample(labels, rows, seed=seed, **drawing)

    def biases(self, labels: tf.Tensor) -> list[tf.Tensor]:
        return [dense(labels) for dense in self.told]

    def _discretise(self, codes: tf.Tensor, training: Training | None) -> BottleneckOutput:
        field = self.encoder(self.codes(self.blocks(codes)))
        encoded = self.to_latents(tf.reshape(field, [tf.shape(field)[0], math.prod(field.shape[1:])]))
        return self.bottleneck.e_step(encoded, None, training)
