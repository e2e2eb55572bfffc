"""Connectionist temporal classification (Graves et al. 2006): labels from more frames than there are labels.

A path holds a class for every frame; the labels that it stands for are what is left when repeats are merged and
blanks dropped. Class 0, which is padding elsewhere and so never a label, is the blank.
"""

import tensorflow as tf

from t2t_vqem.fusion import fused

BLANK = 0
_NEVER = -1e9


def ctc_loss(
    logits: tf.Tensor, labels: tf.Tensor, frames: tf.Tensor, outputs: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns -log P(labels), the sum over all their paths, and whether they have a path at all.

    The forward algorithm in log space: a loop over time of a few small operations, vectorised over batch and
    labels. `tf.nn.ctc_loss` works with one-hots of the classes, and takes seconds where this takes milliseconds.

    Args:
      logits: [batch, time, classes].
      labels: int32 [batch * outputs, length], padded with 0.
      frames: int32 [batch], how many of the frames are real.
      outputs: rows of labels for each row of logits, one after the other.

    Returns:
      (float32 [batch * outputs] in nats, 0 where no path exists; bool [batch * outputs], False there.)
    """
    shape, length = tf.shape(logits), tf.shape(labels)[1]
    frames = tf.repeat(frames, outputs) if outputs > 1 else frames
    rows = shape[0] * outputs
    ids = tf.pad(labels, [[0, 0], [1, 0]], constant_values=BLANK)  # the blank's column comes first
    ids = tf.reshape(ids, [shape[0], 1, outputs * (length + 1)])
    ids = tf.broadcast_to(ids, [shape[0], shape[1], outputs * (length + 1)])
    flat_ids = tf.reshape(ids, [-1, outputs * (length + 1)])
    flat = _log_probabilities(tf.reshape(logits, [-1, logits.shape[-1]]), flat_ids)
    emitted = tf.transpose(tf.reshape(flat, tf.shape(ids)), [1, 0, 2])
    emitted = tf.reshape(emitted, [shape[1], rows, length + 1])
    # A label may follow its predecessor without a blank between unless the two are equal.
    differs = tf.pad(labels[:, 1:] != labels[:, :-1], [[0, 0], [1, 0]], constant_values=True)

    def step(state: tuple, now: tuple) -> tuple:
        at_blank, at_label = state
        time, log_probabilities = now
        arrived = _shifted(at_label)
        skipped = tf.where(differs, arrived[:, :-1], _NEVER)
        to_blank = _log_sum(at_blank, arrived) + log_probabilities[:, :1]
        to_label = _log_sum(at_label, at_blank[:, :-1], skipped) + log_probabilities[:, 1:]
        real = (time < frames)[:, None]
        return tf.where(real, to_blank, at_blank), tf.where(real, to_label, at_label)

    # at_blank[:, i] and at_label[:, i]: log P(i labels, then a blank), log P(i + 1 labels, the last just now).
    nothing = tf.broadcast_to(tf.where(tf.range(length + 1) == 0, 0.0, _NEVER), [rows, length + 1])
    start = (nothing, tf.fill([rows, length], _NEVER))
    at_blank, at_label = tf.foldl(step, (tf.range(shape[1]), emitted), start)
    count = tf.math.count_nonzero(labels, axis=1, dtype=tf.int32)
    ends = (tf.gather(x, count, batch_dims=1) for x in (at_blank, _shifted(at_label)))
    expressible = frames_needed(labels) <= frames
    return tf.where(expressible, -_log_sum(*ends), 0.0), expressible


def frames_needed(labels: tf.Tensor) -> tf.Tensor:
    """Returns int32 [batch], the length of the shortest path: each label, and a blank between two equal ones."""
    repeats = (labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] != BLANK)
    return sum(tf.math.count_nonzero(x, axis=1, dtype=tf.int32) for x in (labels, repeats))


def collapse(paths: tf.Tensor) -> tf.Tensor:
    """Returns the labels int32 [batch, time], padded with 0, that `paths` int32 [batch, time] stand for."""
    before = tf.pad(paths[:, :-1], [[0, 0], [1, 0]], constant_values=BLANK)
    kept = (paths != before) & (paths != BLANK)
    order = tf.argsort(tf.cast(~kept, tf.int32), axis=1, stable=True)
    return tf.gather(tf.where(kept, paths, BLANK), order, batch_dims=1)


def best_path(logits: tf.Tensor, mask: tf.Tensor, blank_penalty: float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the labels of the likeliest path, as `collapse`, and its log probability [batch].

    That is a lower bound of the labels' own, which sums over all their paths. `logits` [batch, time, classes];
    `mask` [batch, time] says which frames are real. `blank_penalty`, in nats, is taken off every blank when the path
    is chosen: labels share what a blank has to itself, so that the likeliest class of each frame is a blank too often.
    The probability is that of the chosen path without it.
    """
    logits = tf.cast(logits, tf.float32)
    favoured = logits - blank_penalty * tf.one_hot(BLANK, logits.shape[-1]) if blank_penalty else logits
    path = tf.where(mask, tf.argmax(favoured, axis=-1, output_type=tf.int32), BLANK)
    chosen = tf.gather(logits, path, batch_dims=2) - tf.reduce_logsumexp(logits, axis=-1)
    return collapse(path), tf.reduce_sum(tf.where(mask, chosen, 0.0), axis=1)


@fused
def _log_probabilities(logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Returns float32 [positions, n], those of `ids` [positions, n] under `logits` [positions, classes].

    Unfused, the gradient of the gather costs ten times the softmax.
    """
    logits = tf.cast(logits, tf.float32)
    return tf.gather(logits, ids, batch_dims=1) - tf.reduce_logsumexp(logits, axis=-1, keepdims=True)


def _shifted(at_label: tf.Tensor) -> tf.Tensor:
    return tf.pad(at_label, [[0, 0], [1, 0]], constant_values=_NEVER)


def _log_sum(*terms: tf.Tensor) -> tf.Tensor:
    return tf.reduce_logsumexp(tf.stack(terms), axis=0)
