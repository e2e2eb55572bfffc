"""Distributions over pictures whose numbers are 0 .. 255: what a decoder's outputs mean, in nats.

All are distributions over whole numbers, so that their nats are those of a code: none is a density.
"""

import abc
import math

import tensorflow as tf

from t2t_vqem.fusion import fused
from t2t_vqem.layers.losses import cross_entropy

LEVELS = 256
_LEAST_LOG_SCALE = -7.0  # in units where the levels span 2: an eighth of a level, as in arXiv 1701.05517


class Likelihood(abc.ABC):
    """P(picture | parameters), the pixels independent of each other.

    Attributes:
      size: parameters of a pixel.
    """

    size: int

    def __init__(self, channels: int):
        self.channels = channels

    @abc.abstractmethod
    def nats(self, parameters: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        """Returns -log P, float32 [batch, height, width], of `pictures` uint8 [batch, height, width, channels].

        `parameters` is [batch, height, width, size].
        """

    @abc.abstractmethod
    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """Returns the expected pictures, float32 [batch, height, width, channels] from 0 to 255."""


class Softmax(Likelihood):
    """A softmax over 256 levels for each number of a picture (arXiv 1711.00937's choice for CIFAR-10)."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.size = channels * LEVELS

    def nats(self, parameters: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        """See Likelihood."""
        labels = tf.reshape(tf.cast(pictures, tf.int32), [-1])
        nats = cross_entropy(tf.reshape(parameters, [-1, LEVELS]), labels)
        return tf.reduce_sum(tf.reshape(nats, tf.shape(pictures)), axis=-1)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """See Likelihood."""
        return tf.linalg.matvec(tf.nn.softmax(self._logits(parameters)), tf.range(LEVELS, dtype=tf.float32))

    def _logits(self, parameters: tf.Tensor) -> tf.Tensor:
        shape = [*_shape(parameters)[:-1], self.channels, LEVELS]
        return tf.cast(tf.reshape(parameters, shape), tf.float32)


class _Rounded(Likelihood):
    """A continuous distribution over [-1, 1] whose mass between two roundings is that of a level.

    The lowest and the highest level take what lies beyond.
    """

    def _log_mass(self, values: tf.Tensor, means: tf.Tensor, log_scales: tf.Tensor) -> tf.Tensor:
        """Returns log P of `values` in [-1, 1] that are levels; the three broadcast against each other."""
        half = 1.0 / (LEVELS - 1)
        inverse = tf.exp(-log_scales)
        upper, lower = ((values - means + side) * inverse for side in (half, -half))
        low, high = values < -1.0 + half, values > 1.0 - half
        # Far out both bounds' masses round to the same number: there the density times the width stands in.
        inner = self._cumulative(upper) - self._cumulative(lower)
        density = self._log_density((values - means) * inverse) - log_scales + math.log(2.0 * half)
        close = tf.where(inner > 1e-5, tf.math.log(tf.maximum(inner, 1e-12)), density)
        return tf.where(low, self._log_cumulative(upper), tf.where(high, self._log_cumulative(-lower), close))

    @abc.abstractmethod
    def _cumulative(self, x: tf.Tensor) -> tf.Tensor: ...

    @abc.abstractmethod
    def _log_cumulative(self, x: tf.Tensor) -> tf.Tensor: ...

    @abc.abstractmethod
    def _log_density(self, x: tf.Tensor) -> tf.Tensor: ...


class Gaussian(_Rounded):
    """A Gaussian for each number, whose mean and variance the decoder says."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.size = 2 * channels

    @fused
    def nats(self, parameters: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        """See Likelihood."""
        return -tf.reduce_sum(self._log_mass(_centred(pictures), *self._split(parameters)), axis=-1)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """See Likelihood; the mean before rounding, within 0 .. 255."""
        return _levels(self._split(parameters)[0])

    def _split(self, parameters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        means, log_scales = tf.split(tf.cast(parameters, tf.float32), 2, axis=-1)
        return means, tf.maximum(log_scales, _LEAST_LOG_SCALE)

    def _cumulative(self, x: tf.Tensor) -> tf.Tensor:
        return 0.5 * tf.math.erfc(-x * math.sqrt(0.5))

    def _log_cumulative(self, x: tf.Tensor) -> tf.Tensor:
        # Below -5 erfc loses its digits; there the first terms of the asymptotic series are better.
        far = tf.minimum(x, -5.0)
        series = self._log_density(far) - tf.math.log(-far) + tf.math.log1p(-1.0 / far**2 + 3.0 / far**4)
        return tf.where(x < -5.0, series, tf.math.log(self._cumulative(tf.maximum(x, -5.0))))

    def _log_density(self, x: tf.Tensor) -> tf.Tensor:
        return -0.5 * (tf.square(x) + math.log(2.0 * math.pi))


class LogisticMixture(_Rounded):
    """A mixture of logistics for each pixel, whose channels depend on each other (PixelCNN++, arXiv 1701.05517).

    In a component the mean of a channel is shifted by a linear function of the channels before it.
    """

    def __init__(self, channels: int, components: int = 10):
        super().__init__(channels)
        self.components = components
        self._pairs = channels * (channels - 1) // 2
        self.size = components * (1 + 2 * channels + self._pairs)

    @fused
    def nats(self, parameters: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        """See Likelihood."""
        weights, means, log_scales, slopes = self._split(parameters)
        values = _centred(pictures)[..., None]
        means = [
            mean + self._shift(channel, slopes, tf.unstack(values, axis=-2))
            for channel, mean in enumerate(tf.unstack(means, axis=-2))
        ]
        mass = tf.reduce_sum(self._log_mass(values, tf.stack(means, axis=-2), log_scales), axis=-2)
        return -tf.reduce_logsumexp(tf.nn.log_softmax(weights) + mass, axis=-1)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """See Likelihood; the mean before rounding, each component's within 0 .. 255."""
        weights, means, _, slopes = self._split(parameters)
        found: list[tf.Tensor] = []
        for channel, mean in enumerate(tf.unstack(means, axis=-2)):
            found.append(tf.clip_by_value(mean + self._shift(channel, slopes, found), -1.0, 1.0))
        weighted = tf.nn.softmax(weights)[..., None, :] * tf.stack(found, axis=-2)
        return _levels(tf.reduce_sum(weighted, axis=-1))

    def _shift(self, channel: int, slopes: tf.Tensor, before: list[tf.Tensor]) -> tf.Tensor | float:
        first = channel * (channel - 1) // 2
        terms = [slopes[..., first + other, :] * before[other] for other in range(channel)]
        return tf.add_n(terms) if terms else 0.0

    def _split(self, parameters: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns log weights [..., components], and means, log scales, slopes [..., channels or pairs, components]."""
        counts = [1, self.channels, self.channels, self._pairs]
        parts = tf.reshape(
            tf.cast(parameters, tf.float32), [*_shape(parameters)[:-1], sum(counts), self.components]
        )
        weights, means, log_scales, slopes = tf.split(parts, counts, axis=-2)
        return weights[..., 0, :], means, tf.maximum(log_scales, _LEAST_LOG_SCALE), tf.tanh(slopes)

    def _cumulative(self, x: tf.Tensor) -> tf.Tensor:
        return tf.sigmoid(x)

    def _log_cumulative(self, x: tf.Tensor) -> tf.Tensor:
        return -tf.nn.softplus(-x)

    def _log_density(self, x: tf.Tensor) -> tf.Tensor:
        return x - 2.0 * tf.nn.softplus(x)


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "softmax": Softmax,
    "logistic_mixture": LogisticMixture,
    "gaussian": Gaussian,
}


def _centred(pictures: tf.Tensor) -> tf.Tensor:
    return tf.cast(pictures, tf.float32) * (2.0 / (LEVELS - 1)) - 1.0


def _levels(values: tf.Tensor) -> tf.Tensor:
    return (tf.clip_by_value(values, -1.0, 1.0) + 1.0) * ((LEVELS - 1) / 2.0)


def _shape(x: tf.Tensor) -> list[int | tf.Tensor]:
    return [size if size is not None else tf.shape(x)[axis] for axis, size in enumerate(x.shape)]
