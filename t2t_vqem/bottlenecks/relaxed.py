"""Discretisations without a nearest code: `gumbel_softmax` and `semhash`, relaxed by noise in training."""

import math
from collections.abc import Mapping

import keras
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.bottleneck import Bottleneck, BottleneckOutput, DrawnCodes, Positions, projection
from t2t_vqem.bottlenecks.checks import require, require_between, require_power_of_two
from t2t_vqem.bottlenecks.estimator import straight_through
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.bottlenecks.usage import Usage
from t2t_vqem.context import Draws, Training


class Counted(Bottleneck):
    """What bottlenecks without a codebook share: their M-step counts the codes and moves nothing else."""

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings | None = None):
        super().__init__(num_codes, dim, settings)
        self.uses = Usage(num_codes, self.settings)

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        self.uses.m_step(statistics)

    def usage(self) -> dict[str, tf.Tensor]:
        return self.uses.usage()

    def output(
        self,
        positions: Positions,
        quantized: tf.Tensor,
        codes: tf.Tensor,
        samples: tf.Tensor,
        loss: tf.Tensor,
        training: Training | None,
        **metrics: tf.Tensor,
    ) -> BottleneckOutput:
        """Returns what the contract asks for, of `quantized` [positions, dim] and the rest [positions]."""
        codes, samples = (positions.zero_padding(ids)[:, None] for ids in (codes, samples))
        return BottleneckOutput(
            quantized=positions.restore(quantized, cast=True),
            codes=positions.restore(codes),
            samples=positions.restore(samples[:, :, None]),
            loss=positions.term(loss),
            statistics={} if training is None else self.uses.counted(samples, positions.keep),
            metrics={name: positions.term(value) for name, value in metrics.items()},
        )


class Bits(Counted):
    """What codes of log2 K bits share: maps of the encoding to a number a bit, and of bits, -1 and 1, back."""

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings | None = None):
        """Raises UserError unless `num_codes` is a power of two."""
        self.bits = require_power_of_two(num_codes)
        super().__init__(num_codes, dim, settings)
        self.project_in = projection(dim, self.bits, "project_in", use_bias=True)
        self.project_out = projection(self.bits, dim, "project_out", use_bias=True)

    def parts(self, codes: tf.Tensor) -> tf.Tensor:
        return self.project_out(2.0 * to_bits(codes, self.bits) - 1.0)


@registry.bottlenecks.register("gumbel_softmax")
class GumbelSoftmax(Counted):
    """A linear map gives the logits of the codes; the sample is relaxed (Jang et al. 2017, arXiv 1611.01144).

    The relaxation's temperature is `codebook.temperature`, annealed as that is. Of the other settings the decay alone
    applies, as the window of usage.
    """

    stochastic = True

    def __init__(
        self,
        num_codes: int,
        dim: int,
        settings: CodebookSettings | None = None,
        *,
        kl_weight: float = 0.01,
        hard: bool = True,
    ):
        """Makes logits and embeddings.

        Args:
          kl_weight: of KL(posterior || uniform), in nats a position, in the loss.
          hard: whether the decoder reads one code, its gradient that of the relaxed sample (straight-through), or
            the relaxed sample itself.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__(num_codes, dim, settings)
        require_between(0, math.inf, kl_weight=kl_weight)
        require(type(hard) is bool, "hard", hard, "True or False")
        self.kl_weight = kl_weight
        self.hard = hard
        self.logits = projection(dim, num_codes, "logits", use_bias=True)
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(num_codes, dim),
            initializer=keras.initializers.RandomNormal(stddev=dim**-0.5),
            autocast=False,
        )

    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """See Bottleneck. Metric: `effective_codes`, exp(entropy of the posterior), between 1 and K."""
        positions = Positions(x, mask)
        logits, entropy = self._posterior(positions)
        codes = samples = tf.argmax(logits, axis=-1, output_type=tf.int32)
        if training is None:
            quantized = tf.gather(tf.convert_to_tensor(self.embeddings), codes)
        else:
            noise = self._noise(positions, training)
            relaxed = tf.nn.softmax((logits + noise) / self.settings.temperature_at(training))
            samples = tf.argmax(logits + noise, axis=-1, output_type=tf.int32)
            if self.hard:
                relaxed = straight_through(relaxed, tf.one_hot(samples, self.num_codes))
            quantized = tf.matmul(relaxed, self.embeddings)
        loss = self.kl_weight * (math.log(self.num_codes) - entropy)
        return self.output(
            positions, quantized, codes, samples, loss, training, effective_codes=tf.exp(entropy)
        )

    def draw(self, x: tf.Tensor, draws: Draws) -> DrawnCodes:
        positions = Positions(x, None)
        logits, entropy = self._posterior(positions)
        codes = tf.argmax(logits + self._noise(positions, draws), axis=-1, output_type=tf.int32)
        return DrawnCodes(positions.restore(codes[:, None]), positions.restore(entropy[:, None]))

    def _posterior(self, positions: Positions) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the logits [positions, codes] and the entropy of their softmax in nats [positions]."""
        logits = self.logits(positions.x)
        log_posterior = tf.nn.log_softmax(logits)
        return logits, -tf.reduce_sum(tf.exp(log_posterior) * log_posterior, axis=-1)

    def _noise(self, positions: Positions, draws: Draws) -> tf.Tensor:
        """Returns numbers of the Gumbel distribution [positions, codes]."""
        return -tf.math.log(-tf.math.log(positions.uniform(draws, self.num_codes)))

    def parts(self, codes: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.convert_to_tensor(self.embeddings), codes)


@registry.bottlenecks.register("semhash")
class SemanticHashing(Bits):
    """Bits of noisy logits: improved semantic hashing (Kaiser & Bengio 2018, arXiv 1801.09797).

    A code is log2 K bits. In training half of the positions pass bits, with the gradient of the other half's
    saturating sigmoid. Of the settings the decay alone applies, as the window of usage.
    """

    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """See Bottleneck."""
        positions = Positions(x, mask)
        logits = self.project_in(positions.x)
        codes = samples = from_bits(logits > 0.0)
        bits = tf.cast(logits > 0.0, tf.float32)
        if training is not None:
            logits += _normal(positions.uniform(training, 2 * self.bits))
            bits = tf.cast(logits > 0.0, tf.float32)
            samples = from_bits(logits > 0.0)
            saturating = tf.clip_by_value(1.2 * tf.sigmoid(logits) - 0.1, 0.0, 1.0)
            passed = positions.uniform(training)[:, None] < 0.5
            bits = tf.where(passed, straight_through(saturating, bits), saturating)
        quantized = self.project_out(2.0 * bits - 1.0)
        return self.output(positions, quantized, codes, samples, tf.zeros_like(bits[:, 0]), training)


def from_bits(bits: tf.Tensor) -> tf.Tensor:
    """Returns int32 [...], the numbers whose binary digits are bool `bits` [..., count], the lowest first."""
    return tf.reduce_sum(tf.bitwise.left_shift(tf.cast(bits, tf.int32), tf.range(bits.shape[-1])), axis=-1)


def to_bits(codes: tf.Tensor, count: int) -> tf.Tensor:
    """Returns float32 [..., count], the binary digits of `codes` int32 [...], the lowest first."""
    return tf.cast(tf.bitwise.right_shift(codes[..., None], tf.range(count)) % 2, tf.float32)


def _normal(uniform: tf.Tensor) -> tf.Tensor:
    """Returns standard normal numbers [..., n] of `uniform` ones [..., 2 n] (Box and Muller)."""
    radius, angle = tf.split(uniform, 2, axis=-1)
    return tf.sqrt(-2.0 * tf.math.log(radius)) * tf.cos(2.0 * math.pi * angle)
