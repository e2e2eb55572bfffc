"""The autoregressive Transformer (Vaswani et al. 2017, arXiv 1706.03762): baseline and teacher."""

import tensorflow as tf

from t2t_vqem import registry, search
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.layers import losses
from t2t_vqem.layers.attention import positions
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.model import Features, ModelOutput
from t2t_vqem.models.translation import EOS_ID, PAD_ID, TranslationModel, token_count, without_pad


@registry.models.register("transformer")
class AutoregressiveTransformer(TranslationModel):
    """P(y | x) as a product over tokens; pre-norm, all embeddings tied.

    A deep encoder with a shallow decoder (6 and 1, say) keeps the quality and saves most of the time, since
    only the decoder works token by token (Kasai et al. 2021, arXiv 2006.10369).
    """

    registered_name = "transformer"

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
        max_length_ratio: float = 2.0,
    ):
        """Makes the layers; raises a UserError for a parameter out of its range."""
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
        self.require_whole(1, decoder_layers=decoder_layers)
        self.decoder = Transformer(
            decoder_layers, **self.stack, causal=True, cross_attention=True, name="decoder"
        )

    def call(self, features: Features, training: Training | None = None) -> ModelOutput:
        """Teacher forcing: each target token from the source and the true tokens before it."""
        targets = features["targets"]
        memory, memory_mask = self.encode(features["inputs"], training)
        logits = self._logits(targets, memory, memory_mask, training)
        nll, correct = self.token_losses(logits, targets, training)
        mask, tokens = targets != PAD_ID, token_count(targets)
        return ModelOutput(
            logits=tf.reshape(logits, [*tf.unstack(tf.shape(targets)), logits.shape[-1]]),
            losses={"nll": LossTerm(losses.masked_sum(nll, mask).sum, tokens)},
            weight=tokens,
            statistics={},
            metrics={"token_accuracy": losses.masked_sum(correct, mask)},
        )

    def score(self, inputs: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        """Returns log P(candidate | inputs), float32 [batch, n], its eos included.

        Args:
          inputs: int32 [batch, source length].
          candidates: int32 [batch, n, length], pad after the eos.
        """
        batch, number, length = tf.unstack(tf.shape(candidates))
        memory, memory_mask = (tf.repeat(x, number, axis=0) for x in self.encode(inputs))
        targets = tf.reshape(candidates, [batch * number, length])
        logits = without_pad(self._logits(targets, memory, memory_mask, None))
        nll, _ = self.token_losses(logits, targets, None)
        score = -tf.reduce_sum(tf.where(targets != PAD_ID, nll, 0.0), axis=1)
        return tf.reshape(score, [batch, number])

    def infer(self, features: Features) -> Features:
        """Searches as `decoding` says, with a cache of keys and values, in one loop.

        Raises:
          UserError: see `check_decoding`.
        """
        self.check_decoding()
        inputs, settings = features["inputs"], self.decoding
        memory, memory_mask = self.encode(inputs)
        most, longest = self.most_tokens(memory_mask)
        memory, memory_mask = (tf.repeat(x, settings.width, axis=0) for x in (memory, memory_mask))
        caches, key_values = self.decoder.start(memory, longest)
        place = positions(longest, self.dim, memory.dtype)

        def step(last: tf.Tensor, index: tf.Tensor, caches: list) -> tuple[tf.Tensor, list]:
            x = tf.where(index == 0, tf.zeros([], memory.dtype), self.tokens(last)) + tf.gather(place, index)
            x, caches = self.decoder.step(x[:, None], caches, index, key_values, memory_mask)
            return without_pad(self.tokens.logits(x)), caches

        found = search.search(
            step,
            caches,
            settings,
            sources=inputs,
            start_id=PAD_ID,
            end_id=EOS_ID,
            max_length=most,
            longest=longest,
        )
        ids = tf.pad(found.ids, [[0, 0], [0, 0], [0, 1]], constant_values=EOS_ID)
        places = tf.range(tf.shape(ids)[2])
        outputs = tf.where(places <= found.lengths[:, :, None], ids, PAD_ID)
        return search.best_of(outputs, found.scores, settings) | {"calls": found.steps}

    def _logits(
        self, targets: tf.Tensor, memory: tf.Tensor, memory_mask: tf.Tensor, training: Training | None
    ) -> tf.Tensor:
        before = tf.pad(self.tokens(targets), [[0, 0], [1, 0], [0, 0]])[:, :-1]
        x = self.tokens.placed(before, training)
        # The causal mask hides padding from what is real; the padded rows themselves count nowhere.
        x = self.decoder(
            x, mask=tf.ones_like(targets, tf.bool), memory=memory, memory_mask=memory_mask, training=training
        )
        return self.tokens.logits(x)
