"""Discretisations number by number, without a codebook to learn: `fsq` and `lfq`."""

import math

import numpy as np
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.bottleneck import BottleneckOutput, Positions, projection
from t2t_vqem.bottlenecks.checks import require
from t2t_vqem.bottlenecks.estimator import straight_through
from t2t_vqem.bottlenecks.relaxed import Bits, Counted, from_bits, to_bits
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Training

# Level sets of about so many codes, Mentzer et al. 2023, arXiv 2309.15505, table 1.
LEVELS = {
    2**8: (8, 6, 5),
    2**10: (8, 5, 5, 5),
    2**12: (7, 5, 5, 5, 5),
    2**14: (8, 8, 8, 6, 5),
    2**16: (8, 8, 8, 5, 5, 5),
}


@registry.bottlenecks.register("fsq")
class FSQ(Counted):
    """Finite scalar quantisation (arXiv 2309.15505): a few bounded numbers, each rounded to one of its levels.

    Of the settings the decay alone applies, as the window of usage.
    """

    def __init__(
        self,
        num_codes: int,
        dim: int,
        settings: CodebookSettings | None = None,
        *,
        levels: tuple[int, ...] | None = None,
    ):
        """Makes the maps to and from the bounded numbers.

        Args:
          num_codes: about how many codes, where `levels` is None: a key of `LEVELS`.
          levels: of each number, 2 or more; their product becomes `num_codes`.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        if levels is None:
            sizes = ", ".join(map(str, LEVELS))
            require(num_codes in LEVELS, "num_codes", num_codes, f"one of {sizes}, or fsq.levels given")
            levels = LEVELS[num_codes]
        whole = isinstance(levels, tuple | list) and all(type(n) is int and n >= 2 for n in levels)
        require(bool(levels) and whole, "levels", levels, "a tuple of whole numbers, each 2 or more")
        super().__init__(math.prod(levels), dim, settings)
        self.levels = np.asarray(levels, np.int32)
        self._basis = np.cumprod([1, *levels[:-1]]).astype(np.int32)
        self.project_in = projection(dim, len(levels), "project_in", use_bias=True)
        self.project_out = projection(len(levels), dim, "project_out", use_bias=True)

    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """See Bottleneck. Metric: `quantization_error`, the mean squared rounding of a number."""
        positions = Positions(x, mask)
        bounded = self._bounded(self.project_in(positions.x))
        rounded = tf.round(bounded)
        codes = tf.reduce_sum((tf.cast(rounded, tf.int32) + self.levels // 2) * self._basis, axis=-1)
        quantized = self.project_out(straight_through(bounded, rounded) / (self.levels // 2))
        error = tf.reduce_mean(tf.square(tf.stop_gradient(rounded - bounded)), axis=-1)
        return self.output(
            positions, quantized, codes, codes, tf.zeros_like(error), training, quantization_error=error
        )

    def _bounded(self, z: tf.Tensor) -> tf.Tensor:
        """Returns `z` [..., numbers] in the range that rounds to whole numbers from -(L // 2) to (L - 1) // 2.

        An even number of levels has no middle: the range is shifted by half a level, and z so that 0 stays there.
        """
        half = (self.levels - 1) * (1.0 + 1e-3) / 2.0
        offset = np.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = np.arctanh(offset / half)
        return tf.tanh(z + shift.astype(np.float32)) * half.astype(np.float32) - offset.astype(np.float32)

    def parts(self, codes: tf.Tensor) -> tf.Tensor:
        rounded = (codes[..., None] // self._basis) % self.levels - self.levels // 2
        return self.project_out(tf.cast(rounded, tf.float32) / (self.levels // 2))


@registry.bottlenecks.register("lfq")
class LFQ(Bits):
    """Lookup-free quantisation (Yu et al., arXiv 2310.05737): log2 K numbers, of each the sign.

    `codebook.beta` weighs the commitment |z - sign(z)|^2. `codebook.entropy_weight` weighs the entropy of the
    posterior, whose bits are independent, minus that of the bits' mean over positions; the mean is the moving average
    of usage, so that the loss adds over replicas. Beside these the decay applies, as the window of usage.
    """

    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """See Bottleneck. Metric: `effective_codes`, exp(entropy of the posterior), between 1 and K."""
        positions = Positions(x, mask)
        z = self.project_in(positions.x)
        signs = tf.where(z > 0.0, 1.0, -1.0)
        codes = from_bits(z > 0.0)
        logits = 4.0 * z / self.settings.temperature_at(training)  # |z + 1|^2 - |z - 1|^2 = 4 z
        likely, unlikely = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
        on, off = tf.exp(likely), tf.exp(unlikely)
        entropy = -tf.reduce_sum(on * likely + off * unlikely, axis=-1)
        bits = to_bits(tf.range(self.num_codes), self.bits)
        shares = tf.linalg.matvec(bits, tf.exp(self.uses.log_usage()), transpose_a=True)
        balance = on * tf.math.log(shares) + off * tf.math.log1p(-shares)
        loss = self.settings.beta * tf.reduce_mean(tf.square(z - signs), axis=-1)
        loss += self.settings.entropy_weight * (entropy + tf.reduce_sum(balance, axis=-1))
        quantized = self.project_out(straight_through(z, signs))
        return self.output(
            positions, quantized, codes, codes, loss, training, effective_codes=tf.exp(entropy)
        )
