"""The non-autoregressive Transformer with CTC (Libovicky & Helcl 2018, arXiv 1811.04719; Gu & Kong 2021).

Each source position becomes several places of the decoder, more than the target is long. A place holds a token or
a blank, and all alignments of the target to the places are summed: no length is predicted, and a token a place too
early costs nothing.
"""

import keras
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.errors import UserError
from t2t_vqem.layers import losses
from t2t_vqem.layers.ctc import ctc_loss
from t2t_vqem.models.model import Features, ModelOutput
from t2t_vqem.models.one_pass import OnePassTranslator
from t2t_vqem.models.translation import EOS_ID, PAD_ID, count_real, token_count


@registry.models.register("nat_ctc")
class CTCNAT(OnePassTranslator):
    """Source encoder, upsampling, bidirectional decoder, CTC; the class of padding, never a token, is the blank."""

    registered_name = "nat_ctc"
    writes_blanks = True

    def __init__(
        self,
        vocab_size: int,
        *,
        upsample: int = 2,
        dim: int = 512,
        filter_size: int = 2048,
        heads: int = 8,
        encoder_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.1,
    ):
        """Makes the layers.

        Args:
          upsample: places of the decoder for each source token; longer targets cannot be learnt or written.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        fits = type(upsample) is int and 1 <= upsample <= 100
        self.require(fits, "upsample", upsample, "a whole number, at least 1 and at most 100")
        super().__init__(
            vocab_size,
            dim=dim,
            filter_size=filter_size,
            heads=heads,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            dropout=dropout,
            label_smoothing=0.0,  # CTC has no one label a place to smooth
            max_length_ratio=upsample,
        )
        self.upsample = upsample
        self.split = keras.layers.Dense(upsample * dim, name="split")

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """-log P(y | x) of the targets, eos included, that the places can express.

        The others have no gradient and no weight; "ctc_too_short" is their share of the sentences.
        """
        inputs, targets = features["inputs"], features["targets"]
        logits, mask = self._decode(inputs, training)
        frames = count_real(mask)
        nll, expressible = ctc_loss(logits, targets, frames)
        tokens = token_count(tf.where(expressible[:, None], targets, PAD_ID))
        return ModelOutput(
            logits=logits,
            losses={"nll": LossTerm(tf.reduce_sum(nll), tokens)},
            weight=tokens,
            statistics={},
            metrics={"ctc_too_short": losses.masked_sum(~expressible, targets[:, 0] != PAD_ID)},
        )

    def check_decoding(self) -> None:
        super().check_decoding()
        if self.decoding.beam_size > 1 or self.decoding.candidates > 1:
            raise UserError(
                f"{self.registered_name} searches CTC's places alone: decode.beam_size and decode.num_candidates must "
                "not be above 1, and decode.pool has nothing to pool; decode.ctc_candidates asks for several outputs"
            )

    def infer(self, features: Features) -> Features:
        """Takes the likeliest class at each place, merges repeats, drops blanks and ends at the first eos.

        A blank has to be ahead by `decode.blank_penalty`. With n-grams (`decode.lm_weight`) or several candidates
        (`decode.ctc_candidates`) beginnings of outputs are kept beside each other instead. One candidate has the score
        of `likeliest_labels`, several that of all their paths.

        Raises:
          UserError: see `check_decoding`; or `decoding` weighs n-grams that are not there.
        """
        self.check_decoding()
        logits, mask = self._decode(features["inputs"])
        labels, scores = self.likeliest_labels(logits, mask, all_paths=self.decoding.outputs > 1)
        tokens = tf.where(labels != EOS_ID, labels, PAD_ID)
        ends = tf.one_hot(
            tf.math.count_nonzero(tokens, axis=-1), tf.shape(tokens)[-1] + 1, EOS_ID, dtype=tf.int32
        )
        outputs = tf.pad(tokens, [[0, 0], [0, 0], [0, 1]]) + ends
        return search.best_of(outputs, scores, self.decoding) | {"calls": tf.constant(1)}

    def _decode(self, inputs: tf.Tensor, training: Training | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns logits [batch, places, vocab], and which places are real, bool [batch, places]."""
        memory, memory_mask = self.encode(inputs, training)
        x = tf.reshape(self.split(memory), [tf.shape(memory)[0], -1, self.dim])
        mask = tf.repeat(memory_mask, self.upsample, axis=1)
        return self.decode(x, mask, memory, memory_mask, training), mask
