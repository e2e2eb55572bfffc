"""CTC's prefix search (arXiv 1408.2873): which labels are likely by the places and, with n-grams, by each other.

At each place every kept beginning of an output goes on with a label, or stays as it is by a blank or a repeat, and the
paths to equal beginnings are summed. A new label also weighs what the n-grams say of it after the labels before it, of
which CTC, whose places are independent of each other, knows nothing.
"""

from typing import NamedTuple

import tensorflow as tf

from t2t_vqem import ngrams

START = ngrams.START_ID + 1  # the key of what stands before the first label
_NEVER = -1e9
_BLANK, _END = 0, 1  # as layers.ctc and models.translation have them


class LanguageModel:
    """N-grams in the graph; made once, for whatever programs read them."""

    def __init__(self, counted: ngrams.NGrams):
        buckets = counted.buckets
        with tf.init_scope():  # they outlive the function that happens to ask first
            self.unigrams = [tf.constant(part) for part in counted.unigrams]
            self.starts, self.keys = tf.constant(buckets.starts), tf.constant(buckets.keys)
            self.values = [tf.constant(part) for part in buckets.values]
        self.order, self.digest = counted.order, counted.digest
        self.bits, self.slots = buckets.bits, buckets.slots

    def after(self, context: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns the key, int64, of the last tokens that count, of `labels` int32 after those of `context`."""
        return _put(_last(context, self.order - 2), labels)

    def log_probability(self, context: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Returns log P [rows, beginnings, labels] of `labels` int32 [rows, labels] after each of `context`.

        `context` int64 [rows, beginnings] are keys that `after` returned, or `START`.
        """
        sizes = range(2, self.order + 1)
        contexts = tf.stack([_last(context, size - 1) for size in sizes])
        keys = tf.concat([_put(contexts[..., None], labels[:, None]), contexts[..., None]], axis=-1)
        seen, places = self._look_up(keys)  # of the labels and, last, of what they stand after
        found = tf.gather(self.values[0], places[..., :-1])
        weights = tf.gather(self.values[1], places[1:, ..., -1])
        # Where nothing stands before the start, the context of a longer n-gram is that of a shorter one, and no other.
        known = seen[1:, ..., -1] & (contexts[1:] != contexts[:-1])
        of_unigrams = tf.gather(self.unigrams[1], tf.cast(contexts[:1] - 1, tf.int32))
        weights = tf.concat([of_unigrams, tf.where(known, weights, 0.0)], axis=0)
        result = tf.gather(self.unigrams[0], labels)[:, None]
        for i in range(len(sizes)):
            result = tf.where(seen[i, ..., :-1], found[i], weights[i, ..., None] + result)
        return result

    def _look_up(self, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns which of the keys [...] there are, and where their values stand."""
        spread = keys * tf.constant(ngrams.SPREAD - 2**64, tf.int64)
        hashes = tf.bitwise.right_shift(spread, tf.constant(64 - self.bits, tf.int64)) & (2**self.bits - 1)
        slots = tf.gather(self.starts, hashes)[..., None] + tf.range(self.slots)
        places = tf.reduce_max(tf.where(tf.gather(self.keys, slots) == keys[..., None], slots, -1), axis=-1)
        return places >= 0, tf.maximum(places, 0)


def _last(keys: tf.Tensor, tokens: int) -> tf.Tensor:
    return keys & (2 ** (ngrams.BITS * tokens) - 1)


def _put(keys: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return keys * 2**ngrams.BITS + tf.cast(labels, tf.int64) + 1


class _Beginnings(NamedTuple):
    """The beginnings that are kept, [rows, beginnings] each.

    Attributes:
      labels: int32 [rows, beginnings, places], padded with 0.
      length: int32, how many there are.
      last: int32, the last of them, 0 for none.
      name: int64, a hash of the labels.
      context: int64, the last of them for the language model.
      at_blank, at_label: log probabilities of all paths to them that end so.
      added: what the language model has to say of them.
    """

    labels: tf.Tensor
    length: tf.Tensor
    last: tf.Tensor
    name: tf.Tensor
    context: tf.Tensor
    at_blank: tf.Tensor
    at_label: tf.Tensor
    added: tf.Tensor


def prefix_search(
    logits: tf.Tensor,
    mask: tf.Tensor,
    model: LanguageModel | None,
    *,
    weight: float,
    blank_penalty: float,
    beam_size: int,
    candidates: int = 1,
    tried: int = 10,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the best labels, int32 [rows, candidates, places], their scores, and what the model adds to these.

    It adds `weight` times its log P of the labels to that of those paths to them that were followed, off which each
    blank takes `blank_penalty`. Labels are padded with 0, and none follows an eos. Scores and what is added are float32
    [rows, candidates], the best first; where there are fewer outputs than asked for, the rest have next to -1e9.

    Args:
      logits: [rows, places, classes].
      mask: bool [rows, places], which places are real; the first ones of each row.
      model: None adds nothing.
      beam_size: beginnings that are kept at each place, no fewer than `candidates`.
      tried: labels that are tried at each place, its likeliest.
    """
    rows, places, classes = tf.shape(logits)[0], tf.shape(logits)[1], logits.shape[-1]
    log_probabilities = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    likely, ids = tf.math.top_k(
        tf.where(tf.range(classes) == _BLANK, _NEVER, log_probabilities), min(tried, classes - 1)
    )
    blank = log_probabilities[:, :, _BLANK] - blank_penalty

    def step(old: _Beginnings, now: tuple) -> _Beginnings:
        real, log_probability, blank, likely, ids = now
        total = _log_sum(old.at_blank, old.at_label)
        at_blank = total + blank[:, None]
        at_label = old.at_label + tf.gather(log_probability, old.last, batch_dims=1)

        repeats = ids[:, None] == old.last[:, :, None]
        longer = tf.where(repeats, old.at_blank[:, :, None], total[:, :, None]) + likely[:, None]
        longer = tf.where((old.last == _END)[:, :, None], _NEVER, longer)
        names = _named(old.name[:, :, None], ids[:, None])
        # What a beginning becomes may be kept already, and then is no other: its paths are added to the one that is.
        same = names[:, :, :, None] == old.name[:, None, None, :]
        arrived = tf.reduce_max(tf.where(same, longer[..., None], _NEVER), axis=[1, 2])
        at_label = _log_sum(at_label, arrived)
        longer = tf.where(tf.reduce_any(same, axis=-1), _NEVER, longer)
        said = tf.zeros_like(longer) if model is None else weight * model.log_probability(old.context, ids)
        said += old.added[:, :, None]

        ranks = tf.concat([_log_sum(at_blank, at_label) + old.added, _flat(longer + said)], axis=1)
        _, chosen = tf.math.top_k(ranks, beam_size)
        kept = chosen < beam_size
        parents = tf.where(kept, chosen, (chosen - beam_size) // ids.shape[-1])
        given = _Beginnings(*(tf.gather(part, parents, batch_dims=1) for part in old))

        def of_new(x: tf.Tensor) -> tf.Tensor:
            return tf.gather(_flat(x), tf.maximum(chosen - beam_size, 0), batch_dims=1)

        label = of_new(tf.broadcast_to(ids[:, None], tf.shape(longer)))
        here = tf.range(places) == given.length[:, :, None]
        new = _Beginnings(
            labels=tf.where(here & ~kept[:, :, None], label[:, :, None], given.labels),
            length=given.length + tf.cast(~kept, tf.int32),
            last=tf.where(kept, given.last, label),
            name=tf.where(kept, given.name, of_new(names)),
            context=given.context
            if model is None
            else tf.where(kept, given.context, model.after(given.context, label)),
            at_blank=tf.where(kept, tf.gather(at_blank, parents, batch_dims=1), _NEVER),
            at_label=tf.where(kept, tf.gather(at_label, parents, batch_dims=1), of_new(longer)),
            added=tf.where(kept, given.added, of_new(said)),
        )
        return _Beginnings(*(_where(real, *parts) for parts in zip(new, old, strict=True)))

    def full(value: int | float, kind: tf.DType) -> tf.Tensor:
        return tf.fill([rows, beam_size], tf.constant(value, kind))

    first = tf.range(beam_size) == 0
    start = _Beginnings(
        labels=tf.zeros([rows, beam_size, places], tf.int32),
        length=full(0, tf.int32),
        last=full(_BLANK, tf.int32),
        # Only the first is there: the others have no paths, and names that no labels lead to.
        name=full(0, tf.int64) + tf.range(beam_size, dtype=tf.int64) * 2**32,
        context=full(START, tf.int64),
        at_blank=tf.where(first, full(0.0, tf.float32), _NEVER),
        at_label=full(_NEVER, tf.float32),
        added=full(0.0, tf.float32),
    )
    along = (mask, log_probabilities, blank, likely, ids)
    ended = tf.foldl(step, tuple(_places_first(x) for x in along), start)
    scores = _log_sum(ended.at_blank, ended.at_label) + ended.added
    scores, best = tf.math.top_k(scores, candidates)
    labels, added = (tf.gather(x, best, batch_dims=1) for x in (ended.labels, ended.added))
    return labels, scores, added


def _named(names: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the names of beginnings once `labels` follow them."""
    return (names + tf.cast(labels, tf.int64)) * tf.constant(ngrams.SPREAD - 2**64, tf.int64) + 1


def _log_sum(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.maximum(first, second) + tf.math.softplus(-tf.abs(first - second))


def _flat(x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(x, [tf.shape(x)[0], -1])


def _places_first(x: tf.Tensor) -> tf.Tensor:
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def _where(rows: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Returns `first` [rows, ...] where `rows` bool [rows], else `second`."""
    return tf.where(tf.reshape(rows, [-1] + [1] * (first.shape.rank - 1)), first, second)
