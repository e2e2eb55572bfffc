"""Distributions over pictures whose numbers are 0 .. 255: what a decoder's outputs mean, in nats.

All are distributions over whole numbers, so that their nats are those of a code: none is a density.
"""

import abc
import math

import numpy as np
import tensorflow as tf

from t2t_vqem.fusion import recomputed
from t2t_vqem.layers.losses import cross_entropy

LEVELS = 256
_LEAST_LOG_SCALE = -7.0  # in units where the levels span 2: an eighth of a level, as in arXiv 1701.05517
_FIRST_LOG_SCALE = -2.0  # 17 levels: what a decoder that reads codes errs by after some hundred steps
_HALF = 1.0 / (LEVELS - 1)  # of a level's width, in the same units


class Likelihood(abc.ABC):
    """P(picture | parameters), the pixels independent of each other.

    Attributes:
      size: parameters of a pixel.
      start: float32 [size], what parameters are at first: scales in reach of where training takes them.
    """

    size: int
    start: np.ndarray

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
        self.start = np.zeros(self.size, np.float32)

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


class Gaussian(Likelihood):
    """A Gaussian for each number, whose mean and variance the decoder says; a level has the mass of its rounding."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.size = 2 * channels
        self.start = np.repeat([0.0, _FIRST_LOG_SCALE], channels).astype(np.float32)

    @recomputed
    def nats(self, parameters: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        """See Likelihood."""
        values = _centred(pictures)
        means, log_scales = self._split(parameters)
        inverse = tf.exp(-log_scales)
        upper, lower = ((values - means + side) * inverse for side in (_HALF, -_HALF))
        # Far out both bounds' masses round to the same number: there the density times the width stands in.
        inner = _normal_mass(upper) - _normal_mass(lower)
        density = _log_normal_density((values - means) * inverse) - log_scales + math.log(2.0 * _HALF)
        close = tf.where(inner > 1e-5, tf.math.log(tf.maximum(inner, 1e-12)), density)
        low, high = _ends(values)
        mass = tf.where(low, _log_normal_mass(upper), tf.where(high, _log_normal_mass(-lower), close))
        return -tf.reduce_sum(mass, axis=-1)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """See Likelihood; the mean before rounding, within 0 .. 255."""
        return _levels(self._split(parameters)[0])

    def _split(self, parameters: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        means, log_scales = tf.split(tf.cast(parameters, tf.float32), 2, axis=-1)
        return means, tf.maximum(log_scales, _LEAST_LOG_SCALE)


def _normal_mass(x: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-x * math.sqrt(0.5))


def _log_normal_mass(x: tf.Tensor) -> tf.Tensor:
    # Below -5 erfc loses its digits; there the first terms of the asymptotic series are better.
    far = tf.minimum(x, -5.0)
    series = _log_normal_density(far) - tf.math.log(-far) + tf.math.log1p(-1.0 / far**2 + 3.0 / far**4)
    return tf.where(x < -5.0, series, tf.math.log(_normal_mass(tf.maximum(x, -5.0))))


def _log_normal_density(x: tf.Tensor) -> tf.Tensor:
    return -0.5 * (tf.square(x) + math.log(2.0 * math.pi))


class LogisticMixture(Likelihood):
    """A mixture of logistics for each pixel, whose channels depend on each other (PixelCNN++, arXiv 1701.05517).

    In a component the mean of a channel is shifted by a linear function of the channels before it. Of these their
    deviations from their own means enter, so that a mean is learnt whatever the slopes are.
    """

    def __init__(self, channels: int, components: int = 10):
        super().__init__(channels)
        self.components = components
        self._pairs = channels * (channels - 1) // 2
        self.size = components * (1 + 2 * channels + self._pairs)
        counts = np.array([1 + channels, channels, self._pairs]) * components
        self.start = np.repeat([0.0, _FIRST_LOG_SCALE, 0.0], counts).astype(np.float32)

    def nats(self, parameters: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        """See Likelihood."""
        return tf.reshape(
            self._nats(_as_rows(parameters), _as_rows(_centred(pictures))), _shape(pictures)[:-1]
        )

    @recomputed
    def _nats(self, parameters: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Returns nats [pixels] of rows: with the pixels innermost, a CPU works on many of them at once."""
        weights, means, log_scales, slopes = self._split(parameters)
        shifted, deviations = [], []
        for at, mean in enumerate(tf.unstack(means)):
            first = at * (at - 1) // 2
            shifted.append(tf.add_n([mean, *(slopes[first + n] * deviations[n] for n in range(at))]))
            deviations.append(values[at] - shifted[-1])
        mass = _log_logistic_mass(values[:, None], tf.stack(shifted), log_scales)
        return -tf.reduce_logsumexp(tf.nn.log_softmax(weights, axis=0) + tf.reduce_sum(mass, axis=0), axis=0)

    def mean(self, parameters: tf.Tensor) -> tf.Tensor:
        """See Likelihood; the mean before rounding, each component's within 0 .. 255."""
        weights, means, *_ = self._split(_as_rows(parameters))
        mixed = tf.reduce_sum(tf.nn.softmax(weights, axis=0) * tf.clip_by_value(means, -1.0, 1.0), axis=1)
        return tf.reshape(_levels(tf.transpose(mixed)), [*_shape(parameters)[:-1], self.channels])

    def _split(self, rows: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns log weights [components, pixels] and [channels or pairs, components, pixels] of the others.

        These are means, log scales, slopes.
        """
        counts = [1, self.channels, self.channels, self._pairs]
        parts = tf.reshape(rows, [sum(counts), self.components, -1])
        weights, means, log_scales, slopes = tf.split(parts, counts)
        return weights[0], means, tf.maximum(log_scales, _LEAST_LOG_SCALE), tf.tanh(slopes)


def _as_rows(x: tf.Tensor) -> tf.Tensor:
    """Returns float32 [size, pixels] of [batch, height, width, size]."""
    return tf.transpose(tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[-1]]))


def _log_logistic_mass(values: tf.Tensor, means: tf.Tensor, log_scales: tf.Tensor) -> tf.Tensor:
    """Returns log(F(upper) - F(lower)) of the bounds of levels in [-1, 1]; the three broadcast against each other.

    With F the logistic function it equals log F(upper) + log F(-lower) + log(1 - exp(lower - upper)), a sum that
    loses no digits however far out the bounds are.
    """
    inverse = tf.exp(-log_scales)
    centred = (values - means) * inverse
    half = _HALF * inverse
    low, high = _ends(values)
    under = tf.where(high, 0.0, tf.nn.softplus(-(centred + half)))
    over = tf.where(low, 0.0, tf.nn.softplus(centred - half))
    width = tf.maximum(2.0 * half, 1e-6)  # 1 - exp(-w) is w where this binds
    between = math.log(2.0 * _HALF) - log_scales + tf.math.log(-tf.math.expm1(-width) / width)
    return tf.where(low | high, 0.0, between) - under - over


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "softmax": Softmax,
    "logistic_mixture": LogisticMixture,
    "gaussian": Gaussian,
}


def _centred(pictures: tf.Tensor) -> tf.Tensor:
    return tf.cast(pictures, tf.float32) * (2.0 / (LEVELS - 1)) - 1.0


def _ends(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Tells which of `values` are the lowest and the highest level; these have what lies beyond them too."""
    return values < _HALF - 1.0, values > 1.0 - _HALF


def _levels(values: tf.Tensor) -> tf.Tensor:
    return (tf.clip_by_value(values, -1.0, 1.0) + 1.0) * ((LEVELS - 1) / 2.0)


def _shape(x: tf.Tensor) -> list[int | tf.Tensor]:
    return [size if size is not None else tf.shape(x)[axis] for axis, size in enumerate(x.shape)]
