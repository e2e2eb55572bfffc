"""What a model is told about training: the step, and random numbers that belong to the example.

The numbers come from a counter-based integer hash of (seed, step, call site, global row, index in the row).
They are therefore the same on one device, on several replicas and in accumulated micro-batches, and XLA
fuses them into their consumer: on a CPU its own generators cost more than the matrix products around them.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from t2t_vqem.fusion import fused

_WEYL = 0x9E3779B9  # 2^32 / golden ratio, the increment of a Weyl sequence


class LossTerm(NamedTuple):
    """A sum and the number of positions it was taken over; terms of several batches add."""

    sum: tf.Tensor
    weight: tf.Tensor

    @property
    def mean(self) -> tf.Tensor:
        return tf.math.divide_no_nan(self.sum, self.weight)


def _mix(x: tf.Tensor) -> tf.Tensor:
    """A bijection of uint32 that avalanches ("lowbias32", Wellons 2018, "Prospecting for Hash Functions")."""
    shift = tf.bitwise.right_shift
    x = tf.bitwise.bitwise_xor(x, shift(x, tf.constant(16, tf.uint32)))
    x *= tf.constant(0x7FEB352D, tf.uint32)
    x = tf.bitwise.bitwise_xor(x, shift(x, tf.constant(15, tf.uint32)))
    x *= tf.constant(0x846CA68B, tf.uint32)
    return tf.bitwise.bitwise_xor(x, shift(x, tf.constant(16, tf.uint32)))


@fused
def _uniform(stream: tf.Tensor, site: tf.Tensor, rows: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Returns float32 [rows, count]; unfused it costs more than a dropout's use of it."""
    key = _mix(rows * tf.constant(0xC2B2AE35, tf.uint32) + _mix(stream + site))
    index = tf.cast(tf.range(count), tf.uint32) * tf.constant(_WEYL, tf.uint32)
    bits = _mix(key[:, None] + index[None, :])
    unit = tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32)
    return (tf.cast(unit, tf.float32) + 0.5) * 2.0**-23  # 23 bits and a half: exact, never 0 or 1


class Draws:
    """Random numbers of the rows of a batch at one step.

    Attributes:
      step: int32 scalar, the optimizer step, or that of a search.
    """

    def __init__(self, seed: int, step: tf.Tensor, rows: tf.Tensor):
        """`rows` int32 or uint32 [batch] tells the rows apart: equal ones draw equal numbers."""
        self.step = tf.cast(step, tf.int32)
        self._calls = 0
        stream = _mix(tf.cast(self.step, tf.uint32) + tf.constant(seed * _WEYL % 2**32, tf.uint32))
        self._stream = stream
        self._rows = tf.cast(rows, tf.uint32)

    def uniform(self, shape: Sequence[int | tf.Tensor]) -> tf.Tensor:
        """Returns float32 numbers in (0, 1); `shape[0]` is the number of rows of this batch."""
        self._calls += 1  # each call site of a trace draws from a stream of its own
        site = tf.constant(self._calls * 0x85EBCA6B % 2**32, tf.uint32)
        inner = shape[1:]
        static = all(isinstance(size, int) for size in inner)
        count = math.prod(inner) if static else tf.reduce_prod(tf.stack(list(inner)))
        return tf.reshape(_uniform(self._stream, site, self._rows, count), [-1, *inner])


class Training(Draws):
    """The training context of one (micro-)batch on one replica; `None` in its place means evaluation.

    Attributes:
      global_rows: rows of the whole global batch, over replicas and micro-batches.
    """

    def __init__(self, seed: int, step: tf.Tensor, rows: tf.Tensor, global_rows: int):
        """`rows` is int32 [batch]: the place of each of this batch's rows in the global batch."""
        super().__init__(seed, step, rows)
        self.global_rows = global_rows

    def split(self, parts: int) -> "Training":
        """Returns the context of a batch in which each row became `parts` rows, those of one side by side."""
        finer = copy.copy(self)
        self._calls += 1
        # A stream of its own: the numbers of the new rows are those of other rows of the batch as a whole.
        finer._stream = _mix(self._stream + tf.constant(self._calls * 0x85EBCA6B % 2**32, tf.uint32))
        places = tf.cast(tf.range(parts), tf.uint32)[None]
        finer._rows = tf.reshape(self._rows[:, None] * tf.constant(parts, tf.uint32) + places, [-1])
        finer.global_rows = self.global_rows * parts
        return finer

    def dropout(self, x: tf.Tensor, rate: float) -> tf.Tensor:
        """Zeroes entries of `x` [batch, ...] with probability `rate` and scales the rest by 1 / (1 - rate)."""
        if rate == 0.0:
            return x
        shape = [d if d is not None else tf.shape(x)[i] for i, d in enumerate(x.shape)]
        keep = self.uniform(shape) >= rate
        return tf.where(keep, x * tf.cast(1.0 / (1.0 - rate), x.dtype), tf.zeros([], x.dtype))
