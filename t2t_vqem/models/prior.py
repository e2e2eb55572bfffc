"""What all priors over fields of codes share: embeddings, the slots' head, exact likelihood, sampling."""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from t2t_vqem import search
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.layers import losses
from t2t_vqem.layers.embedding import Embedding
from t2t_vqem.layers.slots import Choose, CodeEmbedding, SlotHead
from t2t_vqem.models.model import Features, Model, ModelOutput

State = Any


class PriorModel(Model):
    """P(codes | label) of a field int32 [*code_shape], position after position in raster order.

    A subclass makes of the codes before a position its context; the codes of the position itself follow from that
    one slot after the other, see `SlotHead`. Features are {"inputs": labels int32 [batch], "targets": codes int32
    [batch, *code_shape]}.

    With `block` > 1 a position stands for that many rows and columns of the field: fewer positions of more slots,
    which costs less and has the codes of a block follow from each other by the slots' head alone.

    Attributes:
      code_shape: (height, width, slots) of a field.
      height, width: numbers of positions.
      slots: of a position.
      decoding: how `infer` draws; whoever samples may replace it before `infer` is traced.
      side_nats: of what the codes of a field are predicted from besides; none for a prior proper.
    """

    content: ClassVar[str] = "codes"
    side_nats: float = 0.0
    decoding: search.Settings

    def __init__(
        self,
        code_shape: Sequence[int],
        num_codes: int,
        num_classes: int,
        *,
        class_conditional: bool,
        dim: int,
        dropout: float,
        block: int,
        slot_layers: int,
        slot_dim: int,
        slot_heads: int,
    ):
        """Makes embeddings and head.

        Args:
          code_shape: (height, width, slots) of a field.
          num_codes: codes are 0 .. num_codes - 1 in every slot.
          num_classes: labels are 0 .. num_classes - 1.
          class_conditional: whether the prior knows the label.
          block: rows and columns of the field that one position stands for.
          slot_layers, slot_dim, slot_heads: of the causal transformer over the slots of a position.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__()
        self.require_whole(1, dim=dim, block=block, slot_layers=slot_layers, slot_heads=slot_heads)
        self.require_share(dropout=dropout)
        fits = type(slot_dim) is int and slot_dim > 0 and slot_dim % slot_heads == 0
        self.require(fits, "slot_dim", slot_dim, f"a multiple of slot_heads = {slot_heads}")
        self.require_conditional(class_conditional, num_classes)
        height, width, slots = self.code_shape = tuple(code_shape)
        divides = height % block == 0 and width % block == 0
        self.require(divides, "block", block, f"a divisor of the field's {height} rows and {width} columns")
        self.block = block
        self.height, self.width, self.slots = height // block, width // block, block * block * slots
        self.positions = self.height * self.width
        self.num_codes = num_codes
        self.dropout = dropout
        self.decoding = search.Settings()
        self.codes = CodeEmbedding(self.slots, num_codes, dim, name="codes")
        self.classes = Embedding(num_classes, dim, name="classes") if class_conditional else None
        self.head = SlotHead(
            self.codes, num_layers=slot_layers, dim=slot_dim, heads=slot_heads, dropout=dropout, name="head"
        )
        # Traced for each number of rows and each way to draw; the loops in it would be slow step by step.
        self._sample = tf.function(self._draw, autograph=False)

    @abc.abstractmethod
    def contexts(self, embedded: tf.Tensor, labels: tf.Tensor, training: Training | None) -> tf.Tensor:
        """Returns of each position what the codes before it say, [batch, positions, dim].

        Args:
          embedded: the positions' own codes, embedded, [batch, positions, dim].
          labels: int32 [batch].
        """

    @abc.abstractmethod
    def start(self, labels: tf.Tensor) -> State:
        """Returns the caches before the first position, a nest of tensors of constant shape."""

    @abc.abstractmethod
    def step(
        self, embedded: tf.Tensor, index: tf.Tensor, labels: tf.Tensor, state: State
    ) -> tuple[tf.Tensor, State]:
        """Returns the context [batch, dim] of position `index`, as `contexts` makes it, and the new caches.

        Args:
          embedded: the codes of the position before, embedded, [batch, dim]; zeros at the first.
        """

    def build_weights(self) -> None:
        self({"inputs": tf.zeros([1], tf.int32), "targets": tf.zeros([1, *self.code_shape], tf.int32)})

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """Teacher forcing: each code from the codes before it; all rows count."""
        targets = features["targets"]
        logits = self.logits(features, training)
        codes = tf.cast(tf.size(targets), tf.float32)
        correct = tf.argmax(logits, axis=-1, output_type=tf.int32) == targets
        return ModelOutput(
            logits=logits,
            losses={"nll": LossTerm(tf.reduce_sum(self._nll(logits, targets)), codes)},
            weight=codes,
            statistics={},
            metrics={"code_accuracy": LossTerm(tf.reduce_sum(tf.cast(correct, tf.float32)), codes)},
        )

    def logits(self, features: Features, training: Training | None = None) -> tf.Tensor:
        """Returns float32 [batch, *code_shape, num_codes], that of a code from the codes before it."""
        parts = self.codes.parts(
            tf.reshape(self.blocks(features["targets"]), [-1, self.positions, self.slots])
        )
        context = self.contexts(tf.reduce_sum(parts, axis=2), features["inputs"], training)
        return self._field(self.head(context, parts, training=training), self.num_codes)

    def code_nll(self, features: Features) -> tf.Tensor:
        """Returns -log P of each code given those before it in nats, float32 [batch, *code_shape].

        Their sum over a row is -log P(codes | label), exactly.
        """
        return self._nll(self.logits(features), features["targets"])

    def infer(self, features: Features) -> Features:
        """Samples a field for each label, at temperature 1 unless `decoding` names another.

        Samples are told apart by "index" where the features have it, else by their place in the batch.
        """
        return {"outputs": self.sample(features["inputs"], features.get("index"), **self.decoding.drawing())}

    def sample(
        self,
        labels: tf.Tensor,
        rows: tf.Tensor | None = None,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> tf.Tensor:
        """Draws codes int32 [batch, *code_shape], with caches, in one loop of a graph.

        Args:
          labels: int32 [batch]; looked at by a class-conditional prior alone.
          rows: int32 [batch], the numbers of the samples: equal ones draw equal numbers. None means 0 .. batch - 1.
          temperature: of the softmax that codes are drawn from; 0 takes the likeliest code each time.
          top_k, top_p: see `search.Settings`.

        Raises:
          UserError: a value is out of range.
        """
        if rows is None:
            rows = tf.range(tf.shape(labels)[0])
        return self._sample(labels, rows, seed, temperature, top_k, top_p)

    def blocks(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns the codes int32 [batch, *code_shape] as positions see them, [batch, height, width, slots]."""
        slots = self.code_shape[-1]
        split = tf.reshape(codes, [-1, self.height, self.block, self.width, self.block, slots])
        return tf.reshape(tf.transpose(split, [0, 1, 3, 2, 4, 5]), [-1, self.height, self.width, self.slots])

    @property
    def order(self) -> tf.Tensor:
        """Of each code in the order of prediction its place in the field, int32 [codes]."""
        return tf.reshape(self.blocks(tf.range(math.prod(self.code_shape))), [-1])

    def generate(self, labels: tf.Tensor, choose: Choose) -> tf.Tensor:
        """Has `choose(logits [batch, num_codes], place of the code in the field)` pick code after code.

        Returns codes int32 [batch, *code_shape].
        """
        batch, places = tf.shape(labels)[0], tf.range(self.positions)[:, None]
        order = self.order

        def body(index, embedded, codes, state):
            context, state = self.step(embedded, index, labels, state)
            chosen = self.head.generate(
                context, lambda logits, slot: choose(logits, order[index * self.slots + slot])
            )
            codes = tf.where(places == index, chosen[:, None], codes)
            return search.shaped_like(start, (index + 1, self.codes(chosen), codes, state))

        nothing = tf.zeros([batch, self.positions, self.slots], tf.int32)
        start = (tf.constant(0), tf.zeros_like(self.codes(nothing[:, 0])), nothing, self.start(labels))
        codes = tf.while_loop(lambda index, *_: index < self.positions, body, start)[2]
        return self._field(codes)

    def _field(self, of_positions: tf.Tensor, *shape: int) -> tf.Tensor:
        """Returns [batch, *code_shape, *shape], the inverse of `blocks`, of [batch, positions, slots, *shape]."""
        split = [-1, self.height, self.width, self.block, self.block, self.code_shape[-1] * math.prod(shape)]
        rows = tf.transpose(tf.reshape(of_positions, split), [0, 1, 3, 2, 4, 5])
        return tf.reshape(rows, [-1, *self.code_shape, *shape])

    def _draw(self, labels, rows, seed, temperature, top_k, top_p) -> tf.Tensor:
        settings = dataclasses.replace(
            search.Settings.greedy(), seed=seed, temperature=temperature, top_k=top_k, top_p=top_p
        )
        choose = search.sampler(settings, tf.cast(rows, tf.uint32)) if temperature else search.likeliest
        return self.generate(labels, choose)

    def _nll(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        nll = losses.cross_entropy(tf.reshape(logits, [-1, self.num_codes]), tf.reshape(targets, [-1]))
        return tf.reshape(nll, tf.shape(targets))
