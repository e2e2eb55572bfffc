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
        return _shaped_like(start, (index + 1, ended, chosen, lengths, ids, state))

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


def _shaped_like(start: State, values: State) -> State:
    """Returns `values` with the static shapes of `start`, which a loop must keep."""
    return tf.nest.map_structure(lambda old, new: tf.ensure_shape(new, old.shape), start, values)


class Beams(NamedTuple):
    """The likeliest sequences found, the best first.

    Attributes:
      ids: int32 [batch, beam_size, steps], `end_id` from the end of each sequence on.
      lengths: int32 [batch, beam_size], without the end.
      scores: float32 [batch, beam_size], log probabilities, that of the end included.
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor


def beam(
    step: StepFunction,
    state: State,
    *,
    batch: tf.Tensor,
    beam_size: int,
    start_id: int,
    end_id: int,
    max_length: tf.Tensor,
) -> Beams:
    """Keeps the `beam_size` likeliest beginnings, and the `beam_size` sequences of the best mean log probability.

    Args:
      step: as `greedy` takes it, for rows [batch * beam_size]; `end_id` is its last class.
      state: a nest of tensors [batch * beam_size, ...] of constant shape.
      max_length: int32 [batch]; a sequence ends before it has that many ids.
    """
    longest = tf.reduce_max(max_length)
    places = tf.range(longest)
    never = -1e9

    def body(index, ids, scores, ended: Beams, means, last, state):
        logits, state = step(tf.reshape(last, [-1]), index, state)
        log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        log_probabilities = tf.reshape(log_probabilities, [batch, beam_size, -1])
        allowed = (index < max_length)[:, None]
        ending = tf.where(allowed, scores + log_probabilities[:, :, end_id], never)
        mean = tf.where(ending > never / 2, ending / tf.cast(index + 1, tf.float32), never)
        merged = Beams(
            tf.concat([ended.ids, ids], axis=1),
            tf.concat([ended.lengths, tf.fill([batch, beam_size], index)], axis=1),
            tf.concat([ended.scores, ending], axis=1),
        )
        means, kept = tf.math.top_k(tf.concat([means, mean], axis=1), beam_size)
        ended = Beams(*(tf.gather(part, kept, batch_dims=1) for part in merged))

        totals = scores[:, :, None] + log_probabilities[:, :, :end_id]
        totals = tf.reshape(totals, [batch, beam_size * end_id])
        scores, chosen = tf.math.top_k(totals, beam_size)
        parents, last = chosen // end_id, chosen % end_id
        ids = tf.where(places == index, last[:, :, None], tf.gather(ids, parents, batch_dims=1))
        rows = tf.reshape(tf.range(batch)[:, None] * beam_size + parents, [-1])
        return (
            index + 1,
            ids,
            scores,
            ended,
            means,
            last,
            tf.nest.map_structure(lambda x: tf.gather(x, rows), state),
        )

    nothing = tf.fill([batch, beam_size, longest], end_id)
    impossible = tf.fill([batch, beam_size], never)
    start = (
        tf.constant(0),
        nothing,
        tf.concat([tf.zeros([batch, 1]), impossible[:, 1:]], axis=1),
        Beams(nothing, tf.zeros([batch, beam_size], tf.int32), impossible),
        impossible,
        tf.fill([batch, beam_size], start_id),
        state,
    )
    result = tf.while_loop(lambda index, *_: index < longest, body, start)
    return result[3]
