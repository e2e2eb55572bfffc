"""The non-autoregressive Transformer without latent variables (Gu et al. 2018, arXiv 1711.02281).

P(y | x) = P(T | x) prod_t P(y_t | T, x). The source's tokens, copied uniformly to the T places of the target, are
what the decoder starts from. The length takes the place of the paper's fertilities, which need a word aligner;
several lengths decoded side by side are its noisy parallel decoding, for an autoregressive model to choose from.
"""

import keras
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.errors import UserError
from t2t_vqem.layers import losses
from t2t_vqem.models.model import Features, ModelOutput
from t2t_vqem.models.one_pass import OnePassTranslator
from t2t_vqem.models.translation import (
    EOS_ID,
    PAD_ID,
    at_length,
    count_real,
    spread,
    token_count,
    until_end,
    without_pad,
)

_IMPOSSIBLE = -1e9


@registry.models.register("nat")
class NAT(OnePassTranslator):
    """Length classifier, uniform copy of the source, bidirectional decoder; all embeddings tied."""

    registered_name = "nat"

    def __init__(
        self,
        vocab_size: int,
        *,
        dim: int = 512,
        filter_size: int = 2048,
        heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.1,
        label_smoothing: float = 0.1,
        max_length_difference: int = 50,
        max_length_ratio: float = 2.0,
    ):
        """Makes the layers.

        Args:
          max_length_difference: tokens by which a predicted length may differ from the source's, either way.
          max_length_ratio: no output is longer than this times the source, plus 10 tokens.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__(
            vocab_size,
            dim=dim,
            filter_size=filter_size,
            heads=heads,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            dropout=dropout,
            label_smoothing=label_smoothing,
            max_length_ratio=max_length_ratio,
        )
        self.require_whole(1, max_length_difference=max_length_difference)
        self.max_length_difference = max_length_difference
        self.length_out = keras.layers.Dense(2 * max_length_difference + 1, name="length_out")

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """The target's length, and its tokens given the length."""
        inputs, targets = features["inputs"], features["targets"]
        mask, tokens = targets != PAD_ID, token_count(targets)
        memory, memory_mask = self.encode(inputs, training)
        length_nll, length_correct = self._length_losses(memory, memory_mask, count_real(mask))

        copied = spread(inputs, count_real(memory_mask), count_real(mask), tf.shape(targets)[1])
        logits = self.decode(self.tokens(copied), mask, memory, memory_mask, training)
        nll, correct = self.token_losses(tf.reshape(logits, [-1, logits.shape[-1]]), targets, training)
        return ModelOutput(
            logits=logits,
            losses={"nll": LossTerm(losses.masked_sum(nll, mask).sum, tokens), "length_nll": length_nll},
            weight=tokens,
            statistics={},
            metrics={
                "token_accuracy": losses.masked_sum(correct, mask),
                "length_accuracy": length_correct,
            },
        )

    def check_decoding(self) -> None:
        super().check_decoding()
        if self.decoding.beam_size > 1:
            raise UserError(
                f"{self.registered_name} writes all tokens at once and keeps no beam; decode.beam_size must be 1, not "
                f"{self.decoding.beam_size}; decode.num_candidates asks for several lengths"
            )
        lengths = 2 * self.max_length_difference + 1
        if self.decoding.candidates > lengths:
            raise UserError(
                f"{self.registered_name} has {lengths} lengths to choose from, not {self.decoding.candidates}; lower "
                f"decode.num_candidates or raise {self.registered_name}.max_length_difference"
            )

    def infer(self, features: Features) -> Features:
        """Decodes the `decoding.candidates` likeliest lengths side by side, the likeliest token at each place.

        Scores are log P(T | x) + log P(y | T, x), up to the first eos. The last place is always an eos. Where
        fewer lengths are possible than asked for, what is over has a score near -1e9.

        Raises:
          UserError: see `check_decoding`.
        """
        self.check_decoding()
        number = self.decoding.candidates
        inputs = features["inputs"]
        memory, memory_mask = self.encode(inputs)
        length_scores, lengths = self._likeliest_lengths(memory, memory_mask, number)
        batch = tf.shape(inputs)[0]
        _, greatest = self.most_tokens(memory_mask)
        longest = greatest if isinstance(greatest, int) else tf.reduce_max(lengths)
        lengths = tf.reshape(lengths, [-1])
        inputs, memory, memory_mask = (tf.repeat(x, number, axis=0) for x in (inputs, memory, memory_mask))

        def decode(length: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            mask = tf.sequence_mask(lengths, length)
            copied = self.tokens(spread(inputs, count_real(memory_mask), lengths, length))
            logits = without_pad(self.decode(copied, mask, memory, memory_mask))
            last = tf.range(length) == lengths[:, None] - 1
            tokens = tf.where(last, EOS_ID, tf.argmax(logits, axis=-1, output_type=tf.int32))
            chosen = tf.gather(logits, tokens, batch_dims=2) - tf.reduce_logsumexp(logits, axis=-1)
            kept = until_end(tokens) & mask
            outputs = tf.pad(tf.where(kept, tokens, PAD_ID), [[0, 0], [0, longest - length]])
            return outputs, tf.reduce_sum(tf.where(kept, chosen, 0.0), axis=1)

        outputs, token_scores = at_length(decode, lengths, longest)
        scores = length_scores + tf.reshape(token_scores, [batch, number])
        outputs = tf.reshape(outputs, [batch, number, longest])
        return search.best_of(outputs, scores, self.decoding) | {"calls": tf.constant(1)}

    def _length_logits(self, memory: tf.Tensor, memory_mask: tf.Tensor) -> tf.Tensor:
        """Returns float32 [batch, classes], of each difference between target and source length."""
        weights = tf.cast(memory_mask, tf.float32)[:, :, None]
        total = tf.reduce_sum(tf.cast(memory, tf.float32) * weights, axis=1)
        mean = tf.math.divide_no_nan(total, tf.reduce_sum(weights, axis=1))
        return tf.cast(self.length_out(mean), tf.float32)

    def _length_losses(
        self, memory: tf.Tensor, memory_mask: tf.Tensor, lengths: tf.Tensor
    ) -> tuple[LossTerm, LossTerm]:
        """Returns the nats and the accuracy of `lengths` int32 [batch]; empty targets count nowhere."""
        most = self.max_length_difference
        logits = self._length_logits(memory, memory_mask)
        classes = tf.clip_by_value(lengths - count_real(memory_mask), -most, most) + most
        correct = tf.argmax(logits, axis=-1, output_type=tf.int32) == classes
        nll = losses.cross_entropy(logits, classes)
        return losses.masked_sum(nll, lengths > 0), losses.masked_sum(correct, lengths > 0)

    def _likeliest_lengths(
        self, memory: tf.Tensor, memory_mask: tf.Tensor, number: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns log probabilities and lengths [batch, number], the eos included, the likeliest first."""
        most = self.max_length_difference
        lengths = count_real(memory_mask)[:, None] + tf.range(-most, most + 1)
        possible = (lengths >= 1) & (lengths <= self.most_tokens(memory_mask)[0][:, None])
        logits = tf.where(possible, self._length_logits(memory, memory_mask), _IMPOSSIBLE)
        scores, best = tf.math.top_k(tf.nn.log_softmax(logits), number)
        return scores, tf.maximum(tf.gather(lengths, best, batch_dims=1), 1)
