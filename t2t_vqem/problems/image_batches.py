"""Batches of pictures: all of one size, in a random order that the seed fixes; see `batches`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from t2t_vqem.problems import batches
from t2t_vqem.problems.batches import Batching

_BUFFER_BYTES = 8 * 2**20  # of pictures to draw from: what a saved iterator holds
_BUFFER_LEAST = 256


def training_batches(
    paths: Sequence[str],
    image_shape: tuple[int, int, int],
    batching: Batching,
    *,
    seed: int,
    input_pipeline: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Returns {"inputs": labels, int32 [steps_per_call, rows], "targets"} without end.

    "targets" are the pictures, uint8 [steps_per_call, rows, height, width, channels]. What does not fill a batch at
    the end of an epoch goes with the next. Each of several input pipelines takes every count-th picture of the same
    order.
    """
    numbers, steps = math.prod(image_shape), batching.steps_per_call
    buffer = min(batches.SHUFFLE_BUFFER, max(_BUFFER_LEAST, _BUFFER_BYTES // numbers))
    records = batches.shuffled_records(paths, seed=seed, input_pipeline=input_pipeline, buffer=buffer)
    rows = batching.rows(numbers)

    def split_steps(records: tf.Tensor) -> dict[str, tf.Tensor]:
        flat = parse(records, image_shape)
        return {name: tf.reshape(x, [steps, rows, *x.shape[1:]]) for name, x in flat.items()}

    elements = records.batch(steps * rows, drop_remainder=True)
    elements = elements.map(split_steps, num_parallel_calls=2, deterministic=True)
    return batches.with_options(elements.prefetch(2))


def evaluation_batches(
    paths: Sequence[str],
    image_shape: tuple[int, int, int],
    batching: Batching,
    *,
    input_pipeline: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Returns {"inputs", "index"} int32 [rows] and {"targets"} uint8 [rows, height, width, channels], in order.

    "index" is the picture's place in the split. The last batch is filled with rows of zeros, whose index is -1.
    """
    index, count = input_pipeline
    rows = batching.rows(math.prod(image_shape))

    def fill(places: tf.Tensor, records: tf.Tensor) -> dict[str, tf.Tensor]:
        missing = rows - tf.size(places)
        batch = {
            name: tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)])
            for name, x in parse(records, image_shape).items()
        }
        batch["index"] = tf.pad(tf.cast(places, tf.int32), [[0, missing]], constant_values=-1)
        return {name: tf.ensure_shape(x, [rows, *x.shape[1:]]) for name, x in batch.items()}

    examples = tf.data.TFRecordDataset(list(paths)).enumerate().shard(count, index).batch(rows)
    return batches.with_options(examples.map(fill, num_parallel_calls=2, deterministic=True).prefetch(2))


def parse(records: tf.Tensor, image_shape: tuple[int, int, int]) -> dict[str, tf.Tensor]:
    """Returns {"inputs": int32 [n], "targets": uint8 [n, height, width, channels]} of serialised records [n]."""
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    parsed = tf.io.parse_example(records, features)
    pictures = tf.io.decode_raw(parsed["image"], tf.uint8, fixed_length=None)
    return {
        "inputs": tf.cast(parsed["label"], tf.int32),
        "targets": tf.reshape(pictures, [-1, *image_shape]),
    }
