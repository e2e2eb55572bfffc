"""Batches of labelled arrays of one shape, pictures or codes, in a random order that the seed fixes; see `batches`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from t2t_vqem.problems import batches
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.labelled import ArrayFormat

_BUFFER_BYTES = 8 * 2**20  # of arrays to draw from: what a saved iterator holds
_BUFFER_LEAST = 256


def training_batches(
    paths: Sequence[str],
    stored: ArrayFormat,
    batching: Batching,
    *,
    seed: int,
    input_pipeline: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Returns {"inputs": labels, int32 [steps_per_call, rows], "targets"} without end.

    "targets" are the arrays, [steps_per_call, rows, *shape]. What does not fill a batch at the end of an epoch goes
    with the next. Each of several input pipelines takes every count-th array of the same order.
    """
    steps, rows = batching.steps_per_call, batching.rows(stored.numbers)
    buffer = min(batches.SHUFFLE_BUFFER, max(_BUFFER_LEAST, _BUFFER_BYTES // stored.bytes))
    records = batches.shuffled_records(paths, seed=seed, input_pipeline=input_pipeline, buffer=buffer)

    def split_steps(records: tf.Tensor) -> dict[str, tf.Tensor]:
        flat = parse(records, stored)
        return {name: tf.reshape(x, [steps, rows, *x.shape[1:]]) for name, x in flat.items()}

    elements = records.batch(steps * rows, drop_remainder=True)
    elements = elements.map(split_steps, num_parallel_calls=2, deterministic=True)
    return batches.with_options(elements.prefetch(2))


def evaluation_batches(
    paths: Sequence[str],
    stored: ArrayFormat,
    batching: Batching,
    *,
    input_pipeline: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Returns {"inputs", "index"} int32 [rows] and {"targets"} [rows, *shape], in order.

    "index" is the array's place in the split. The last batch is filled with rows of zeros, whose index is -1.
    """
    index, count = input_pipeline
    rows = batching.rows(stored.numbers)

    def fill(places: tf.Tensor, records: tf.Tensor) -> dict[str, tf.Tensor]:
        missing = rows - tf.size(places)
        batch = {
            name: tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)])
            for name, x in parse(records, stored).items()
        }
        batch["index"] = tf.pad(tf.cast(places, tf.int32), [[0, missing]], constant_values=-1)
        return {name: tf.ensure_shape(x, [rows, *x.shape[1:]]) for name, x in batch.items()}

    examples = tf.data.TFRecordDataset(list(paths)).enumerate().shard(count, index).batch(rows)
    return batches.with_options(examples.map(fill, num_parallel_calls=2, deterministic=True).prefetch(2))


def record(array: np.ndarray, label: int, stored: ArrayFormat) -> bytes:
    """Returns an array, in the type it is stored in, and its label as `parse` reads them."""
    raw = array.astype(stored.kept_as).tobytes()
    features = {
        stored.name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[raw])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def parse(records: tf.Tensor, stored: ArrayFormat) -> dict[str, tf.Tensor]:
    """Returns {"inputs": int32 [n], "targets": [n, *shape]} of serialised records [n]."""
    features = {
        stored.name: tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(records, features)
    arrays = tf.io.decode_raw(parsed[stored.name], tf.as_dtype(stored.kept_as))
    return {
        "inputs": tf.cast(parsed["label"], tf.int32),
        "targets": tf.cast(tf.reshape(arrays, [-1, *stored.shape]), tf.as_dtype(stored.given_as)),
    }
