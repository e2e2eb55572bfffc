"""The latent-variable non-autoregressive translator: P(y, z | x) (arXiv 1805.11063, section 4).

A target is compressed to codes z, 2^n_c times shorter; an autoregressive predictor learns P(z | x), and a
bidirectional decoder P(y | z, x), all tokens at once.
"""

import keras
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.bottlenecks.bottleneck import BottleneckOutput
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.errors import UserError, is_number
from t2t_vqem.layers import losses
from t2t_vqem.layers.convolution import Compressor, Decompressor
from t2t_vqem.layers.ctc import ctc_loss
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.latent_predictor import LatentPredictor
from t2t_vqem.models.model import Features, ModelOutput
from t2t_vqem.models.translation import (
    FEW_SHARES,
    PAD_ID,
    TranslationModel,
    at_length,
    count_real,
    spread,
    token_count,
    until_end,
)

_MOST_COMPRESS_STEPS = 10  # a latent of 1,024 tokens


@registry.models.register("latent_nat")
class LatentNAT(TranslationModel):
    """Source encoder, target compressor, bottleneck, latent predictor, decompressor and decoder."""

    registered_name = "latent_nat"

    def __init__(
        self,
        vocab_size: int,
        *,
        bottleneck: str = "soft_em",
        num_codes: int = 4096,
        num_compress_steps: int = 3,
        dim: int = 512,
        filter_size: int = 2048,
        heads: int = 8,
        encoder_layers: int = 6,
        predictor_layers: int = 6,
        decoder_layers: int = 6,
        dropout: float = 0.1,
        label_smoothing: float = 0.0,
        reveal: float = 0.9,
        reveal_steps: int = 10_000,
        target_masking: float = 0.0,
        compressor_attends: bool = False,
        ctc_places: int = 0,
        ctc_from_source: bool = False,
        guessed: float = 0.0,
        prior_weight: float = 0.0,
        max_length_ratio: float = 2.0,
    ):
        """Makes the layers.

        Args:
          bottleneck: name of a registered bottleneck.
          num_codes: codebook size K.
          num_compress_steps: n_c; a latent stands for 2^n_c target tokens.
          label_smoothing: of the token at each place; with CTC, which has no one label a place, it has no effect.
          reveal: share of the decoder's inputs that are true target embeddings at step 0, annealed linearly
            to none at `reveal_steps`.
          target_masking: share of the target tokens that the compressor does not see in training.
          compressor_attends: whether the compressor also reads the source; no gain in the paper (section 4).
          ctc_places: 2 or more: as many places of the decoder for each token that the latents stand for, every one a
            token or a blank, and all alignments summed (CTC). 0: each token has one place, its own.
          ctc_from_source: whether there are `ctc_places` for each token of the source instead, which start from its
            encoding and the latents spread over them; a target that needs more places cannot be learnt or written.
          prior_weight: how much the predictor's log P(z | x) counts in the E-step beside -|x - code|^2 / temperature.
            0: codes have a uniform prior, as in the paper; 1: their posterior is the model's own; more: codes that the
            predictor finds are preferred.
          guessed: share of the latents that the decoder, in training, reads as the predictor draws them given the
            true ones before: it learns how far to trust them.
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
            dropout=dropout,
            label_smoothing=label_smoothing,
            max_length_ratio=max_length_ratio,
        )
        self.require_whole(1, predictor_layers=predictor_layers, decoder_layers=decoder_layers)
        self.require_whole(0, num_compress_steps=num_compress_steps, reveal_steps=reveal_steps)
        self.require_share(reveal=reveal, target_masking=target_masking, guessed=guessed)
        for name, value in {
            "compressor_attends": compressor_attends,
            "ctc_from_source": ctc_from_source,
        }.items():
            self.require(type(value) is bool, name, value, "True or False")
        fits = num_compress_steps <= _MOST_COMPRESS_STEPS
        self.require(fits, "num_compress_steps", num_compress_steps, f"{_MOST_COMPRESS_STEPS} or less")
        fits = type(ctc_places) is int and (ctc_places == 0 or ctc_places >= 2)
        self.require(fits, "ctc_places", ctc_places, "0, or a whole number of 2 or more")
        fits = bool(ctc_places) or not ctc_from_source
        self.require(fits, "ctc_from_source", ctc_from_source, "False where ctc_places = 0")
        fits = reveal == 0.0 or not ctc_from_source
        self.require(fits, "reveal", reveal, "0 with ctc_from_source, whose places are of no token")
        self.group = 2**num_compress_steps
        self.reveal = reveal
        self.reveal_steps = reveal_steps
        self.target_masking = target_masking
        self.guessed = guessed
        self.prior_weight = prior_weight
        self.compressor = Compressor(num_compress_steps, dim, dropout, name="compressor")
        self.source_reader = None
        if compressor_attends:
            self.source_reader = Transformer(1, **self.stack, cross_attention=True, name="source_reader")
        self.bottleneck = registry.bottlenecks.get(bottleneck)(num_codes=num_codes, dim=dim)
        self.bottlenecks = {"latents": self.bottleneck}
        fits = is_number(prior_weight) and 0 <= prior_weight < 100
        self.require(fits, "prior_weight", prior_weight, "a number of at least 0 and below 100")
        fits = self.bottleneck.takes_prior or not prior_weight
        self.require(fits, "prior_weight", prior_weight, f"0 with {bottleneck!r}, whose codes have no prior")
        self.slots = self.bottleneck.slots
        self.predictor = LatentPredictor(self.bottleneck, predictor_layers, **self.stack, name="predictor")
        self.decompress_in = keras.layers.Dense(dim, name="decompress_in")
        self.decompressor = Decompressor(num_compress_steps, dim, dropout, name="decompressor")
        self.places = max(1, ctc_places)
        self.ctc_from_source = ctc_from_source
        self.writes_blanks = bool(ctc_places)
        self.split = keras.layers.Dense(ctc_places * dim, name="split") if ctc_places else None
        self.decoder = Transformer(decoder_layers, **self.stack, cross_attention=True, name="decoder")

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """The bound on log P(y, z | x): codes of the target, their prediction, and the tokens given them."""
        targets = self._pad_to_group(features["targets"])
        token_mask = targets != PAD_ID
        memory, memory_mask = self.encode(features["inputs"], training)
        embedded = self.tokens(targets)
        latents, latent_mask, encoded = self._discretise(embedded, token_mask, memory, memory_mask, training)
        latent_logits = self.predictor(latents.samples, latent_mask, memory, memory_mask, training=training)
        latent_nll, latent_metrics = self.predictor.loss(latent_logits, latents.samples, latent_mask)

        quantized = self._guess(latents.quantized, latent_logits, latent_mask, training)
        hidden, hidden_mask = self._start(quantized, latent_mask, memory, memory_mask, training)
        hidden, revealed = self._reveal(hidden, embedded, training)
        logits = self._decode(hidden, hidden_mask, memory, memory_mask, training)
        if self.split is None:
            nll, token_metrics = self._place_loss(logits, targets, token_mask & ~revealed, training)
        else:
            nll, expressible, token_metrics = self._ctc_loss(logits, hidden_mask, targets)
            targets = tf.where(expressible[:, None], targets, PAD_ID)
        tokens = token_count(targets)
        norm = tf.reduce_sum(tf.square(tf.cast(encoded, tf.float32)), axis=-1)
        return ModelOutput(
            logits=logits,
            losses={
                "nll": LossTerm(nll, tokens),
                "latent_nll": latent_nll,
                "commitment_loss": latents.loss,
            },
            weight=tokens,
            statistics={"latents": latents.statistics},
            metrics={
                **token_metrics,
                "encoding_norm2": losses.masked_sum(norm, latent_mask),
                **latent_metrics,
                **latents.metrics,
            },
        )

    def check_decoding(self) -> None:
        super().check_decoding()
        if self.decoding.pool and not self.ctc_from_source:
            raise UserError(
                "decode.pool takes the mean at each of the source's places, and here places are those of latents; "
                f"leave it out, or train with {self.registered_name}.ctc_from_source = True"
            )

    def infer(self, features: Features) -> Features:
        """Decodes from predicted latents: searched for as `decoding` says, each then decoded in parallel.

        Candidates are ranked by log P(y, z | x), of which one candidate alone gets a lower bound with CTC: that of its
        path. N-grams, where they are weighed, add what they have to say of y. With `decoding.pool` outputs are read off
        the mean of the decoder's states over all latents that were found, each of which counts alike; their scores
        are those of `likeliest_labels` there, without P(z | x). Beside what every model returns: "codes" int32
        [batch, latents, slots] and "code_mask" bool [batch, latents] of the best, or with `decoding.pool` of the first.

        Raises:
          UserError: see `check_decoding`; or `decoding` weighs n-grams that are not there.
        """
        self.check_decoding()
        memory, memory_mask = self.encode(features["inputs"])
        limits = self.most_tokens(memory_mask, self.group)
        found = self.predictor.find(memory, memory_mask, features["inputs"], self.decoding, *limits)
        batch, number, written = tf.shape(memory)[0], self.decoding.candidates, self.decoding.outputs
        most = (found.ids.shape[2] or tf.shape(found.ids)[2]) // self.slots
        lengths = found.lengths // self.slots
        code_mask = tf.sequence_mask(lengths, most)
        codes = found.ids[:, :, : most * self.slots]  # the last step may have been an end code alone
        codes = tf.reshape(codes, [batch, number, most, self.slots])
        codes = tf.where(code_mask[..., None], codes, 0)
        memory, memory_mask = (tf.repeat(x, number, axis=0) for x in (memory, memory_mask))
        pooled = found.scores > search.IMPOSSIBLE if self.decoding.pool else None

        def start(length: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = [batch * number, length]
            own, mask = tf.reshape(codes[:, :, :length], [*rows, self.slots]), code_mask[:, :, :length]
            embedded = self.bottleneck.embed(own)
            return self._start(embedded, tf.reshape(mask, rows), memory, memory_mask, None)

        def read(hidden: tf.Tensor, hidden_mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            how = {"all_paths": written > 1, "pooled": pooled}
            return self._read(hidden, hidden_mask, memory, memory_mask, **how)

        def decode(length: int | tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            outputs, scores = read(*start(length))
            return tf.pad(outputs, [[0, 0], [0, 0], [0, (most - length) * self.group * self.places]]), scores

        if self.ctc_from_source:  # its places are as many whatever was found, so that one decoder does
            outputs, scores = read(*at_length(start, lengths, most, FEW_SHARES))
        else:
            outputs, scores = at_length(decode, lengths, most)
        outputs = tf.reshape(outputs, [batch, written, outputs.shape[2] or tf.shape(outputs)[2]])
        scores = tf.reshape(scores, [batch, written])
        if pooled is None:
            scores += tf.repeat(found.scores, self.decoding.ctc_candidates, axis=1)
        else:
            codes, code_mask = codes[:, :1], code_mask[:, :1]
        codes, code_mask = (tf.repeat(x, self.decoding.ctc_candidates, axis=1) for x in (codes, code_mask))
        best = search.best_of(outputs, scores, self.decoding, codes=codes, code_mask=code_mask)
        return best | {"calls": found.steps + 1}

    def reconstruct(self, features: Features) -> Features:
        """Decodes "targets" from their own (true) codes: "outputs", "codes" and "code_mask" as `infer`."""
        targets = self._pad_to_group(features["targets"])
        memory, memory_mask = self.encode(features["inputs"])
        embedded = self.tokens(targets)
        latents, code_mask, _ = self._discretise(embedded, targets != PAD_ID, memory, memory_mask, None)
        outputs, _ = self.decode_codes(latents.codes, code_mask, memory, memory_mask)
        return {"outputs": outputs[:, 0], "codes": latents.codes, "code_mask": code_mask}

    def decode_codes(
        self, codes: tf.Tensor, code_mask: tf.Tensor, memory: tf.Tensor, memory_mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the likeliest tokens given `codes` [batch, latents, slots], and their log probabilities.

        Tokens are int32 [batch, outputs, latents * 2^n_c * places], or [batch, outputs, source * places] with
        `ctc_from_source`, pad after the first eos; there is one output, and its log probability [batch, outputs] is
        summed up to that eos. With CTC outputs and scores are those of `likeliest_labels`.
        """
        hidden, hidden_mask = self._start(self.bottleneck.embed(codes), code_mask, memory, memory_mask, None)
        return self._read(hidden, hidden_mask, memory, memory_mask)

    def _read(
        self,
        hidden: tf.Tensor,
        hidden_mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        *,
        all_paths: bool = False,
        pooled: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what `decode_codes` does, of what `_start` made of the codes; `all_paths` as in `likeliest_labels`.

        With `pooled`, bool [batch / n, n], each n rows are of one source and are read as one, made of those that it
        names: off the mean of the states at each place, whose logits give the geometric mean of what each row's say.
        """
        logits = tf.cast(self._decode(hidden, hidden_mask, memory, memory_mask, None, pooled), tf.float32)
        if pooled is not None:
            hidden_mask = hidden_mask[:: pooled.shape[1]]
        if self.split is not None:
            return self.likeliest_labels(logits, hidden_mask, all_paths=all_paths)
        tokens = tf.argmax(logits, axis=-1, output_type=tf.int32)
        best = tf.reduce_max(logits, axis=-1) - tf.reduce_logsumexp(logits, axis=-1)
        kept = until_end(tokens) & hidden_mask
        score = tf.reduce_sum(tf.where(kept, best, 0.0), axis=1)
        return tf.where(kept, tokens, PAD_ID)[:, None], score[:, None]

    def _pad_to_group(self, targets: tf.Tensor) -> tf.Tensor:
        length = targets.shape[1] if targets.shape[1] is not None else tf.shape(targets)[1]
        return tf.pad(targets, [[0, 0], [0, -length % self.group]])

    def _discretise(
        self,
        embedded: tf.Tensor,
        token_mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        training: Training | None,
    ) -> tuple[BottleneckOutput, tf.Tensor, tf.Tensor]:
        if training is not None and self.target_masking:
            seen = training.uniform([embedded.shape[0], embedded.shape[1]]) >= self.target_masking
            embedded = tf.where(seen[:, :, None], embedded, 0)
        x = self.tokens.placed(embedded, training)
        if self.source_reader is not None:
            x = self.source_reader(
                x, mask=token_mask, memory=memory, memory_mask=memory_mask, training=training
            )
        x *= tf.cast(token_mask, x.dtype)[:, :, None]
        encoded, latent_mask = self.compressor(x, mask=token_mask, training=training)
        if not self.prior_weight:
            return self.bottleneck.e_step(encoded, latent_mask, training), latent_mask, encoded
        # A code's prior is conditioned on the nearest codes before it: those that the E-step takes are not known yet.
        nearest = self.bottleneck.e_step(encoded, latent_mask).samples
        log_prior = self.prior_weight * self.predictor.log_prior(nearest, latent_mask, memory, memory_mask)
        return self.bottleneck.e_step(encoded, latent_mask, training, log_prior), latent_mask, encoded

    def _place_loss(
        self, logits: tf.Tensor, targets: tf.Tensor, scored: tf.Tensor, training: Training | None
    ) -> tuple[tf.Tensor, dict[str, LossTerm]]:
        """Cross-entropy, in nats, of each token at its own place, where `scored` [batch, length]."""
        nll, correct = self.token_losses(tf.reshape(logits, [-1, logits.shape[-1]]), targets, training)
        # Dividing by the share that is hidden keeps the objective's scale while the reveal is annealed.
        hidden_share = 1.0 if training is None else 1.0 - self._reveal_share(training)
        scored = tf.cast(scored, tf.float32)
        accuracy = losses.masked_sum(correct, scored)
        return losses.masked_sum(nll / hidden_share, scored).sum, {"token_accuracy": accuracy}

    def _guess(
        self, quantized: tf.Tensor, logits: tf.Tensor, latent_mask: tf.Tensor, training: Training | None
    ) -> tf.Tensor:
        """Replaces a share of `quantized` [batch, latents, dim] by what the predictor draws from `logits`."""
        if training is None or self.guessed == 0.0:
            return quantized
        drawn = self.predictor.drawn(logits, latent_mask, training)
        guessed = (training.uniform([quantized.shape[0], quantized.shape[1]]) < self.guessed) & latent_mask
        return tf.where(guessed[:, :, None], tf.cast(drawn, quantized.dtype), quantized)

    def _start(
        self,
        quantized: tf.Tensor,
        latent_mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        training: Training | None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what each place of the decoder starts from, [batch, places, dim], and which places are real."""
        hidden = self.tokens.placed(self.decompress_in(tf.cast(quantized, self.compute_dtype)))
        hidden, mask = self.decompressor(hidden, mask=latent_mask, training=training)
        if self.split is None:
            return hidden, mask
        given, given_mask = (memory, memory_mask) if self.ctc_from_source else (hidden, mask)
        places = tf.reshape(self.split(given), [tf.shape(given)[0], -1, self.dim])
        places_mask = tf.repeat(given_mask, self.places, axis=1)
        if self.ctc_from_source:
            hidden *= tf.cast(mask, hidden.dtype)[:, :, None]
            places += spread(hidden, count_real(mask), count_real(places_mask), tf.shape(places)[1])
        return places, places_mask

    def _ctc_loss(
        self, logits: tf.Tensor, mask: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, LossTerm]]:
        """Nats of all alignments of the targets to their places, and which targets [batch] have one at all."""
        nll, expressible = ctc_loss(logits, targets, count_real(mask))
        metrics = {}
        if self.ctc_from_source:
            metrics["ctc_too_short"] = losses.masked_sum(~expressible, targets[:, 0] != PAD_ID)
        return tf.reduce_sum(nll), expressible, metrics

    def _reveal_share(self, training: Training) -> tf.Tensor:
        step = tf.cast(training.step, tf.float32)
        return self.reveal * tf.maximum(0.0, 1.0 - step / float(max(1, self.reveal_steps)))

    def _reveal(
        self, hidden: tf.Tensor, embedded: tf.Tensor, training: Training | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Replaces a share of the decoder's inputs by true target embeddings; says where, [batch, places]."""
        if training is None or self.reveal == 0.0:
            return hidden, tf.zeros(tf.shape(hidden)[:2], tf.bool)
        revealed = training.uniform([hidden.shape[0], hidden.shape[1]]) < self._reveal_share(training)
        shown = tf.repeat(embedded, self.places, axis=1)
        return tf.where(revealed[:, :, None], shown, hidden), revealed

    def _decode(
        self,
        hidden: tf.Tensor,
        hidden_mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        training: Training | None,
        pooled: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns logits [batch, places, vocab], `pooled` as in `_read`."""
        x = self.tokens.placed(hidden, training)
        x = self.decoder(x, mask=hidden_mask, memory=memory, memory_mask=memory_mask, training=training)
        if pooled is not None:
            x = _mean(x, pooled)
        logits = self.tokens.logits(x)
        return tf.reshape(logits, [*tf.unstack(tf.shape(x)[:2]), logits.shape[-1]])


def _mean(states: tf.Tensor, pooled: tf.Tensor) -> tf.Tensor:
    """Returns the mean [batch, places, dim] over those of `states` [batch * n, places, dim] that `pooled` names."""
    weights = tf.cast(pooled, tf.float32)
    weights /= tf.maximum(tf.reduce_sum(weights, axis=1, keepdims=True), 1.0)
    apart = tf.reshape(states, [*tf.unstack(tf.shape(pooled)), tf.shape(states)[1], states.shape[2]])
    return tf.einsum("bn,bnpd->bpd", tf.cast(weights, states.dtype), apart)
