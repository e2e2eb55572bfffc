"""Vector quantisation by expectation maximisation: `hard_em` and `soft_em`; Roy et al., arXiv:1805.11063.

Both read the posterior P(code | x) ~ exp(-|x - code|^2 / temperature). Hard EM takes its mode, soft EM draws
m samples of it; everything else, defaults included, is shared, so that one name compares them under equal
conditions.

The scale of x is the other half of the temperature. Encodings of a trained encoder have squared norms in the
thousands, where the posterior is one-hot and soft EM is hard EM in disguise. So x is first brought to squared
norm `norm`; the metric `effective_codes`, exp(entropy of the posterior), says how soft the result is.
"""

import math
from collections.abc import Mapping

import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.bottleneck import Bottleneck, BottleneckOutput, require
from t2t_vqem.bottlenecks.codebook import Codebook
from t2t_vqem.context import LossTerm, Training


@registry.bottlenecks.register("hard_em")
class HardEM(Bottleneck):
    """Each position takes its nearest code."""

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        norm: float | None = 32.0,
        temperature: float = 1.0,
        decay: float = 0.99,
        beta: float = 0.25,
        revival_threshold: float = 0.05,
        warmup_steps: int = 100,
    ):
        """Makes an unborn codebook; the first M-steps fill it from data.

        Args:
          num_codes: K, at least 2.
          dim: size of an encoding.
          norm: squared norm that encodings are scaled to; None leaves them as they come.
          temperature: of the posterior. The published formula has 1; 2 is a Gaussian of unit variance.
          decay: of the moving averages of counts and sums, in [0, 1); they last about 1 / (1 - decay) steps.
          beta: weight of the commitment loss.
          revival_threshold: a code with less than this part of a uniform share of the positions is dead and
            is moved onto an encoding of the batch; 0 leaves dead codes alone.
          warmup_steps: for so many steps of training the decoder reads the encodings themselves and no
            commitment is asked, while the codebook already follows them.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__(num_codes, dim)
        require(norm is None or norm > 0, "norm", norm, "None or above 0")
        require(temperature > 0, "temperature", temperature, "above 0")
        require(0 <= decay < 1, "decay", decay, "in [0, 1)")
        require(beta >= 0, "beta", beta, "0 or more")
        require(0 <= revival_threshold < 1, "revival_threshold", revival_threshold, "in [0, 1)")
        require(warmup_steps >= 0, "warmup_steps", warmup_steps, "0 or more")
        self.norm = norm
        self.temperature = temperature
        self.beta = beta
        self.warmup_steps = warmup_steps
        self.codebook = Codebook(num_codes, dim, decay=decay, revival_threshold=revival_threshold)
        self.built = True

    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """See Bottleneck. Until a code is born `quantized` is `x` (brought to `norm`) and the codes are 0.

        Metrics: `effective_codes`, exp(entropy of the posterior), between 1 and K; `quantization_error`,
        |x - quantized|^2 / |x|^2. Both also speak of the warm-up, where the decoder does not read the codes.
        """
        x = tf.convert_to_tensor(x)
        shape = [size if size is not None else tf.shape(x)[i] for i, size in enumerate(x.shape)]
        batch, inner = shape[0], shape[1:-1]
        if mask is None:
            mask = tf.ones(shape[:-1], tf.bool)
        keep = tf.reshape(tf.cast(mask, tf.bool), [-1])
        dtype = x.dtype
        x = tf.where(keep[:, None], tf.reshape(tf.cast(x, tf.float32), [-1, self.dim]), 0.0)
        if self.norm is not None:
            x *= tf.math.rsqrt(tf.reduce_sum(tf.square(x), -1, keepdims=True) / self.norm + 1e-12)
        fixed = tf.stop_gradient(x)

        any_born = tf.reduce_any(self.codebook.born())
        active = tf.logical_and(keep, any_born)
        logits = self.codebook.negative_distances(fixed) / self.temperature
        posterior, effective_codes = _posterior(logits)
        codes = tf.where(active, tf.argmax(logits, axis=-1, output_type=tf.int32), 0)
        if training is None:
            samples = codes[:, None]
        else:
            samples = tf.where(active[:, None], self._samples(codes, posterior, training, batch, inner), 0)
        nearest = tf.where(active[:, None], tf.reduce_mean(self.codebook.embed(samples), axis=1), fixed)

        squared = tf.reduce_sum(tf.square(x - nearest), axis=-1)
        weight = tf.reduce_sum(tf.cast(keep, tf.float32))
        loss = tf.reduce_sum(squared) * (self.beta / self.dim)
        quantized = x + tf.stop_gradient(nearest - x)
        statistics = {}
        if training is not None:
            warmed_up = training.step >= self.warmup_steps
            quantized = tf.where(warmed_up, quantized, x)
            loss = tf.where(warmed_up, loss, 0.0)
            draws = tf.reshape(training.uniform([batch, *inner]), [-1])
            positions = math.prod(inner) * training.global_rows
            statistics = self.codebook.statistics(fixed, samples, keep, draws, positions)
        measured = tf.cast(active, tf.float32)
        measurements = tf.reduce_sum(measured)
        error = tf.math.divide_no_nan(tf.stop_gradient(squared), tf.reduce_sum(tf.square(fixed), axis=-1))
        quantized = tf.where(keep[:, None], quantized, 0.0)
        return BottleneckOutput(
            quantized=tf.reshape(tf.cast(quantized, dtype), [batch, *inner, self.dim]),
            codes=tf.reshape(codes, [batch, *inner]),
            samples=tf.reshape(samples, [batch, *inner, samples.shape[-1]]),
            loss=LossTerm(loss, weight),
            statistics=statistics,
            metrics={
                "effective_codes": LossTerm(tf.reduce_sum(measured * effective_codes), measurements),
                "quantization_error": LossTerm(tf.reduce_sum(measured * error), measurements),
            },
        )

    def _samples(
        self, codes: tf.Tensor, posterior: tf.Tensor, training: Training, batch: int | tf.Tensor, inner: list
    ) -> tf.Tensor:
        """Returns the codes that stand for each position, int32 [positions, m]."""
        return codes[:, None]

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        self.codebook.m_step(statistics)

    def settle(self) -> None:
        self.codebook.settle()

    def embed(self, codes: tf.Tensor) -> tf.Tensor:
        return self.codebook.embed(codes)

    def usage(self) -> dict[str, tf.Tensor]:
        return self.codebook.usage()


@registry.bottlenecks.register("soft_em")
class SoftEM(HardEM):
    """Each position takes the mean of `num_samples` codes drawn from its posterior."""

    def __init__(
        self,
        num_codes: int,
        dim: int,
        *,
        num_samples: int = 10,
        norm: float | None = 32.0,
        temperature: float = 1.0,
        decay: float = 0.99,
        beta: float = 0.25,
        revival_threshold: float = 0.05,
        warmup_steps: int = 100,
    ):
        """As HardEM; `num_samples` is m, at least 1 (1 is stochastic hard EM, not the argmin)."""
        super().__init__(
            num_codes,
            dim,
            norm=norm,
            temperature=temperature,
            decay=decay,
            beta=beta,
            revival_threshold=revival_threshold,
            warmup_steps=warmup_steps,
        )
        whole = type(num_samples) is int and num_samples >= 1
        require(whole, "num_samples", num_samples, "a whole number, at least 1")
        self.num_samples = num_samples

    def _samples(
        self, codes: tf.Tensor, posterior: tf.Tensor, training: Training, batch: int | tf.Tensor, inner: list
    ) -> tf.Tensor:
        draws = training.uniform([batch, *inner, self.num_samples])
        return sample(posterior, tf.reshape(draws, [-1, self.num_samples]))


def _posterior(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns softmax(logits) without its normaliser, and exp(entropy), [positions, codes] and [positions].

    What lies below the largest by a factor of e^-60 is 0, far under the resolution of the draws (2^-24), so
    that no subnormal number exists that one operation flushes to 0 and another does not.
    """
    logits -= tf.reduce_max(logits, axis=-1, keepdims=True)
    weights = tf.where(logits > -60.0, tf.exp(logits), 0.0)
    total = tf.reduce_sum(weights, axis=-1)
    entropy = tf.math.log(total) - tf.reduce_sum(weights * logits, axis=-1) / total
    return weights, tf.exp(entropy)


def sample(weights: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Draws codes by inverting the cumulative distribution, in two levels.

    A block of about sqrt(K) codes is chosen by the blocks' masses, then a code in it. This holds
    [positions, m, sqrt(K)] numbers; a cumulative sum over all K codes and a search in it take several times
    as long, and XLA's own categorical makes noise for every position, sample and code.

    Args:
      weights: [positions, codes], not negative, not all 0; they need not add to 1.
      draws: [positions, m], uniform in (0, 1).

    Returns:
      int32 [positions, m], always codes of positive weight.
    """
    num_codes = weights.shape[-1]
    width = math.isqrt(num_codes - 1) + 1
    blocks = -(-num_codes // width)
    weights = tf.pad(weights, [[0, 0], [0, blocks * width - num_codes]])
    weights = tf.reshape(weights, [-1, blocks, width])
    masses = tf.reduce_sum(weights, axis=-1)
    edges = tf.cumsum(masses, axis=-1)
    targets = draws * edges[:, -1:]
    block = _first_above(edges[:, None, :], masses[:, None, :], targets)
    rest = targets - tf.gather(edges - masses, block, batch_dims=1)
    inside = tf.gather(weights, block, batch_dims=1)
    return block * width + _first_above(tf.cumsum(inside, axis=-1), inside, rest)


def _first_above(edges: tf.Tensor, masses: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Returns the first index of positive mass whose edge [..., n] lies above its target [...].

    Rounding can leave a target above the last edge: it gets the last index of positive mass.
    """
    size = masses.shape[-1]
    index = tf.range(size)
    last = tf.reduce_max(tf.where(masses > 0.0, index, 0), axis=-1)
    above = tf.logical_and(edges > targets[..., None], masses > 0.0)
    return tf.minimum(tf.reduce_min(tf.where(above, index, size), axis=-1), last)
