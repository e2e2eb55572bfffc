"""The contract of a bottleneck: an E-step that moves nothing, and an M-step over reduced statistics."""

import abc
from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from t2t_vqem.context import LossTerm, Training
from t2t_vqem.errors import UserError


class BottleneckOutput(NamedTuple):
    """What an E-step found out; masked positions hold zeros and count nowhere.

    Attributes:
      quantized: [batch, ..., dim] in the dtype of the input: what the decoder reads, with the
        straight-through gradient to the encoder.
      codes: int32 [batch, ...], the nearest code.
      samples: int32 [batch, ..., m], the codes that `quantized` is the mean of (in evaluation m is 1).
      loss: the commitment loss, already times beta, summed over positions.
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


class Bottleneck(keras.layers.Layer, abc.ABC):
    """A discretisation with `num_codes` codes of `dim` numbers.

    It computes in float32 whatever the policy of the model around it: in bfloat16 some 3 % of nearest codes
    change.
    """

    def __init__(self, num_codes: int, dim: int):
        """Raises UserError for fewer than two codes or no dimension."""
        super().__init__(dtype="float32")
        require(
            type(num_codes) is int and num_codes >= 2, "num_codes", num_codes, "a whole number, at least 2"
        )
        require(dim >= 1, "dim", dim, "at least 1")
        self.num_codes = num_codes
        self.dim = dim

    @abc.abstractmethod
    def e_step(
        self, x: tf.Tensor, mask: tf.Tensor | None, training: Training | None = None
    ) -> BottleneckOutput:
        """Quantises `x` float [batch, ..., dim]; moves nothing.

        Args:
          x: encodings, of any float type.
          mask: bool [batch, ...], False at padding; None means that every position counts.
          training: None in evaluation, where the E-step is the argmin.
        """

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
    def embed(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns float32 [..., dim], the embeddings of `codes` int [...]."""

    @abc.abstractmethod
    def usage(self) -> dict[str, tf.Tensor]:
        """Returns how the codebook is used: scalars `perplexity`, `live_codes`, and `counts` [num_codes]."""


def require(holds: bool, parameter: str, value: object, wanted: str) -> None:
    """Raises UserError naming `parameter` unless `holds`."""
    if not holds:
        raise UserError(f"bottleneck parameter {parameter} = {value!r}: it must be {wanted}")
