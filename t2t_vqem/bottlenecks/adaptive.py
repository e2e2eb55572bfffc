"""`adaptive_em`: hard EM whose number of codes is a result: pruned, merged and split (ISODATA; Ball & Hall 1965).

Every so many steps, up to a last time,
* a code with far less than a uniform share of the positions is dropped;
* two codes that are each other's nearest, and too close to be worth being two, become one;
* and if that changed nothing, each code whose positions add more than their share to the error becomes two, on trial.

Two codes are worth it if the log likelihood that an isotropic Gaussian of their own gives to their positions, over
that of a common one, pays for saying which of the two a position takes: in nats a position
D/2 log(error as one / error as two) > H(shares), as in X-means (Pelleg & Moore 2000) without its prior on the number.
So whether a split was right is seen once the two have had their steps of EM: halves of one round cluster become one
again, whatever the dimension, and
two clusters that shared a code stay apart. In the last quarter of the changes nothing is split any more.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.checks import require, require_between, require_whole
from t2t_vqem.bottlenecks.codebook import Codebook
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.bottlenecks.vector import VectorQuantiser


@registry.bottlenecks.register("adaptive_em")
class AdaptiveEM(VectorQuantiser):
    """Hard EM with as many codes as it finds, at most `num_codes`; `usage` tells how many, as "size".

    Dead codes are dropped rather than revived: `codebook.revival_threshold` does not apply.
    """

    def __init__(
        self,
        num_codes: int,
        dim: int,
        settings: CodebookSettings | None = None,
        *,
        first_codes: int | None = None,
        adapt_every: int = 100,
        adapt_until: int = 5000,
        prune_share: float = 0.1,
        merge_ratio: float = 1.0,
        split_ratio: float = 1.0,
    ):
        """Makes a codebook with room for `num_codes` codes.

        Args:
          first_codes: how many there are at first; half of the room if None.
          adapt_every: M-steps between changes of the size; the first come after as many.
          adapt_until: the M-step after which the size stays.
          prune_share: a code with less than this part of a uniform share of the positions is dropped.
          merge_ratio: two codes become one if they gain less than this many times what they cost (see the module).
          split_ratio: a code whose positions' squared distances add up to more than this many times the mean of all
            codes becomes two, while there is room.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        first = max(1, num_codes // 2) if first_codes is None else first_codes
        require_whole(1, first_codes=first, adapt_every=adapt_every)
        require_whole(adapt_every, adapt_until=adapt_until)
        require(first <= num_codes, "first_codes", first, f"at most num_codes = {num_codes}")
        require_between(0, 1, prune_share=prune_share)
        require_between(0, math.inf, merge_ratio=merge_ratio, split_ratio=split_ratio)
        self._rules = Rules(first, adapt_every, adapt_until, prune_share, merge_ratio, split_ratio)
        super().__init__(num_codes, dim, settings)

    def make_codebook(self, size: int) -> Codebook:
        return AdaptiveCodebook(self.num_codes, size, self.settings, self._rules)


class Rules(NamedTuple):
    """When a codebook changes its size; see `AdaptiveEM`."""

    first_codes: int
    adapt_every: int
    adapt_until: int
    prune_share: float
    merge_ratio: float
    split_ratio: float


class Clusters(NamedTuple):
    """Codes and what is known of their positions.

    Attributes:
      means: [codes, dim].
      counts: [codes], 0 where there is no code.
      errors: [codes], the sum of squared distances of a step's positions from their code.
    """

    means: tf.Tensor
    counts: tf.Tensor
    errors: tf.Tensor

    def where(self, condition: tf.Tensor, other: "Clusters") -> "Clusters":
        """Returns these where `condition` [codes], `other` elsewhere."""
        pairs = zip(self, other, strict=True)
        return Clusters(
            *(tf.where(tf.reshape(condition, [-1, *[1] * (a.shape.rank - 1)]), a, b) for a, b in pairs)
        )


class AdaptiveCodebook(Codebook):
    """A codebook that drops, merges and splits codes; a slot whose count is 0 holds none."""

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings, rules: Rules):
        super().__init__(num_codes, dim, settings)
        self.rules = rules
        self.squares = self._state("squares", (num_codes,))
        self.size = self._state("size", ())

    def statistics(
        self, x: tf.Tensor, samples: tf.Tensor, mask: tf.Tensor, draws: tf.Tensor, positions: int | tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """As `Codebook.statistics`, and "squares" [num_codes], the sums of |x|^2."""
        found = super().statistics(x, samples, mask, draws, positions)
        ids = tf.where(mask & tf.reduce_any(self.born()), samples[:, 0], -1)
        squares = tf.math.unsorted_segment_sum(tf.reduce_sum(tf.square(x), -1), ids, self.num_codes)
        return found | {"squares": squares}

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        """As `Codebook.m_step`; then, every `adapt_every` updates, changes the number of codes."""
        decay, born_before = self._decay(), self.born()
        super().m_step(statistics)
        squares = decay * self.squares + (1.0 - decay) * statistics["squares"]
        fresh = self.born() & ~born_before
        squares = tf.where(fresh, self.counts * tf.reduce_sum(tf.square(self.means), axis=-1), squares)
        errors = tf.maximum(squares - self.counts * tf.reduce_sum(tf.square(self.means), axis=-1), 0.0)
        now = Clusters(*(tf.convert_to_tensor(v) for v in (self.means, self.counts)), errors)
        updates = tf.cast(self.updates, tf.int32)
        turn, last = updates // self.rules.adapt_every, self.rules.adapt_until // self.rules.adapt_every
        due = tf.equal(updates % self.rules.adapt_every, 0)
        codes = tf.math.count_nonzero(now.counts)
        now = tf.cond(due & (turn <= last), lambda: self._merged(self._pruned(now)), lambda: now)
        left = tf.math.count_nonzero(now.counts)
        self.size.assign(tf.where(due | (turn == 0), tf.cast(left, tf.float32), self.size))
        trial = due & (4 * turn < 3 * last) & (left == codes)
        means, counts, errors = tf.cond(trial, lambda: self._split(now), lambda: now)
        self.means.assign(means)
        self.counts.assign(counts)
        self.sums.assign(counts[:, None] * means)
        self.squares.assign(errors + counts * tf.reduce_sum(tf.square(means), axis=-1))

    def _dead(self, counts: tf.Tensor) -> tf.Tensor:
        """Returns which slots wait for an encoding of the batch: none that ever held a code."""
        return tf.zeros_like(counts, tf.bool)

    def _places(self, dead: tf.Tensor, statistics: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """As `Codebook._places`, for the first codes alone and before the first change of their number."""
        young = self.updates < self.rules.adapt_every
        return super()._places(dead & young & (tf.range(self.num_codes) < self.rules.first_codes), statistics)

    def _pruned(self, now: Clusters) -> Clusters:
        size = tf.reduce_sum(tf.cast(now.counts > 0.0, tf.float32))
        enough = now.counts >= self.rules.prune_share * tf.reduce_sum(now.counts) / tf.maximum(size, 1.0)
        return now.where(enough, Clusters(*map(tf.zeros_like, now)))

    def _merged(self, now: Clusters) -> Clusters:
        """Merges pairs that are each other's nearest and too close, into the first of the two."""
        alive, places = now.counts > 0.0, tf.range(self.num_codes)
        norms = tf.reduce_sum(tf.square(now.means), axis=-1)
        distances = norms[:, None] + norms[None] - 2.0 * tf.matmul(now.means, now.means, transpose_b=True)
        apart = ~(alive[:, None] & alive[None]) | (places[:, None] == places[None])
        distances = tf.where(apart, _FAR, distances)
        nearest, distance = (
            tf.argmin(distances, axis=1, output_type=tf.int32),
            tf.reduce_min(distances, axis=1),
        )
        other = Clusters(*(tf.gather(part, nearest) for part in now))
        total = now.counts + other.counts
        share = tf.math.divide_no_nan(now.counts, total)
        entropy = -tf.math.xlogy(share, share) - tf.math.xlogy(1.0 - share, 1.0 - share)
        between = tf.math.divide_no_nan(now.counts * other.counts, total) * distance  # Huygens and Steiner
        error = now.errors + other.errors
        gain = self.dim / 2 * tf.math.log1p(between / tf.maximum(error, 1e-30))
        mutual = alive & (tf.gather(nearest, nearest) == places) & (gain < self.rules.merge_ratio * entropy)
        share = share[:, None]
        one = Clusters(share * now.means + (1.0 - share) * other.means, total, error + between)
        merged = one.where(mutual & (places < nearest), now)
        return merged.where(~(mutual & (places > nearest)), Clusters(*map(tf.zeros_like, now)))

    def _split(self, now: Clusters) -> Clusters:
        """Splits the codes of the greatest error, as far as there is room, along a direction drawn at random.

        Both halves keep half of the positions; which way they part is up to the EM steps that follow.
        """
        free = now.counts <= 0.0
        size = tf.reduce_sum(tf.cast(~free, tf.float32))
        mean = tf.reduce_sum(now.errors) / tf.maximum(size, 1.0)
        crowded = ~free & (
            now.errors >= 0.999 * self.rules.split_ratio * mean
        )  # where all are equal, all are
        room = tf.reduce_sum(tf.cast(free, tf.int32))
        order = tf.argsort(tf.where(crowded, now.errors, -1.0), direction="DESCENDING", stable=True)
        rank = tf.argsort(order, stable=True)  # of each code among the crowded
        splits = crowded & (rank < room)
        slots = tf.argsort(tf.cast(~free, tf.int32), stable=True)  # the free ones first
        source = tf.scatter_nd(
            slots[:, None], order, [self.num_codes]
        )  # the code that a free slot would take from
        born = free & tf.gather(splits, source)
        seed = tf.stack([tf.cast(self.updates, tf.int32), 0])
        deviation = tf.sqrt(tf.math.divide_no_nan(now.errors, now.counts) / self.dim)[:, None]
        step = 0.1 * deviation * tf.random.stateless_normal([self.num_codes, self.dim], seed)
        halves = Clusters(now.means + step, now.counts / 2, now.errors / 2)
        others = Clusters(now.means - step, now.counts / 2, now.errors / 2)
        twins = Clusters(*(tf.gather(part, source) for part in others))
        return twins.where(born, halves.where(splits, now))

    def usage(self) -> dict[str, tf.Tensor]:
        """As `Codebook.usage`, and "size", the number of codes there are but for those on trial."""
        return super().usage() | {"size": tf.convert_to_tensor(self.size)}


_FAR = 1e30
