"""What all translation models share: token embeddings, source encoder, checked hparams, search settings."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import tensorflow as tf

from t2t_vqem import search
from t2t_vqem.context import Training
from t2t_vqem.errors import UserError, is_number
from t2t_vqem.layers import losses
from t2t_vqem.layers.ctc import best_path, ctc_loss
from t2t_vqem.layers.embedding import TokenEmbedding
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.model import Model
from t2t_vqem.prefix_search import LanguageModel, prefix_search

PAD_ID, EOS_ID = 0, 1

T = TypeVar("T")

_SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 1.0)  # of the greatest length, as outputs are decoded
FEW_SHARES = (0.5, 1.0)  # where little is computed at each length, for each is compiled


class TranslationModel(Model):
    """Reads "inputs" and predicts "targets", int32 [batch, length] both, eos at the end, then pad.

    Attributes:
      decoding: how `infer` searches; whoever translates may replace it before `infer` is traced.
      writes_blanks: whether the decoder has places of CTC.
      language_model: what `decoding.lm_weight` weighs; set before `infer` is traced by whoever opens the run.
    """

    decoding: search.Settings
    writes_blanks = False
    language_model: LanguageModel | None = None

    def __init__(
        self,
        vocab_size: int,
        *,
        dim: int,
        filter_size: int,
        heads: int,
        encoder_layers: int,
        dropout: float,
        label_smoothing: float,
        max_length_ratio: float,
    ):
        """Makes embeddings and encoder.

        Args:
          max_length_ratio: no output is longer than this times the source, plus 10 tokens.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__()
        self.require_whole(1, encoder_layers=encoder_layers, filter_size=filter_size, heads=heads)
        fits = type(dim) is int and dim >= 4 and dim % 2 == 0 and dim % heads == 0
        self.require(fits, "dim", dim, f"an even number, 4 or more, and a multiple of heads = {heads}")
        self.require_share(dropout=dropout, label_smoothing=label_smoothing)
        fits = is_number(max_length_ratio) and 0 < max_length_ratio <= 100
        self.require(fits, "max_length_ratio", max_length_ratio, "a number above 0, at most 100")
        self.dim = dim
        self.label_smoothing = label_smoothing
        self.max_length_ratio = max_length_ratio
        self.decoding = search.Settings()
        self.stack = {"dim": dim, "filter_size": filter_size, "heads": heads, "dropout": dropout}
        self.tokens = TokenEmbedding(vocab_size, dim, dropout, name="tokens")
        self.encoder = Transformer(encoder_layers, **self.stack, name="encoder")

    def build_weights(self) -> None:
        """Makes every variable; called once, under the strategy's scope."""
        ids = tf.fill([1, 8], EOS_ID)
        self({"inputs": ids, "targets": ids})

    def encode(self, inputs: tf.Tensor, training: Training | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the source's encoding [batch, length, dim] and its mask [batch, length]."""
        mask = inputs != PAD_ID
        embedded = self.tokens.placed(self.tokens(inputs), training)
        return self.encoder(embedded, mask=mask, training=training), mask

    def most_tokens(self, source_mask: tf.Tensor, group: int = 1) -> tuple[tf.Tensor, int | tf.Tensor]:
        """Returns the lengths that no output exceeds, int32 [batch], in groups of tokens, and the greatest of them.

        Where the length of the sources is static, the greatest is that of a source which fills it, a number.
        """
        real = tf.reduce_sum(tf.cast(source_mask, tf.float32), axis=-1)
        most = tf.cast(tf.math.ceil((self.max_length_ratio * real + 10.0) / group), tf.int32)
        if source_mask.shape[1] is None:
            return most, tf.reduce_max(most)
        longest = math.ceil((self.max_length_ratio * source_mask.shape[1] + 10.0) / group)
        return tf.minimum(most, longest), longest  # float32 may round up where a Python number does not

    def check_decoding(self) -> None:
        if self.decoding.seed and not self.decoding.temperature:
            raise UserError("decode.seed is of samples, and none are drawn; give decode.temperature, 1.0 say")
        if (
            self.decoding.length_penalty != 1
            and max(self.decoding.candidates, self.decoding.ctc_candidates) < 2
        ):
            raise UserError(
                "decode.length_penalty ranks candidates, of which there is one; it must be 1, or ask for more by "
                "decode.beam_size or decode.num_candidates, 4 say"
            )
        if self.writes_blanks:
            return
        for name, without in {"blank_penalty": 0, "lm_weight": 0, "ctc_candidates": 1, "pool": False}.items():
            if (value := getattr(self.decoding, name)) != without:
                raise UserError(
                    f"{self.registered_name} writes no blanks here, as a decoder with CTC does; "
                    f"decode.{name} must be {without}, not {value}"
                )

    def likeliest_labels(
        self, logits: tf.Tensor, mask: tf.Tensor, *, all_paths: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what CTC's places say as `decoding` searches, the best first, and the scores of that.

        `logits` are [batch, places, vocab], and `mask` [batch, places] says which places are real. What they say is
        int32 [batch, outputs, places], `decoding.ctc_candidates` of them, padded with 0, and nothing follows an eos.
        The scores [batch, outputs] are log P of the likeliest path, or those of `prefix_search`; with `all_paths`, for
        which a loop goes over the places, log P of the labels, and what n-grams add to that.

        Raises:
          UserError: `decoding` weighs n-grams, and there are none.
        """
        settings = self.decoding
        if settings.lm_weight and self.language_model is None:
            raise UserError(
                "decode.lm_weight weighs the n-grams of a run, and there are none; "
                "bin/ngrams --model_dir=RUN counts them"
            )
        if settings.searches_beginnings:
            labels, scores, said = prefix_search(
                logits,
                mask,
                self.language_model if settings.lm_weight else None,
                weight=settings.lm_weight,
                blank_penalty=settings.blank_penalty,
                beam_size=settings.ctc_beam_size,
                candidates=settings.ctc_candidates,
            )
        else:
            labels, scores = (x[:, None] for x in best_path(logits, mask, settings.blank_penalty))
            said = tf.zeros_like(scores)
        labels = tf.where(until_end(labels), labels, PAD_ID)
        if all_paths:
            there = scores > search.IMPOSSIBLE
            scores = tf.where(there, said + self._log_likelihoods(logits, mask, labels), scores)
        return labels, scores

    def _log_likelihoods(self, logits: tf.Tensor, mask: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns log P [batch, outputs] of `labels` [batch, outputs, length], summed over their paths."""
        shape = tf.shape(labels)
        rows = tf.reshape(labels, [shape[0] * shape[1], shape[2]])
        nats, _ = ctc_loss(logits, rows, count_real(mask), self.decoding.ctc_candidates)
        return tf.reshape(-nats, shape[:2])

    def token_losses(
        self, logits: tf.Tensor, targets: tf.Tensor, training: Training | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns nats and correctness of `logits` [positions, vocab] at `targets`, both of the targets' shape."""
        smoothing = 0.0 if training is None else self.label_smoothing
        flat = tf.reshape(targets, [-1])
        nll = losses.cross_entropy(logits, flat, smoothing)
        correct = tf.argmax(logits, axis=-1, output_type=tf.int32) == flat
        return tf.reshape(nll, tf.shape(targets)), tf.reshape(correct, tf.shape(targets))


def at_length(
    decode: Callable[[int | tf.Tensor], T],
    needed: tf.Tensor,
    longest: int | tf.Tensor,
    shares: Sequence[float] = _SHARES,
) -> T:
    """Returns `decode(length)` for a length of at least `needed` [...] and at most `longest`.

    Where `longest` is a number, `decode` is traced for a few static lengths, `shares` of it, the least of which that
    will do is chosen in the graph: what XLA compiles has no other way not to compute on padding. The results of
    all must have one shape.
    """
    needed = tf.reduce_max(needed)
    if not isinstance(longest, int):
        return decode(needed)
    lengths = sorted({math.ceil(longest * share) for share in shares})
    place = tf.reduce_sum(tf.cast(needed > tf.constant(lengths[:-1], tf.int32), tf.int32))
    return tf.switch_case(place, [functools.partial(decode, length) for length in lengths])


def spread(x: tf.Tensor, counts: tf.Tensor, lengths: tf.Tensor, longest: int | tf.Tensor) -> tf.Tensor:
    """Spreads the first `counts` [batch] entries of `x` [batch, source, ...] over `lengths` [batch] places.

    First goes to first and last to last; what lies beyond a row's length in the result [batch, longest, ...] is not
    meant to be read.
    """
    ends = tf.maximum(counts[:, None] - 1, 0)
    steps = tf.maximum(lengths[:, None] - 1, 1)
    places = (2 * tf.range(longest) * ends + steps) // (2 * steps)  # rounded
    x = tf.pad(
        x, [[0, 0], [0, 1], *([0, 0] for _ in x.shape[2:])]
    )  # something to read where no row has an entry
    return tf.gather(x, tf.minimum(places, ends), batch_dims=1)


def until_end(tokens: tf.Tensor) -> tf.Tensor:
    """Returns bool of the shape of `tokens` [..., length]: True up to the first eos, that included."""
    return tf.cumsum(tf.cast(tokens == EOS_ID, tf.int32), axis=-1, exclusive=True) == 0


def count_real(mask: tf.Tensor) -> tf.Tensor:
    """Returns how many places of each row of `mask` [batch, length] are real, int32 [batch]."""
    return tf.math.count_nonzero(mask, axis=1, dtype=tf.int32)


def token_count(targets: tf.Tensor) -> tf.Tensor:
    """Returns the number of real tokens, float32."""
    return tf.reduce_sum(tf.cast(targets != PAD_ID, tf.float32))


def without_pad(logits: tf.Tensor) -> tf.Tensor:
    """Gives padding, which is no token, no probability; float32 [..., vocab]."""
    logits = tf.cast(logits, tf.float32)
    return tf.where(tf.range(logits.shape[-1]) == PAD_ID, -1e9, logits)
