"""How the codes are used, over a window of steps."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from t2t_vqem.bottlenecks import membership
from t2t_vqem.bottlenecks.settings import CodebookSettings

LIVE_SHARE = 0.05  # a live code has at least this part of a uniform share of the positions


class Usage(keras.layers.Layer):
    """A moving average of the positions a step that take each of `num_codes` codes (float32)."""

    def __init__(self, num_codes: int, settings: CodebookSettings):
        super().__init__(dtype="float32")
        self.num_codes = num_codes
        self.settings = settings
        self.hits = self._state("hits", (num_codes,))
        self.updates = self._state("updates", ())
        self.built = True

    def _state(self, name: str, shape: tuple[int, ...], initializer: object = "zeros") -> keras.Variable:
        # autocast=False: inside a bfloat16 model Keras would hand out rounded codes.
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, trainable=False, dtype="float32", autocast=False
        )

    def counted(self, samples: tf.Tensor, counted: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the statistics that `m_step` takes: "counts" float32 [num_codes], of m samples 1 / m each.

        Args:
          samples: int32 [positions, m].
          counted: bool [positions], False at positions that count nowhere.
        """
        samples = tf.where(counted[:, None], samples, -1)
        ones = tf.ones_like(counted, tf.float32)
        return {"counts": membership.sums(samples, ones, self.num_codes)}

    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        """Moves the average towards `statistics`."""
        decay = self._decay()
        self.hits.assign(decay * self.hits + (1.0 - decay) * statistics["counts"])
        self.updates.assign(self.updates + 1.0)

    def _decay(self) -> tf.Tensor:
        """Returns the decay at this update: (1 + updates) / (10 + updates), which grows up to its value.

        So a young average follows the moving encodings of a young encoder.
        """
        return tf.minimum(self.settings.decay, (1.0 + self.updates) / (10.0 + self.updates))

    def log_usage(self) -> tf.Tensor:
        """Returns the log of each code's share of the positions [num_codes]; that of an unused code is finite."""
        shares = self.hits + LIVE_SHARE * tf.reduce_mean(self.hits) + 1e-30
        return tf.math.log(shares / tf.reduce_sum(shares))

    def usage(self) -> dict[str, tf.Tensor]:
        """Returns `perplexity`, `live_codes` (scalars) and `counts` [1, num_codes].

        Counts are positions a step, a moving average over the last 1 / (1 - decay) steps or so. The perplexity
        is exp(their entropy); a code is live if it has at least LIVE_SHARE of a uniform share. All are 0 before the
        first.
        """
        counts = tf.convert_to_tensor(self.hits)
        total = tf.reduce_sum(counts)
        probabilities = tf.math.divide_no_nan(counts, total)
        entropy = -tf.reduce_sum(tf.math.xlogy(probabilities, probabilities))
        live = tf.logical_and(counts > 0.0, counts >= LIVE_SHARE * total / self.num_codes)
        return {
            "perplexity": tf.where(total > 0.0, tf.exp(entropy), 0.0),
            "live_codes": tf.reduce_sum(tf.cast(live, tf.float32)),
            "counts": counts[None],
        }
