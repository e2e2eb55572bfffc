"""The vector-quantised autoencoder of pictures (van den Oord et al. 2017, arXiv 1711.00937), with any bottleneck.

A picture x becomes a field of positions, each of them a code or several; a decoder says P(x | z). With a prior P(z)
over the codes, -log P(x | z) - log P(z) bounds -log P(x) from above.
"""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.bottleneck import BottleneckOutput, DrawnCodes
from t2t_vqem.bottlenecks.composite import sliced
from t2t_vqem.context import Draws, LossTerm, Training
from t2t_vqem.layers.likelihoods import LIKELIHOODS
from t2t_vqem.layers.losses import masked_sum
from t2t_vqem.layers.picture_stacks import PictureDecoder, PictureEncoder
from t2t_vqem.models.model import Features, Model, ModelOutput


@registry.models.register("vqvae")
class VQVAE(Model):
    """Encoder, bottleneck and decoder of pictures; it learns "targets" uint8 [batch, height, width, channels].

    Attributes:
      image_shape: (height, width, channels).
      code_shape: (height, width, slots) of a picture's codes.
      num_codes: codes that a slot chooses from.
    """

    registered_name = "vqvae"
    content = "images"

    def __init__(
        self,
        image_shape: Sequence[int],
        num_classes: int,
        *,
        bottleneck: str = "soft_em",
        num_codes: int = 256,
        codebooks: int = 10,
        code_dim: int = 64,
        num_strides: int = 2,
        residual_units: int = 2,
        dim: int = 256,
        top_dim: int = 128,
        likelihood: str = "softmax",
        class_conditional: bool = False,
    ):
        """Makes the layers.

        Args:
          bottleneck: name of a registered bottleneck.
          num_codes: codebook size K.
          codebooks: of each position, every one with a slice of the encoding and a bottleneck of its own.
          code_dim: numbers of a code's embedding.
          num_strides: the field is 2^num_strides times lower and narrower than the picture.
          residual_units: of encoder and decoder each.
          dim: channels of the field.
          top_dim: channels of the decoder at full size.
          likelihood: P(x | z) of a number: "softmax", "logistic_mixture" or "gaussian".
          class_conditional: whether the decoder is told the picture's class.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__()
        self.require_whole(
            1, codebooks=codebooks, code_dim=code_dim, num_strides=num_strides, dim=dim, top_dim=top_dim
        )
        self.require_whole(0, residual_units=residual_units)
        self.require_sliceable(bottleneck, codebooks)
        known = list(LIKELIHOODS)  # a list takes what cannot be hashed
        self.require(likelihood in known, "likelihood", likelihood, f"one of {', '.join(known)}")
        self.require_conditional(class_conditional, num_classes)
        self.image_shape = tuple(image_shape)
        height, width, channels = self.image_shape
        fits = num_strides < max(height, width).bit_length()
        self.require(fits, "num_strides", num_strides, f"fewer: the pictures have {height} x {width} pixels")
        self.likelihood = LIKELIHOODS[likelihood](channels)
        self.encoder = PictureEncoder(dim, num_strides, residual_units, name="encoder")
        self.to_codes = keras.layers.Dense(codebooks * code_dim, name="to_codes")
        self.bottleneck = sliced(bottleneck, num_codes, codebooks, code_dim)
        self.bottlenecks = {"codes": self.bottleneck}
        self.decoder = PictureDecoder(dim, num_strides, residual_units, top_dim, name="decoder")
        self.to_parameters = keras.layers.Dense(
            self.likelihood.size,
            bias_initializer=keras.initializers.Constant(self.likelihood.start),
            name="to_parameters",
        )
        self.classes = None
        if class_conditional:
            self.classes = self.add_weight(
                name="classes", shape=[num_classes, codebooks * code_dim], initializer="zeros"
            )
        field = [math.ceil(size / 2**num_strides) for size in (height, width)]
        self.code_shape = (*field, self.bottleneck.slots)
        self.patch_shape = (2**num_strides, 2**num_strides)
        self.num_codes = self.bottleneck.num_codes

    def build_weights(self) -> None:
        """Makes every variable; called once, under the strategy's scope."""
        self(
            {"inputs": tf.zeros([1], tf.int32), "targets": tf.zeros([1, *self.image_shape], tf.uint8)},
            training=None,
        )

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """Nats of the pictures given their codes, and what the bottleneck asks for."""
        return self._forward(features, training)[0]

    def infer(self, features: Features) -> Features:
        """Rebuilds pictures from their codes.

        Returns:
          "outputs" uint8 [batch, height, width, channels], the expected pictures; "codes" int32
          [batch, *code_shape]; "nats" float32 [batch], -log P(picture | codes), in total.
        """
        return self.look(features)[1]

    def look(self, features: Features) -> tuple[ModelOutput, Features]:
        """Returns what `call` and `infer` do, for the price of one."""
        output, found, nats = self._forward(features, None)
        rebuilt = {
            "outputs": _as_bytes(self.likelihood.mean(output.logits)),
            "codes": found.codes,
            "nats": nats,
        }
        return output, rebuilt

    def _forward(
        self, features: Features, training: Training | None
    ) -> tuple[ModelOutput, BottleneckOutput, tf.Tensor]:
        """Returns the output, what the bottleneck found, and the nats of each picture, float32 [batch]."""
        pictures = features["targets"]
        found, encoded = self._discretise(pictures, training)
        quantized = found.quantized
        if training is None:  # what is judged is what the codes say; those not born yet say nothing
            quantized = self._embedded(found.codes)
        parameters = self._parameters(quantized, features["inputs"])
        nats = self._nats(parameters, pictures)
        numbers = tf.cast(tf.size(pictures), tf.float32)
        norm = tf.reduce_sum(tf.square(tf.cast(encoded, tf.float32)), axis=-1)
        output = ModelOutput(
            logits=parameters,
            losses={"nll": LossTerm(tf.reduce_sum(nats), numbers), "commitment_loss": found.loss},
            weight=numbers,
            statistics={"codes": found.statistics},
            metrics={"encoding_norm2": masked_sum(norm, tf.ones_like(norm)), **found.metrics},
        )
        return output, found, nats

    def encode(self, pictures: tf.Tensor) -> tf.Tensor:
        """Returns the codes int32 [batch, *code_shape] of `pictures` uint8 [batch, height, width, channels]."""
        return self._discretise(pictures, None)[0].codes

    def draw(self, pictures: tf.Tensor, draws: Draws) -> DrawnCodes:
        """Draws codes of `pictures` from P(z | x), where `encode` takes the likeliest; both [batch, *code_shape]."""
        return self.bottleneck.draw(self._encoded(pictures), draws)

    def nats(self, features: Features, codes: tf.Tensor) -> tf.Tensor:
        """Returns -log P(picture | codes) of `features` float32 [batch], for any `codes` int32 [batch, *code_shape]."""
        return self._nats(self._parameters(self._embedded(codes), features["inputs"]), features["targets"])

    def decode(self, codes: tf.Tensor, labels: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the expected pictures uint8 [batch, height, width, channels] of `codes` int32 [batch, *code_shape].

        `labels` int32 [batch] are for a class-conditional decoder.
        """
        return _as_bytes(self.likelihood.mean(self._parameters(self._embedded(codes), labels)))

    def interpolate(
        self, first: tf.Tensor, second: tf.Tensor, shares: Sequence[float], labels: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Decodes encodings between those of two sets of pictures, both uint8 [batch, height, width, channels].

        Args:
          shares: of `second`, from 0 to 1.
          labels: as `decode` takes them.

        Returns:
          uint8 [batch, len(shares), height, width, channels]; each mixture is discretised before it is decoded.
        """
        ends = [self._encoded(pictures) for pictures in (first, second)]
        mixed = [ends[0] + share * (ends[1] - ends[0]) for share in shares]
        codes = [self.bottleneck.e_step(encoded, None, None).codes for encoded in mixed]
        return tf.stack([self.decode(own, labels) for own in codes], axis=1)

    def _encoded(self, pictures: tf.Tensor) -> tf.Tensor:
        return self.to_codes(self.encoder(tf.cast(pictures, self.compute_dtype) / 127.5 - 1.0))

    def _embedded(self, codes: tf.Tensor) -> tf.Tensor:
        return tf.cast(self.bottleneck.embed(codes), self.compute_dtype)

    def _discretise(
        self, pictures: tf.Tensor, training: Training | None
    ) -> tuple[BottleneckOutput, tf.Tensor]:
        encoded = self._encoded(pictures)
        return self.bottleneck.e_step(encoded, None, training), encoded

    def _nats(self, parameters: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.likelihood.nats(parameters, pictures), axis=[1, 2])

    def _parameters(self, quantized: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        if self.classes is not None:
            told = tf.gather(tf.convert_to_tensor(self.classes), labels)
            quantized += tf.cast(told, quantized.dtype)[:, None, None, :]
        height, width, _ = self.image_shape
        return self.to_parameters(self.decoder(quantized)[:, :height, :width])


def _as_bytes(pictures: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(pictures), tf.uint8)
