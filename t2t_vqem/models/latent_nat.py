"""The latent-variable non-autoregressive translator: P(y, z | x) (arXiv 1805.11063, section 4).

A target is compressed to codes z, 2^n_c times shorter; an autoregressive predictor learns P(z | x), and a
bidirectional decoder P(y | z, x), all tokens at once. The latent sequence ends itself with an end code.
"""

import keras
import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.bottlenecks.bottleneck import BottleneckOutput
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.errors import UserError
from t2t_vqem.layers import losses
from t2t_vqem.layers.attention import positions
from t2t_vqem.layers.convolution import Compressor, Decompressor
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.model import Features, Model, ModelOutput

PAD_ID, EOS_ID = 0, 1


def _require(holds: bool, parameter: str, value: object, wanted: str) -> None:
    if not holds:
        raise UserError(f"latent_nat.{parameter} is {value!r}; it must be {wanted}")


@registry.models.register("latent_nat")
class LatentNAT(Model):
    """Source encoder, target compressor, bottleneck, latent predictor, decompressor and decoder."""

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
        max_length_ratio: float = 2.0,
        beam_size: int = 1,
    ):
        """Makes the layers.

        Args:
          bottleneck: name of a registered bottleneck.
          num_codes: codebook size K.
          num_compress_steps: n_c; a latent stands for 2^n_c target tokens.
          reveal: share of the decoder's inputs that are true target embeddings at step 0, annealed linearly
            to none at `reveal_steps`.
          max_length_ratio: no output is longer than this times the source, plus 10 tokens.
          beam_size: of the search for latents. 1 is greedy; more decodes every candidate in parallel and takes
            the output with the best log P(y, z | x) a token.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__()
        counts = {"encoder_layers": encoder_layers, "predictor_layers": predictor_layers}
        counts |= {"decoder_layers": decoder_layers, "filter_size": filter_size, "heads": heads}
        counts |= {"beam_size": beam_size}
        for name, value in counts.items():
            _require(type(value) is int and value >= 1, name, value, "a whole number, 1 or more")
        for name, value in {"num_compress_steps": num_compress_steps, "reveal_steps": reveal_steps}.items():
            _require(type(value) is int and value >= 0, name, value, "a whole number, 0 or more")
        fits = type(dim) is int and dim >= 4 and dim % 2 == 0 and dim % heads == 0
        _require(fits, "dim", dim, f"an even number, 4 or more, and a multiple of heads = {heads}")
        for name, value in {"dropout": dropout, "label_smoothing": label_smoothing, "reveal": reveal}.items():
            _require(isinstance(value, int | float) and 0 <= value < 1, name, value, "in [0, 1)")
        positive = isinstance(max_length_ratio, int | float) and max_length_ratio > 0
        _require(positive, "max_length_ratio", max_length_ratio, "above 0")
        self.dim = dim
        self.group = 2**num_compress_steps
        self.num_codes = num_codes
        self.dropout = dropout
        self.label_smoothing = label_smoothing
        self.reveal = reveal
        self.reveal_steps = reveal_steps
        self.max_length_ratio = max_length_ratio
        self.beam_size = beam_size
        self.embedding = self.add_weight(
            name="embedding",
            shape=[vocab_size, dim],
            initializer=keras.initializers.RandomNormal(stddev=dim**-0.5),
        )
        stack = {"dim": dim, "filter_size": filter_size, "heads": heads, "dropout": dropout}
        self.encoder = Transformer(encoder_layers, **stack, name="encoder")
        self.compressor = Compressor(num_compress_steps, dim, dropout, name="compressor")
        self.bottleneck = registry.bottlenecks.get(bottleneck)(num_codes=num_codes, dim=dim)
        self.bottlenecks = {"latents": self.bottleneck}
        self.latent_in = keras.layers.Dense(dim, name="latent_in")
        self.latent_start = self.add_weight(name="latent_start", shape=[dim], initializer="zeros")
        self.predictor = Transformer(
            predictor_layers, **stack, causal=True, cross_attention=True, name="predictor"
        )
        self.latent_out = keras.layers.Dense(num_codes + 1, name="latent_out")  # the codes and the end code
        self.decompress_in = keras.layers.Dense(dim, name="decompress_in")
        self.decompressor = Decompressor(num_compress_steps, dim, dropout, name="decompressor")
        self.decoder = Transformer(decoder_layers, **stack, cross_attention=True, name="decoder")

    @property
    def end_code(self) -> int:
        """The predictor's class that ends a latent sequence."""
        return self.num_codes

    def build_weights(self) -> None:
        """Makes every variable; called once, under the strategy's scope."""
        ids = tf.fill([1, 2 * self.group], EOS_ID)
        self({"inputs": ids, "targets": ids})

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """`features`: "inputs" and "targets", int32 [batch, length], eos at the end, then pad."""
        targets = self._pad_to_group(features["targets"])
        token_mask = targets != PAD_ID
        memory, memory_mask = self.encode(features["inputs"], training)
        embedded = self._embed(targets, training)
        latents, latent_mask, encoded = self._discretise(embedded, token_mask, training)
        latent_nll, latent_metrics = self._latent_loss(latents, latent_mask, memory, memory_mask, training)

        hidden, hidden_mask = self._decompress(latents.quantized, latent_mask, training)
        hidden, revealed = self._reveal(hidden, embedded, training)
        logits = self._decode(hidden, hidden_mask, memory, memory_mask, training)

        flat_nll = losses.cross_entropy(
            logits, tf.reshape(targets, [-1]), self.label_smoothing if training is not None else 0.0
        )
        nll = tf.reshape(flat_nll, tf.shape(targets))
        hidden_share = 1.0 if training is None else 1.0 - self._reveal_share(training)
        scored = tf.cast(token_mask & ~revealed, tf.float32)
        # Dividing by the share that is hidden keeps the objective's scale while the reveal is annealed.
        token_loss = losses.masked_sum(nll / hidden_share, scored)
        tokens = tf.reduce_sum(tf.cast(token_mask, tf.float32))
        logits = tf.reshape(logits, [*tf.unstack(tf.shape(targets)), logits.shape[-1]])
        correct = tf.argmax(logits, axis=-1, output_type=tf.int32) == targets
        norm = tf.reduce_sum(tf.square(tf.cast(encoded, tf.float32)), axis=-1)
        return ModelOutput(
            logits=logits,
            losses={
                "nll": LossTerm(token_loss.sum, tokens),
                "latent_nll": latent_nll,
                "commitment_loss": latents.loss,
            },
            weight=tokens,
            statistics={"latents": latents.statistics},
            metrics={
                "token_accuracy": losses.masked_sum(correct, scored),
                "encoding_norm2": losses.masked_sum(norm, latent_mask),
                **latent_metrics,
                **latents.metrics,
            },
        )

    def infer(self, features: Features) -> Features:
        """Decodes "inputs" int32 [batch, length] from predicted latents.

        Returns "outputs" int32 [batch, positions] (pad after the first eos), "codes" int32 [batch, latents]
        and "code_mask" bool [batch, latents].
        """
        memory, memory_mask = self.encode(features["inputs"], None)
        if self.beam_size > 1:
            return self._infer_beam(memory, memory_mask)
        found = self.predict_latents(memory, memory_mask)
        code_mask = tf.sequence_mask(found.lengths, tf.shape(found.ids)[1])
        codes = tf.where(code_mask, found.ids, 0)
        outputs, _ = self.decode_codes(codes, code_mask, memory, memory_mask)
        return {"outputs": outputs, "codes": codes, "code_mask": code_mask}

    def _infer_beam(self, memory: tf.Tensor, memory_mask: tf.Tensor) -> Features:
        """Decodes every candidate of a beam and keeps the best by log P(y, z | x) / length of y."""
        batch, size = tf.shape(memory)[0], self.beam_size
        memory, memory_mask = (tf.repeat(x, size, axis=0) for x in (memory, memory_mask))
        step, caches, most = self._latent_step(memory, memory_mask)
        most = most[::size]
        beams = search.beam(
            step, caches, batch=batch, beam_size=size, start_id=0, end_id=self.end_code, max_length=most
        )
        ids = tf.reshape(beams.ids, [batch * size, -1])
        code_mask = tf.sequence_mask(tf.reshape(beams.lengths, [-1]), tf.shape(ids)[1])
        codes = tf.where(code_mask, ids, 0)
        outputs, score = self.decode_codes(codes, code_mask, memory, memory_mask)
        lengths = tf.reduce_sum(tf.cast(outputs != PAD_ID, tf.float32), axis=1)
        joint = (score + tf.reshape(beams.scores, [-1])) / tf.maximum(lengths, 1.0)
        best = tf.argmax(tf.reshape(joint, [batch, size]), axis=1, output_type=tf.int32)
        rows = tf.range(batch) * size + best
        found = {"outputs": outputs, "codes": codes, "code_mask": code_mask}
        return {name: tf.gather(value, rows) for name, value in found.items()}

    def reconstruct(self, features: Features) -> Features:
        """Decodes "targets" from their own (true) codes; returns what `infer` does."""
        targets = self._pad_to_group(features["targets"])
        memory, memory_mask = self.encode(features["inputs"], None)
        embedded = self._embed(targets, None)
        latents, code_mask, _ = self._discretise(embedded, targets != PAD_ID, None)
        outputs, _ = self.decode_codes(latents.codes, code_mask, memory, memory_mask)
        return {"outputs": outputs, "codes": latents.codes, "code_mask": code_mask}

    def encode(self, inputs: tf.Tensor, training: Training | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the source's encoding [batch, length, dim] and its mask [batch, length]."""
        mask = inputs != PAD_ID
        embedded = self._drop(self._add_positions(self._embed(inputs, None)), training)
        return self.encoder(embedded, mask=mask, training=training), mask

    def predict_latents(self, memory: tf.Tensor, memory_mask: tf.Tensor) -> search.Found:
        """Greedy search for the likeliest codes given the source."""
        step, caches, most = self._latent_step(memory, memory_mask)

        def ending_step(last: tf.Tensor, index: tf.Tensor, caches: list) -> tuple[tf.Tensor, list]:
            logits, caches = step(last, index, caches)
            return self._end_or_code(logits), caches

        batch = tf.shape(memory)[0]
        return search.greedy(
            ending_step, caches, batch=batch, start_id=0, end_id=self.end_code, max_length=most
        )

    def _latent_step(
        self, memory: tf.Tensor, memory_mask: tf.Tensor
    ) -> tuple[search.StepFunction, list, tf.Tensor]:
        """Returns the predictor as a search takes it: step function, empty caches, greatest lengths [batch]."""
        batch = tf.shape(memory)[0]
        length = tf.reduce_sum(tf.cast(memory_mask, tf.float32), axis=-1)
        most = tf.cast(tf.math.ceil((self.max_length_ratio * length + 10.0) / self.group), tf.int32)
        longest = tf.reduce_max(most)
        caches, key_values = self.predictor.start(memory, longest)
        place = positions(longest, self.dim, memory.dtype)

        def step(last: tf.Tensor, index: tf.Tensor, caches: list) -> tuple[tf.Tensor, list]:
            start = tf.broadcast_to(tf.cast(self.latent_start, memory.dtype), [batch, self.dim])
            embedded = self.latent_in(self.bottleneck.embed(tf.minimum(last, self.num_codes - 1)))
            x = tf.where(index == 0, start, tf.cast(embedded, memory.dtype)) + place[index]
            x, caches = self.predictor.step(x[:, None], caches, index, key_values, memory_mask)
            return self.latent_out(x[:, 0]), caches

        return step, caches, most

    def _end_or_code(self, logits: tf.Tensor) -> tf.Tensor:
        """Makes the end code the likeliest class [batch, codes + 1] just where it is likelier than all codes together.

        A continuation shares its mass among many codes; compared one by one, the end wins far too early.
        """
        codes, end = tf.split(tf.cast(logits, tf.float32), [self.num_codes, 1], axis=-1)
        best, going_on = (f(codes, axis=-1, keepdims=True) for f in (tf.reduce_max, tf.reduce_logsumexp))
        return tf.concat([codes - best, end - going_on], axis=-1)

    def decode_codes(
        self, codes: tf.Tensor, code_mask: tf.Tensor, memory: tf.Tensor, memory_mask: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the likeliest tokens given `codes` [batch, latents], and their log probability.

        Tokens are int32 [batch, latents * 2^n_c], pad after the first eos; the log probability [batch] is
        summed up to that eos.
        """
        hidden, hidden_mask = self._decompress(self.bottleneck.embed(codes), code_mask, None)
        logits = tf.cast(self._decode(hidden, hidden_mask, memory, memory_mask, None), tf.float32)
        tokens = tf.reshape(tf.argmax(logits, axis=-1, output_type=tf.int32), tf.shape(hidden_mask))
        best = tf.reduce_max(logits, axis=-1) - tf.reduce_logsumexp(logits, axis=-1)
        before = tf.cumsum(tf.cast(tokens == EOS_ID, tf.int32), axis=1, exclusive=True) == 0
        kept = before & hidden_mask
        score = tf.reduce_sum(tf.where(kept, tf.reshape(best, tf.shape(kept)), 0.0), axis=1)
        return tf.where(kept, tokens, PAD_ID), score

    def _pad_to_group(self, targets: tf.Tensor) -> tf.Tensor:
        length = targets.shape[1] if targets.shape[1] is not None else tf.shape(targets)[1]
        return tf.pad(targets, [[0, 0], [0, -length % self.group]])

    def _drop(self, x: tf.Tensor, training: Training | None) -> tf.Tensor:
        return x if training is None else training.dropout(x, self.dropout)

    def _add_positions(self, x: tf.Tensor) -> tf.Tensor:
        return x + positions(tf.shape(x)[1], self.dim, x.dtype)

    def _embed(self, ids: tf.Tensor, training: Training | None) -> tf.Tensor:
        table = tf.cast(tf.convert_to_tensor(self.embedding), self.compute_dtype)
        embedded = tf.gather(table, ids) * tf.cast(self.dim**0.5, table.dtype)
        return self._drop(embedded, training)

    def _discretise(
        self, embedded: tf.Tensor, token_mask: tf.Tensor, training: Training | None
    ) -> tuple[BottleneckOutput, tf.Tensor, tf.Tensor]:
        embedded = self._add_positions(embedded) * tf.cast(token_mask, embedded.dtype)[:, :, None]
        encoded, latent_mask = self.compressor(embedded, mask=token_mask, training=training)
        return self.bottleneck.e_step(encoded, latent_mask, training), latent_mask, encoded

    def _latent_loss(
        self,
        latents: BottleneckOutput,
        latent_mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        training: Training | None,
    ) -> tuple[LossTerm, dict[str, LossTerm]]:
        """Cross-entropy of the sampled codes and of the end code, under the predictor given the source."""
        batch, length = tf.shape(latent_mask)[0], tf.shape(latent_mask)[1]
        # Without the stop, the predictor's loss would leak into the compressor.
        previous = self.latent_in(tf.stop_gradient(latents.quantized))
        start = tf.broadcast_to(tf.cast(self.latent_start, previous.dtype), [batch, 1, self.dim])
        x = self._drop(self._add_positions(tf.concat([start, previous], axis=1)), training)
        ends = tf.reduce_sum(tf.cast(latent_mask, tf.int32), axis=1)
        # A row of padding alone, as fills the last batch of an evaluation, has no end code either.
        mask = tf.sequence_mask(tf.where(ends > 0, ends + 1, 0), length + 1)
        x = self.predictor(x, mask=mask, memory=memory, memory_mask=memory_mask, training=training)
        num_samples = latents.samples.shape[-1]
        samples = tf.pad(latents.samples, [[0, 0], [0, 1], [0, 0]])
        samples = tf.where(tf.sequence_mask(ends, length + 1)[:, :, None], samples, self.end_code)
        logits = self.latent_out(tf.reshape(x, [-1, self.dim]))
        flat = tf.reshape(samples, [-1, num_samples])
        nll = losses.soft_cross_entropy(logits, flat)
        correct = tf.argmax(logits, axis=-1, output_type=tf.int32)[:, None] == flat
        flat_mask = tf.reshape(mask, [-1])
        accuracy = losses.masked_sum(tf.reduce_mean(tf.cast(correct, tf.float32), axis=-1), flat_mask)
        return losses.masked_sum(nll, flat_mask), {"latent_accuracy": accuracy}

    def _decompress(
        self, quantized: tf.Tensor, latent_mask: tf.Tensor, training: Training | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        hidden = self._add_positions(self.decompress_in(tf.cast(quantized, self.compute_dtype)))
        return self.decompressor(hidden, mask=latent_mask, training=training)

    def _reveal_share(self, training: Training) -> tf.Tensor:
        step = tf.cast(training.step, tf.float32)
        return self.reveal * tf.maximum(0.0, 1.0 - step / float(max(1, self.reveal_steps)))

    def _reveal(
        self, hidden: tf.Tensor, embedded: tf.Tensor, training: Training | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Replaces a share of the decoder's inputs by true target embeddings; says where, [batch, length]."""
        shape = tf.shape(hidden)[:2]
        if training is None or self.reveal == 0.0:
            return hidden, tf.zeros(shape, tf.bool)
        revealed = training.uniform([hidden.shape[0], hidden.shape[1]]) < self._reveal_share(training)
        return tf.where(revealed[:, :, None], embedded, hidden), revealed

    def _decode(
        self,
        hidden: tf.Tensor,
        hidden_mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        training: Training | None,
    ) -> tf.Tensor:
        """Returns logits [batch * length, vocab]: two dimensions, or XLA makes a [batch, vocab, dim] gradient."""
        x = self._drop(self._add_positions(hidden), training)
        x = self.decoder(x, mask=hidden_mask, memory=memory, memory_mask=memory_mask, training=training)
        table = tf.cast(tf.convert_to_tensor(self.embedding), x.dtype)
        return tf.matmul(tf.reshape(x, [-1, self.dim]), table, transpose_b=True)
