"""The contract of a bottleneck: an E-step that moves nothing, and an M-step over reduced statistics."""

import abc
import math
from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.checks import require, require_whole
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import Draws, LossTerm, Training

_MOST_CODES = 2**24  # what float32 counts exactly


class BottleneckOutput(NamedTuple):
    """What an E-step found out; masked positions hold zeros and count nowhere.

    Attributes:
      quantized: [batch, ..., dim] in the dtype of the input: what the decoder reads, with the estimator's
        gradient to the encoder.
      codes: int32 [batch, ..., slots], the code that evaluation takes.
      samples: int32 [batch, ..., slots, m], the codes that `quantized` was made of (in evaluation m is 1).
      loss: what the bottleneck asks of encoder and codebook, its weights included, summed over positions.
      statistics: float32 sufficient statistics of this batch; they add over positions, micro-batches and
        replicas. Empty in evaluation.
      metrics: sums over positions, by name.
    """

    quantized: tf.Tensor
    codes: tf.Tensor
    samples: tf.Tensor
    loss: LossTerm
    statistics: dict[str, tf.Tensor]
    metrics: dict[str, LossTerm]


class DrawnCodes(NamedTuple):
    """Codes drawn from each position's own distribution P(codes | x), as it is in evaluation.

    Attributes:
      codes: int32 [batch, ..., slots].
      entropy: float32 [batch, ..., slots], in nats, of a slot's distribution given the codes of the slots before it.
        Their sum over the slots has the mean H(P(codes | x)), and is just that where slots do not depend on each other.
    """

    codes: tf.Tensor
    entropy: tf.Tensor


class Bottleneck(keras.layers.Layer, abc.ABC):
    """A discretisation: each position of `dim` numbers becomes `slots` codes, each one of `num_codes`.

    It computes in float32 whatever the policy of the model around it: in bfloat16 some 3 % of nearest codes
    change.

    Attributes:
      num_codes: codes that a slot chooses from; not always as many as were asked for, where few sizes are possible.
      slots: codes a position; more than one where it is composed of others.
      stochastic: whether an encoding has a distribution of codes, and not the likeliest alone.
      takes_prior: whether `e_step` takes a `log_prior` of the codes of each position.
      settings: what it has in common with others.
    """

    stochastic: bool = False
    takes_prior: bool = False

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings | None = None, *, slots: int = 1):
        """`settings` are those of the configuration if None.

        Raises:
          UserError: fewer than two codes or no dimension.
        """
        super().__init__(dtype="float32")
        require_whole(2, num_codes=num_codes)
        require(num_codes <= _MOST_CODES, "num_codes", num_codes, f"{_MOST_CODES} at most")
        require_whole(1, dim=dim, slots=slots)
        self.num_codes = num_codes
        self.dim = dim
        self.slots = slots
        self.settings = settings or registry.parts.get("codebook")()
        self.built = True

    @abc.abstractmethod
    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """Quantises `x` float [batch, ..., dim]; moves nothing.

        Args:
          x: encodings, of any float type.
          mask: bool [batch, ...], False at padding; None means that every position counts.
          training: None in evaluation, where nothing is random.
        """

    def draw(self, x: tf.Tensor, draws: Draws) -> DrawnCodes:
        """Draws codes of the encodings `x` [batch, ..., dim], all of which count; moves nothing.

        Where the bottleneck is not `stochastic` these are the codes of the E-step in evaluation.
        """
        del draws
        codes = self.e_step(x, None).codes
        return DrawnCodes(codes, tf.zeros_like(codes, tf.float32))

    @abc.abstractmethod
    def m_step(self, statistics: Mapping[str, tf.Tensor]) -> None:
        """Moves the codebook, given the `statistics` of the whole global batch, the same on every replica.

        Only the training step calls it, once a step, in cross-replica context.
        """

    def settle(self) -> None:
        """Called when every float variable has become its mean over several checkpoints.

        A bottleneck whose variables follow from one another makes them agree again.
        """

    @abc.abstractmethod
    def parts(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns float32 [..., slots, dim], what each slot adds to the embedding of `codes` [..., slots]."""

    def embed(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns float32 [..., dim], the embeddings of `codes` int [..., slots]."""
        return tf.reduce_sum(self.parts(codes), axis=-2)

    @abc.abstractmethod
    def usage(self) -> dict[str, tf.Tensor]:
        """Returns how the codes are used: scalars `perplexity` and `live_codes`, `counts` [slots, num_codes]."""


class Positions:
    """The positions of a batch as one axis, and the way back.

    Attributes:
      x: float32 [positions, dim], zeros at padding.
      keep: bool [positions], False at padding.
    """

    def __init__(self, x: tf.Tensor, mask: tf.Tensor | None):
        x = tf.convert_to_tensor(x)
        shape = [size if size is not None else tf.shape(x)[i] for i, size in enumerate(x.shape)]
        self._batch, self._inner, self._dtype = shape[0], shape[1:-1], x.dtype
        self._padded = mask is not None
        mask = tf.cast(mask, tf.bool) if self._padded else tf.ones(shape[:-1], tf.bool)
        self.keep = tf.reshape(mask, [-1])
        self.x = self.zero_padding(tf.reshape(tf.cast(x, tf.float32), [-1, shape[-1]]))

    def zero_padding(self, values: tf.Tensor) -> tf.Tensor:
        """Returns `values` [positions, ...] with zeros at padding, whatever stood there."""
        if not self._padded:
            return values
        keep = tf.reshape(self.keep, [-1, *[1] * (values.shape.rank - 1)])
        return tf.where(keep, values, tf.zeros([], values.dtype))

    def restore(self, values: tf.Tensor, *, cast: bool = False) -> tf.Tensor:
        """Returns `values` [positions, ...] as [batch, ..., ...], zeros at padding; cast to the input's type."""
        values = self.zero_padding(values)
        values = tf.cast(values, self._dtype) if cast else values
        return tf.reshape(values, [self._batch, *self._inner, *values.shape[1:]])

    def uniform(self, draws: Draws, *size: int) -> tf.Tensor:
        """Returns numbers in (0, 1) of each position, float32 [positions, *size]."""
        return tf.reshape(draws.uniform([self._batch, *self._inner, *size]), [-1, *size])

    def of_global_batch(self, training: Training) -> int | tf.Tensor:
        """Returns the number of positions of the global batch, padding included."""
        return math.prod(self._inner) * training.global_rows

    def term(self, values: tf.Tensor, where: tf.Tensor | None = None) -> LossTerm:
        """Returns the sum of `values` float32 [positions] over real positions, and their number.

        `where` bool [positions] counts these alone.
        """
        counted = self.keep if where is None else where
        return LossTerm(
            tf.reduce_sum(tf.where(counted, values, 0.0)), tf.reduce_sum(tf.cast(counted, tf.float32))
        )


def projection(inputs: int, outputs: int, name: str, *, use_bias: bool = False) -> keras.layers.Dense:
    """Returns a linear map in float32 that is built: codes may be embedded before any were found."""
    dense = keras.layers.Dense(outputs, use_bias=use_bias, dtype="float32", name=name)
    dense.build([None, inputs])
    return dense
