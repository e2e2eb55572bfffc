"""Search over any step function: one code for tokens and for latents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

State = Any
StepFunction = Callable[[tf.Tensor, tf.Tensor, State], tuple[tf.Tensor, State]]


class Found(NamedTuple):
    """Sequences found.

    Attributes:
      ids: int32 [batch, steps], `end_id` from the end of each sequence on.
      lengths: int32 [batch], without the end.
    """

    ids: tf.Tensor
    lengths: tf.Tensor


def greedy(
    step: StepFunction, state: State, *, batch: tf.Tensor, start_id: int, end_id: int, max_length: tf.Tensor
) -> Found:
    """Takes the likeliest id at each step until every sequence has ended.

    Args:
      step: (ids [batch] chosen last, index, state) -> (logits [batch, classes], state).
      state: a nest of tensors of constant shape.
      max_length: int32 [batch], the number of ids after which a sequence ends of itself.
    """
    longest = tf.reduce_max(max_length)

    def unfinished(index, ended, *_):
        return (index < longest) & ~tf.reduce_all(ended)

    def body(index, ended, last, lengths, ids, state):
        logits, state = step(last, index, state)
        chosen = tf.argmax(logits, axis=-1, output_type=tf.int32)
        ended |= chosen == end_id
        chosen = tf.where(ended, end_id, chosen)
        lengths += tf.cast(~ended, tf.int32)
        ended |= index + 1 >= max_length
        ids = tf.where(places == index, chosen[:, None], ids)
        return index + 1, ended, chosen, lengths, ids, state

    places = tf.range(longest)[None, :]
    start = (
        tf.constant(0),
        tf.zeros([batch], tf.bool),
        tf.fill([batch], start_id),
        tf.zeros([batch], tf.int32),
        tf.fill([batch, longest], end_id),
        state,
    )
    steps, _, _, lengths, ids, _ = tf.while_loop(unfinished, body, start)
    return Found(ids[:, :steps], lengths)
