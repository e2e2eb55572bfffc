"""The contract of a model: forward pass with named losses, and inference."""

import abc
import types
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import tensorflow as tf

from t2t_vqem.bottlenecks.bottleneck import Bottleneck
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.errors import require
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
      registered_name: what messages about its hparams call it.
      content: of the problems that it learns, see `problems.problem.Problem`.
      bottlenecks: name -> bottleneck, none by default; the training step calls their M-steps.
    """

    registered_name: ClassVar[str]
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

    def check_decoding(self) -> None:
        """Raises a UserError if the configuration of `decode` asks for what `infer` cannot do.

        Whoever opens or trains a run asks first, so that it does not fail after hours.
        """

    def require(self, holds: bool, parameter: str, value: object, wanted: str) -> None:
        """Raises a UserError that names the hparam unless `holds`."""
        require(holds, f"{self.registered_name}.{parameter}", value, wanted)

    def require_whole(self, least: int, **values: object) -> None:
        """Raises a UserError unless every value is a whole number of at least `least`."""
        for name, value in values.items():
            holds = type(value) is int and value >= least
            self.require(holds, name, value, f"a whole number, {least} or more")

    def require_sliceable(self, bottleneck: str, slices: int) -> None:
        """Raises a UserError if `bottleneck` cannot be that of each of several slices (`composite.sliced`)."""
        holds = slices == 1 or bottleneck != "product"
        self.require(
            holds, "bottleneck", bottleneck, "that of one slice where there are several: they are a product"
        )

    def require_conditional(self, class_conditional: object, num_classes: int) -> None:
        """Raises a UserError unless a model can be told, or not told, one of so many classes."""
        holds = class_conditional is False or (class_conditional is True and num_classes > 1)
        wanted = "False: all pictures are of one class" if num_classes == 1 else "True or False"
        self.require(holds, "class_conditional", class_conditional, wanted)

    def require_share(self, **values: object) -> None:
        """Raises a UserError unless every value lies in [0, 1)."""
        for name, value in values.items():
            self.require(isinstance(value, int | float) and 0 <= value < 1, name, value, "in [0, 1)")
