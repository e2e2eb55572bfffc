"""The contract of a model: forward pass with named losses, and inference."""

import abc
import types
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import tensorflow as tf

from t2t_vqem.bottlenecks.bottleneck import Bottleneck
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.layers.block import Block

Features = dict[str, tf.Tensor]


class ModelOutput(NamedTuple):
    """What a forward pass returns.

    Attributes:
      logits: [batch, length, classes].
      losses: name -> sum and number of positions; the objective is the sum of the sums over `weight`.
      weight: scalar, the positions (target tokens) of this batch that the objective is an average over.
      statistics: bottleneck name -> its sufficient statistics; empty in evaluation.
      metrics: name -> sum and number of positions, for the log alone.
    """

    logits: tf.Tensor
    losses: dict[str, LossTerm]
    weight: tf.Tensor
    statistics: dict[str, dict[str, tf.Tensor]]
    metrics: dict[str, LossTerm]


class Model(Block, abc.ABC):
    """What learns. `model(features, training=...)` gives a `ModelOutput`.

    Attributes:
      content: of the problems that it learns, see `problems.problem.Problem`.
      bottlenecks: name -> bottleneck, none by default; the training step calls their M-steps.
    """

    content: ClassVar[str] = "text"
    bottlenecks: Mapping[str, Bottleneck] = types.MappingProxyType({})

    @abc.abstractmethod
    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """The forward pass; `training` is None in evaluation."""

    @abc.abstractmethod
    def infer(self, features: Features) -> Features:
        """Decodes: at least {"outputs": int32 [batch, ...]}; export, decoder and evaluator share it."""

    @abc.abstractmethod
    def build_weights(self) -> None:
        """Makes every variable; called once, under the strategy's scope."""
