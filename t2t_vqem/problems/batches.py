"""Batches of sequence pairs: bucketed by length, sized in tokens, in a random order that the seed fixes.

An epoch reads the shards in a random order, several in turn, through a modest buffer that shuffles once
more; each epoch has another order. Nothing else is random, and the state of it all is in the iterator: a
saved one restores the exact next batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from t2t_vqem.errors import UserError

SHUFFLE_BUFFER = 4096  # examples; shards are shuffled on disk, so this only varies the epochs
_CYCLE = 16  # shards read in turn


@dataclasses.dataclass(frozen=True)
class Batching:
    """How examples are grouped.

    Attributes:
      batch_tokens: padded tokens of one side in a global optimizer step; of pictures, their numbers (height x
        width x channels).
      boundaries: the lengths that sequences are padded to, eos included, ascending; pictures need no padding.
      rows_multiple: rows are a multiple of this (replicas x micro-batches).
      steps_per_call: batches of one bucket that make one element of the training data.

    Raises:
      UserError: a number is not positive, or the boundaries do not ascend.
    """

    batch_tokens: int
    boundaries: tuple[int, ...]
    rows_multiple: int = 1
    steps_per_call: int = 1

    def __post_init__(self):
        for name in ("batch_tokens", "rows_multiple", "steps_per_call"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        ascending = list(self.boundaries) == sorted(set(self.boundaries))
        if not self.boundaries or self.boundaries[0] < 1 or not ascending:
            raise UserError(f"boundaries must be positive and ascend, not {tuple(self.boundaries)}")

    @property
    def max_length(self) -> int:
        return self.boundaries[-1]

    def rows(self, boundary: int) -> int:
        """Returns the rows of a batch of examples of that length: as many as batch_tokens holds."""
        multiple = self.rows_multiple
        return max(multiple, self.batch_tokens // boundary // multiple * multiple)

    def shapes(self) -> list[dict[str, tuple[int, ...]]]:
        """Returns the shapes of the training elements, one a bucket, the smallest first."""
        shapes = [(self.steps_per_call, self.rows(boundary), boundary) for boundary in self.boundaries]
        return [{"inputs": shape, "targets": shape} for shape in shapes]

    def too_long(self, lengths: Mapping[int, int]) -> int:
        """Returns how many examples of a histogram (length -> examples) no boundary holds."""
        return sum(count for length, count in lengths.items() if length > self.max_length)


def shuffled_records(
    paths: Sequence[str],
    *,
    seed: int,
    input_pipeline: tuple[int, int] = (0, 1),
    buffer: int = SHUFFLE_BUFFER,
) -> tf.data.Dataset:
    """Returns the records of TFRecord files without end, each epoch in another order, which the seed fixes.

    Args:
      buffer: records that wait to be drawn from; a saved iterator holds them.
    """
    index, count = input_pipeline
    files = tf.data.Dataset.from_tensor_slices(list(paths)).shuffle(len(paths), seed)
    records = files.interleave(tf.data.TFRecordDataset, cycle_length=_CYCLE, block_length=4)
    return records.shard(count, index).shuffle(buffer, seed).repeat()


def with_options(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the same batches in an order that is fixed, for readers that share them out themselves."""
    options = tf.data.Options()
    options.deterministic = True
    # nothing here is left to be tuned, and the thread that would do it holds up the end of a run for up to a minute
    options.autotune.enabled = False
    # readers are told their share by input_pipeline; tf.distribute must not divide it again
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options)


def training_batches(
    paths: Sequence[str], batching: Batching, *, seed: int, input_pipeline: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Returns {"inputs", "targets"}, int32 [steps_per_call, rows, boundary] each, without end.

    An example belongs to the smallest boundary that holds both sides; those that none holds are left out.
    What is left in a bucket at the end of an epoch waits for the next. Each of several input pipelines takes
    every count-th example of the same order.
    """
    examples = shuffled_records(paths, seed=seed, input_pipeline=input_pipeline)
    examples = examples.map(_parse, num_parallel_calls=2, deterministic=True)
    examples = examples.filter(lambda pair: _length(pair) <= batching.max_length)
    steps = batching.steps_per_call

    def stack(bucket: tf.Tensor, window: tf.data.Dataset) -> tf.data.Dataset:
        return _padded(batching, bucket, window, steps).map(
            lambda batch: tf.nest.map_structure(lambda x: _split_steps(x, steps), batch)
        )

    batches = _bucketed(examples, batching, steps, stack)
    return with_options(batches.map(lambda batch: _set_shapes(batch, batching, (steps,))).prefetch(2))


def evaluation_batches(
    paths: Sequence[str], batching: Batching, *, input_pipeline: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Returns {"inputs", "targets"} int32 [rows, boundary] and {"index"} int32 [rows], each example once.

    "index" is the example's place in the split. Sequences that no boundary holds are truncated and end in
    eos all the same. The last batch of a bucket is filled with rows of zeros, whose index is -1.
    """
    index, count = input_pipeline
    examples = tf.data.TFRecordDataset(list(paths)).enumerate().shard(count, index)

    def parse(place: tf.Tensor, record: tf.Tensor) -> dict[str, tf.Tensor]:
        pair = {side: _truncated(ids, batching.max_length) for side, ids in _parse(record).items()}
        return pair | {"index": tf.cast(place, tf.int32)}

    def fill(bucket: tf.Tensor, window: tf.data.Dataset) -> tf.data.Dataset:
        rows = tf.gather([batching.rows(boundary) for boundary in batching.boundaries], bucket)
        return _padded(batching, bucket, window, 1).map(lambda batch: _fill_rows(batch, rows))

    batches = _bucketed(examples.map(parse, num_parallel_calls=2), batching, 1, fill)
    return with_options(batches.map(lambda batch: _set_shapes(batch, batching, ())).prefetch(2))


def _parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
    ids = tf.io.RaggedFeature(tf.int64)
    pair = tf.io.parse_single_example(record, {"inputs": ids, "targets": ids})
    return {side: tf.cast(sequence, tf.int32) for side, sequence in pair.items()}


def _truncated(ids: tf.Tensor, length: int) -> tf.Tensor:
    return tf.concat([ids[:-1][: length - 1], ids[-1:]], axis=0)


def _length(pair: Mapping[str, tf.Tensor]) -> tf.Tensor:
    return tf.maximum(tf.size(pair["inputs"]), tf.size(pair["targets"]))


def _bucketed(
    examples: tf.data.Dataset,
    batching: Batching,
    steps: int,
    reduce: Callable[[tf.Tensor, tf.data.Dataset], tf.data.Dataset],
) -> tf.data.Dataset:
    """Hands `reduce` the examples of one bucket whenever there are as many as `steps` batches take."""
    boundaries = tf.constant(batching.boundaries)
    sizes = tf.constant([steps * batching.rows(boundary) for boundary in batching.boundaries], tf.int64)

    def bucket(pair: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.reduce_sum(tf.cast(boundaries < _length(pair), tf.int64))

    return examples.group_by_window(bucket, reduce, window_size_func=lambda key: tf.gather(sizes, key))


def _padded(batching: Batching, bucket: tf.Tensor, window: tf.data.Dataset, steps: int) -> tf.data.Dataset:
    """Returns one batch of a whole window, its sequences padded with zeros to the bucket's boundary."""
    boundary = tf.gather(tf.constant(batching.boundaries, tf.int64), bucket)
    shapes = {k: [boundary] if spec.shape.rank else [] for k, spec in window.element_spec.items()}
    return window.padded_batch(steps * max(batching.rows(b) for b in batching.boundaries), shapes)


def _split_steps(x: tf.Tensor, steps: int) -> tf.Tensor:
    return tf.reshape(x, [steps, tf.shape(x)[0] // steps, tf.shape(x)[1]])


def _fill_rows(batch: Mapping[str, tf.Tensor], rows: tf.Tensor) -> dict[str, tf.Tensor]:
    missing = rows - tf.size(batch["index"])
    filled = {k: tf.pad(batch[k], [[0, missing], [0, 0]]) for k in ("inputs", "targets")}
    return filled | {"index": tf.pad(batch["index"], [[0, missing]], constant_values=-1)}


def _set_shapes(
    batch: dict[str, tf.Tensor], batching: Batching, leading: tuple[int, ...]
) -> dict[str, tf.Tensor]:
    """Makes static what all buckets have in common."""
    rows = {batching.rows(boundary) for boundary in batching.boundaries}
    shape = [*leading, rows.pop() if len(rows) == 1 else None]
    length = batching.boundaries[0] if len(batching.boundaries) == 1 else None
    for k, x in batch.items():
        x.set_shape(shape if k == "index" else [*shape, length])
    return batch
