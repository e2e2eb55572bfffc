"""P(z | x): the codes of a translation, one after the other, given the source (arXiv 1805.11063, section 4).

The sequence ends itself with an end code. Where the bottleneck has several slots, the codes of a latent follow one
after the other, and no latent ends before its last.
"""

import keras
import tensorflow as tf

from t2t_vqem import search
from t2t_vqem.bottlenecks.bottleneck import Bottleneck
from t2t_vqem.bottlenecks.posterior import sample
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.layers import losses
from t2t_vqem.layers.attention import positions
from t2t_vqem.layers.block import Block
from t2t_vqem.layers.embedding import placed
from t2t_vqem.layers.transformer import Transformer
from t2t_vqem.models.translation import count_real


class LatentPredictor(Block):
    """A causal Transformer over codes that attends to the source; its last class is the end code.

    Shapes: `samples` int32 [batch, latents, slots, m], of which m codes are read as their mean; `mask` bool
    [batch, latents], which latents are real; `memory` [batch, source, dim] and `memory_mask`, the encoded source;
    logits [batch, latents * slots + 1, num_codes + 1], each given the codes before it.
    """

    def __init__(
        self,
        bottleneck: Bottleneck,
        num_layers: int,
        *,
        dim: int,
        filter_size: int,
        heads: int,
        dropout: float,
        **kwargs,
    ):
        """`bottleneck` is the model's: its vectors are what the predictor reads of a code, and it never trains them."""
        super().__init__(**kwargs)
        self.bottleneck = bottleneck
        self.num_codes, self.slots = bottleneck.num_codes, bottleneck.slots
        self.dim, self.dropout = dim, dropout
        self.codes_in = keras.layers.Dense(dim, name="codes_in")
        self.start = self.add_weight(name="start", shape=[dim], initializer="zeros")
        self.stack = Transformer(
            num_layers, dim, filter_size, heads, dropout, causal=True, cross_attention=True, name="stack"
        )
        self.codes_out = keras.layers.Dense(self.num_codes + 1, name="codes_out")
        self.slot_places = None
        if self.slots > 1:
            self.slot_places = self.add_weight(
                name="slot_places", shape=[self.slots, dim], initializer="zeros"
            )

    @property
    def end_code(self) -> int:
        """The class that ends a sequence."""
        return self.num_codes

    def call(
        self,
        samples: tf.Tensor,
        mask: tf.Tensor,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        training: Training | None = None,
    ) -> tf.Tensor:
        """Teacher forcing: returns the logits of all codes at once."""
        batch, length = tf.shape(mask)[0], tf.shape(mask)[1] * self.slots
        # Without the stop, the predictor's loss would leak into the bottleneck.
        previous = self.codes_in(tf.stop_gradient(self._sums_of_parts(samples)))
        start = tf.broadcast_to(tf.cast(self.start, previous.dtype), [batch, 1, self.dim])
        x = tf.concat([start, previous], axis=1)
        if self.slot_places is not None:
            slots = tf.range(length + 1) % self.slots
            x += tf.cast(tf.gather(tf.convert_to_tensor(self.slot_places), slots), x.dtype)
        x = placed(x, self.dropout, training)
        with_end = _with_end(self._ends(mask), length)
        x = self.stack(x, mask=with_end, memory=memory, memory_mask=memory_mask, training=training)
        logits = self.codes_out(tf.reshape(x, [-1, self.dim]))
        return tf.reshape(logits, [batch, length + 1, logits.shape[-1]])

    def loss(
        self, logits: tf.Tensor, samples: tf.Tensor, mask: tf.Tensor
    ) -> tuple[LossTerm, dict[str, LossTerm]]:
        """Returns the nats of codes and end codes under `logits`, and "latent_accuracy", the likeliest class's."""
        num_samples, length = samples.shape[-1], tf.shape(mask)[1] * self.slots
        ends = self._ends(mask)
        samples = tf.reshape(samples, [-1, length, num_samples])
        samples = tf.pad(samples, [[0, 0], [0, 1], [0, 0]])
        samples = tf.where(tf.sequence_mask(ends, length + 1)[:, :, None], samples, self.end_code)
        flat, flat_logits = tf.reshape(samples, [-1, num_samples]), tf.reshape(logits, [-1, logits.shape[-1]])
        nll = losses.soft_cross_entropy(flat_logits, flat)
        correct = tf.argmax(flat_logits, axis=-1, output_type=tf.int32)[:, None] == flat
        flat_mask = tf.reshape(_with_end(ends, length), [-1])
        accuracy = losses.masked_sum(tf.reduce_mean(tf.cast(correct, tf.float32), axis=-1), flat_mask)
        return losses.masked_sum(nll, flat_mask), {"latent_accuracy": accuracy}

    def log_prior(
        self, samples: tf.Tensor, mask: tf.Tensor, memory: tf.Tensor, memory_mask: tf.Tensor
    ) -> tf.Tensor:
        """Returns log P of every code where the sequence goes on, float32 [batch, latents * slots, num_codes]."""
        # Said, for Keras would hand on the training context of the model's own call.
        logits = tf.cast(self(samples, mask, memory, memory_mask, training=None), tf.float32)
        return tf.nn.log_softmax(logits[:, :-1, :-1])

    def drawn(self, logits: tf.Tensor, mask: tf.Tensor, training: Training) -> tf.Tensor:
        """Returns the embedding [batch, latents, dim] of codes drawn from `logits`; no gradient passes it."""
        batch, latents = tf.unstack(tf.shape(mask))
        weights = tf.nn.softmax(tf.cast(tf.stop_gradient(logits[:, :-1, : self.num_codes]), tf.float32))
        draws = training.uniform([mask.shape[0], mask.shape[1] * self.slots])
        codes = sample(tf.reshape(weights, [-1, self.num_codes]), tf.reshape(draws, [-1, 1]))
        return tf.stop_gradient(self.bottleneck.embed(tf.reshape(codes, [batch, latents, self.slots])))

    def find(
        self,
        memory: tf.Tensor,
        memory_mask: tf.Tensor,
        inputs: tf.Tensor,
        decoding: search.Settings,
        most: tf.Tensor,
        longest: int | tf.Tensor,
    ) -> search.Found:
        """Searches for the likeliest codes of the source `inputs` int32 [batch, source], as `decoding` says.

        No sequence has more latents than `most` int32 [batch], the greatest of which is `longest` or less.
        """
        most, longest = most * self.slots, longest * self.slots
        memory, memory_mask = (tf.repeat(x, decoding.width, axis=0) for x in (memory, memory_mask))
        caches, key_values = self.stack.start(memory, longest)
        place = positions(longest, self.dim, memory.dtype)
        start = tf.cast(self.start, memory.dtype)

        def step(last: tf.Tensor, index: tf.Tensor, state: tuple) -> tuple[tf.Tensor, tuple]:
            slot, (before, caches) = index % self.slots, state
            codes = tf.repeat(tf.minimum(last, self.num_codes - 1)[:, None], self.slots, axis=1)
            added = tf.gather(self.bottleneck.parts(codes), (index - 1) % self.slots, axis=1)
            before = added + tf.where((index - 1) % self.slots == 0, 0.0, before)  # of this latent, so far
            embedded = tf.cast(self.codes_in(before), memory.dtype)
            x = tf.where(index == 0, start, embedded) + tf.gather(place, index)
            if self.slot_places is not None:
                x += tf.cast(tf.gather(tf.convert_to_tensor(self.slot_places), slot), x.dtype)
            x, caches = self.stack.step(x[:, None], caches, index, key_values, memory_mask)
            logits = self.codes_out(x[:, 0])
            end = tf.range(self.num_codes + 1) == self.end_code  # no latent ends before its last slot
            return tf.where(end & (slot > 0), tf.cast(-1e9, logits.dtype), logits), (before, caches)

        return search.search(
            step,
            (tf.zeros([tf.shape(memory)[0], self.dim]), caches),
            decoding,
            sources=inputs,
            start_id=0,
            end_id=self.end_code,
            max_length=most,
            longest=longest,
            choose=self._end_or_code,
        )

    def _end_or_code(self, logits: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """Takes the end code just where it is likelier than all codes together, else the likeliest code.

        A continuation shares its mass among many codes; compared one by one, the end wins far too early.
        """
        del index
        codes, end = tf.split(tf.cast(logits, tf.float32), [self.num_codes, 1], axis=-1)
        ends = end[:, 0] > tf.reduce_logsumexp(codes, axis=-1)
        return tf.where(ends, self.end_code, tf.argmax(codes, axis=-1, output_type=tf.int32))

    def _ends(self, mask: tf.Tensor) -> tf.Tensor:
        """Returns int32 [batch], where each row's end code stands."""
        return count_real(mask) * self.slots

    def _sums_of_parts(self, samples: tf.Tensor) -> tf.Tensor:
        """Returns of each slot the sum of what it and those before it add, [batch, latents * slots, dim]."""
        parts = self.bottleneck.parts(tf.einsum("blsm->blms", samples))
        sums = tf.cumsum(tf.reduce_mean(parts, axis=2), axis=2)
        return tf.reshape(sums, [tf.shape(samples)[0], -1, self.dim])


def _with_end(ends: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Returns bool [batch, length + 1]: the codes and the end code after them.

    A row of padding alone, as fills the last batch of an evaluation, has no end code either.
    """
    return tf.sequence_mask(tf.where(ends > 0, ends + 1, 0), length + 1)
