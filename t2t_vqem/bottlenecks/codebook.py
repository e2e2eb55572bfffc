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

_SMOOTHING = 1e-5  # pseudo-count of the released code, in positions a step
_FAINTEST = 1e-30  # a born code's count never returns to 0, which means "not born"
_MAX_CANDIDATES = 512
LIVE_SHARE = 0.05  # a live code has at least this part of a uniform share of the positions


class Codebook(keras.layers.Layer):
    """Places of `num_codes` codes in `dim` dimensions with the moving averages behind them (all float32)."""

    def __init__(self, num_codes: int, dim: int, *, decay: float, revival_threshold: float):
        super().__init__(dtype="float32")
        self.num_codes = num_codes
        self.dim = dim
        self.decay = decay
        self.revival_threshold = revival_threshold
        self.num_candidates = min(num_codes, _MAX_CANDIDATES)
        self.means = self._state("means", (num_codes, dim))
        self.counts = self._state("counts", (num_codes,))
        self.sums = self._state("sums", (num_codes, dim))
        self.hits = self._state("hits", (num_codes,))
        self.updates = self._state("updates", ())
        self.births = self._state("births", ())
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        # autocast=False: inside a bfloat16 model Keras would hand out rounded codes.
        return self.add_weight(
            name=name, shape=shape, initializer="zeros", trainable=False, dtype="float32", autocast=False
        )

    def born(self) -> tf.Tensor:
        """Returns bool [num_codes]: which codes have a place."""
        return tf.convert_to_tensor(self.counts) > 0.0

    def negative_distances(self, x: tf.Tensor) -> tf.Tensor:
        """Returns |x|^2 - |x - code|^2 [positions, num_codes] of `x` [positions, dim], -1e30 if unborn.

        The term |x|^2 is the same for all codes: neither the argmin nor the posterior depends on it.
        """
        means = tf.convert_to_tensor(self.means)
        negative = 2.0 * tf.matmul(x, means, transpose_b=True) - tf.reduce_sum(tf.square(means), axis=-1)
        return tf.where(self.born(), negative, -1e30)

    def embed(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns [..., dim] for `codes` int [...]."""
        return tf.gather(tf.convert_to_tensor(self.means), codes)

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
        m = samples.shape[-1]
        # Before the first birth there is no code to count; segment_sum drops negative ids.
        counted = tf.logical_and(mask[:, None], tf.reduce_any(self.born()))
        ids = tf.reshape(tf.where(counted, samples, -1), [-1])
        slots = tf.cast(tf.maximum(positions, self.num_candidates), tf.float32)
        slot = tf.cast(draws * slots, tf.int32)
        slot = tf.where(tf.logical_and(mask, slot < self.num_candidates), slot, -1)
        weights = tf.ones_like(ids, tf.float32) / m
        return {
            "positions": tf.reduce_sum(tf.cast(mask, tf.float32)),
            "counts": tf.math.unsorted_segment_sum(weights, ids, self.num_codes),
            "sums": tf.math.unsorted_segment_sum(tf.repeat(x / m, m, axis=0), ids, self.num_codes),
            "candidate_counts": tf.math.unsorted_segment_sum(tf.ones_like(draws), slot, self.num_candidates),
            "candidate_sums": tf.math.unsorted_segment_sum(x, slot, self.num_candidates),
        }

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        """Moves averages and codes towards `statistics`, then gives new places to unborn and dead codes.

        The decay grows as (1 + updates) / (10 + updates) up to its value, so that a young codebook follows
        the moving encodings of a young encoder.
        """
        updates = tf.convert_to_tensor(self.updates)
        decay = tf.minimum(self.decay, (1.0 + updates) / (10.0 + updates))
        old = tf.convert_to_tensor(self.means)
        born = self.born()
        counts = decay * self.counts + (1.0 - decay) * statistics["counts"]
        counts = tf.where(born, tf.maximum(counts, _FAINTEST), counts)
        sums = decay * self.sums + (1.0 - decay) * statistics["sums"]
        means = _smoothed(sums, counts, old)

        share = tf.reduce_sum(counts) / self.num_codes
        dead = tf.logical_or(tf.logical_not(born), counts < self.revival_threshold * share)
        revived, places = self._places(dead, statistics)
        count = statistics["positions"] / self.num_codes
        column = revived[:, None]
        self.means.assign(tf.where(column, places, means))
        self.counts.assign(tf.where(revived, count, counts))
        self.sums.assign(tf.where(column, count * places, sums))
        # Revival lends a code its counts; usage must speak of the positions that really took it.
        self.hits.assign(decay * self.hits + (1.0 - decay) * statistics["counts"])
        self.updates.assign(updates + 1.0)
        self.births.assign(self.births + tf.reduce_sum(tf.cast(revived, tf.float32)))

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
        self.means.assign(_smoothed(sums, counts, old))

    def usage(self) -> dict[str, tf.Tensor]:
        """Returns `perplexity`, `live_codes`, `births` (scalars) and `counts` [num_codes].

        Counts are positions a step, a moving average over the last 1 / (1 - decay) steps or so, without what
        birth and revival lent. The perplexity is exp(their entropy); a code is live if it has at least
        LIVE_SHARE of a uniform share. All are 0 before the first birth. `births` counts the codes born or
        revived since the start.
        """
        counts = tf.convert_to_tensor(self.hits)
        total = tf.reduce_sum(counts)
        probabilities = tf.math.divide_no_nan(counts, total)
        entropy = -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities))
        live = tf.logical_and(counts > 0.0, counts >= LIVE_SHARE * total / self.num_codes)
        return {
            "perplexity": tf.where(total > 0.0, tf.exp(entropy), 0.0),
            "live_codes": tf.reduce_sum(tf.cast(live, tf.float32)),
            "births": tf.convert_to_tensor(self.births),
            "counts": counts,
        }


def _smoothed(sums: tf.Tensor, counts: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """Returns the means [num_codes, dim] with Laplace smoothing towards the `old` ones."""
    return (sums + _SMOOTHING * old) / (counts + _SMOOTHING)[:, None]
