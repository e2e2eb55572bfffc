"""A codebook that follows its data: birth, moving averages, revival of dead codes, usage.

Counts are in positions a step, sums in the same unit times encodings. A code's mean is a weighted mean of
encodings, as in van den Oord et al. 2017, appendix A.1, with two departures that keep it alive:

* Codes are born from data. A codebook that starts from random places and zero counts throws all codes but one
  far out of reach at its first step.
* Laplace smoothing puts its pseudo-count at the code's own place, not at the origin: a code out of use
  stays where it is until it is revived.
"""

from collections.abc import Mapping

import keras
import tensorflow as tf

from t2t_vqem.bottlenecks import membership
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.bottlenecks.usage import Usage
from t2t_vqem.fusion import recomputed

_SMOOTHING = 1e-5  # pseudo-count of the released code, in positions a step
_FAINTEST = 1e-30  # a born code's count never returns to 0, which means "not born"
_MAX_CANDIDATES = 512
_K_MEANS_STEPS = 10


class Codebook(Usage):
    """Places of `num_codes` codes in `dim` dimensions with the moving averages behind them (all float32).

    Attributes:
      learns_by_gradient: whether the loss moves codes, not the M-step alone.
    """

    learns_by_gradient = False

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings):
        super().__init__(num_codes, settings)
        self.dim = dim
        self.num_candidates = min(num_codes, _MAX_CANDIDATES)
        self.means = self._state("means", (num_codes, dim), self._first_places)
        self.counts = self._state("counts", (num_codes,), self._first_counts)
        self.sums = self._state("sums", (num_codes, dim))
        if settings.init == "released":
            self.sums.assign(self.means)
        self.births = self._state("births", ())

    def _first_places(self, shape: tuple[int, ...], dtype: str) -> tf.Tensor:
        if self.settings.init == "released":  # tf.uniform_unit_scaling_initializer of TensorFlow 1
            bound = (3.0 / self.num_codes) ** 0.5
            return keras.random.uniform(shape, -bound, bound, dtype=dtype)
        if self.settings.init == "random":
            return scaled(keras.random.normal(shape, dtype=dtype), self.settings.norm or 1.0)
        return tf.zeros(shape, dtype)

    def _first_counts(self, shape: tuple[int, ...], dtype: str) -> tf.Tensor:
        born = self.settings.init in ("random", "released")
        return tf.fill(shape, tf.constant(_FAINTEST if born else 0.0, dtype))

    def places(self) -> tf.Tensor:
        """Returns the codes [num_codes, dim]."""
        return tf.convert_to_tensor(self.means)

    def born(self) -> tf.Tensor:
        """Returns bool [num_codes]: which codes have a place."""
        return tf.convert_to_tensor(self.counts) > 0.0

    def embed(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns [..., dim] for `codes` int [...]."""
        return tf.gather(self.places(), codes)

    def statistics(
        self, x: tf.Tensor, samples: tf.Tensor, mask: tf.Tensor, draws: tf.Tensor, positions: int | tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns the statistics that `m_step` takes, a dict of float32 tensors that add over positions.

        Args:
          x: encodings [positions, dim].
          samples: int32 [positions, m].
          mask: bool [positions].
          draws: uniform numbers [positions] that choose the candidates for birth and revival. Each position
            falls into one of `positions` slots, and only the first `num_candidates` of them are kept.
          positions: number of positions, padding included, of the global batch.
        """
        # Before the first birth there is no code to count; negative ones are dropped.
        counted = tf.logical_and(mask[:, None], tf.reduce_any(self.born()))
        samples = tf.where(counted, samples, -1)
        slots = tf.cast(tf.maximum(positions, self.num_candidates), tf.float32)
        slot = tf.cast(draws * slots, tf.int32)
        slot = tf.where(tf.logical_and(mask, slot < self.num_candidates), slot, -1)
        ones = tf.ones_like(draws)
        return {
            "positions": tf.reduce_sum(tf.cast(mask, tf.float32)),
            "counts": membership.sums(samples, ones, self.num_codes),
            "sums": membership.sums(samples, x, self.num_codes),
            "candidate_counts": tf.math.unsorted_segment_sum(ones, slot, self.num_candidates),
            "candidate_sums": tf.math.unsorted_segment_sum(x, slot, self.num_candidates),
        }

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        """Moves averages and codes towards `statistics`, then gives new places to unborn and dead codes."""
        decay, born = self._decay(), self.born()
        counts = decay * self.counts + (1.0 - decay) * statistics["counts"]
        counts = tf.where(born, tf.maximum(counts, _FAINTEST), counts)
        means, sums = self._moved(statistics, counts, decay)
        if self.settings.cosine:
            means = scaled(means, self.settings.norm)

        dead = tf.logical_or(tf.logical_not(born), self._dead(counts))
        revived, places = self._places(dead, statistics)
        count = statistics["positions"] / self.num_codes
        column = revived[:, None]
        self.means.assign(tf.where(column, places, means))
        self.counts.assign(tf.where(revived, count, counts))
        self.sums.assign(tf.where(column, count * places, sums))
        self._forget(revived)
        # Revival lends a code its counts; usage speaks of the positions that really took it.
        super().m_step(statistics)
        self.births.assign(self.births + tf.reduce_sum(tf.cast(revived, tf.float32)))

    def _decay(self) -> tf.Tensor:
        """As `Usage`'s; but in k-means nothing is remembered, and the released code's is constant."""
        if self.settings.init == "released":
            return tf.constant(self.settings.decay)
        if self.settings.init == "k_means":
            return tf.where(self.updates <= _K_MEANS_STEPS, 0.0, super()._decay())
        return super()._decay()

    def _forget(self, revived: tf.Tensor) -> None:
        """Forgets what else is remembered of the codes (bool [num_codes]) that have got a new place."""

    def _moved(
        self, statistics: Mapping[str, tf.Tensor], counts: tf.Tensor, decay: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the new codes and the new moving average of sums, both [num_codes, dim]."""
        sums = decay * self.sums + (1.0 - decay) * statistics["sums"]
        return _smoothed(sums, counts, self.places()), sums

    def _dead(self, counts: tf.Tensor) -> tf.Tensor:
        """Returns bool [num_codes]: which codes have too few positions; none while no code has any."""
        share = tf.reduce_sum(counts) / self.num_codes
        return counts < self.settings.revival_threshold * share

    def _places(self, dead: tf.Tensor, statistics: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns which `dead` codes get a candidate (bool [num_codes]) and its place [num_codes, dim].

        Only slots that a single position fell into serve: a mean of several lies where no encoding is.
        """
        single = statistics["candidate_counts"] == 1.0
        order = tf.argsort(tf.cast(tf.logical_not(single), tf.int32), stable=True)
        rank = tf.cumsum(tf.cast(dead, tf.int32), exclusive=True)
        revived = tf.logical_and(dead, rank < tf.reduce_sum(tf.cast(single, tf.int32)))
        slot = tf.gather(order, tf.minimum(rank, self.num_candidates - 1))
        return revived, tf.gather(statistics["candidate_sums"], slot)

    def settle(self) -> None:
        """Moves each code to where its counts and sums say, when these are means over several checkpoints.

        Its place is then the mean of its places weighted by its counts: a code that died and was revived
        elsewhere in between had next to no count at the old place, and lies at the new one, not half-way.
        """
        sums, counts, old = (tf.convert_to_tensor(v) for v in (self.sums, self.counts, self.means))
        means = _smoothed(sums, counts, old)
        self.means.assign(scaled(means, self.settings.norm) if self.settings.cosine else means)

    def usage(self) -> dict[str, tf.Tensor]:
        """As `Usage`'s, and `births`, the codes born or revived since the start."""
        return super().usage() | {"births": tf.convert_to_tensor(self.births)}


def scaled(x: tf.Tensor, norm: float | None) -> tf.Tensor:
    """Returns `x` [..., dim] brought to squared norm `norm`; zeros stay zeros. None leaves it as it is."""
    return x if norm is None else _scaled(x, norm)


@recomputed
def _scaled(x: tf.Tensor, norm: float) -> tf.Tensor:
    return x * tf.math.rsqrt(tf.reduce_sum(tf.square(x), -1, keepdims=True) / norm + 1e-12)


def _smoothed(sums: tf.Tensor, counts: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """Returns the means [num_codes, dim] with Laplace smoothing towards the `old` ones."""
    return (sums + _SMOOTHING * old) / (counts + _SMOOTHING)[:, None]
