"""What translators that write all tokens in one pass share: a bidirectional decoder over given places."""

import tensorflow as tf

from t2t_vqem.context import Training
from t2t_vqem.errors import UserError
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.translation import TranslationModel


class OnePassTranslator(TranslationModel):
    """Decodes without latent variables: given x and the places, the tokens are independent of each other."""

    def __init__(self, vocab_size: int, *, decoder_layers: int, **shared):
        """Makes the layers; `shared` are the parameters of `TranslationModel`.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        super().__init__(vocab_size, **shared)
        self.require_whole(1, decoder_layers=decoder_layers)
        self.decoder = Transformer(decoder_layers, **self.stack, cross_attention=True, name="decoder")

    def decode(
        self,
        x: tf.Tensor,
        mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        training: Training | None = None,
    ) -> tf.Tensor:
        """Returns logits [batch, length, vocab] of all places at once.

        `x` [batch, length, dim] says what each place starts from; `mask` [batch, length] which are real.
        """
        x = self.tokens.placed(x, training)
        x = self.decoder(x, mask=mask, memory=memory, memory_mask=memory_mask, training=training)
        logits = self.tokens.logits(x)
        return tf.reshape(logits, [*tf.unstack(tf.shape(mask)), logits.shape[-1]])

    def check_decoding(self) -> None:
        super().check_decoding()
        if self.decoding.temperature:
            raise UserError(
                f"{self.registered_name} draws no samples but takes the likeliest of each place; "
                f"decode.temperature must be 0, not {self.decoding.temperature}"
            )
