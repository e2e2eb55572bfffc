"""A moving average of the weights, which often translates better than the weights themselves."""

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf


class MovingAverage(tf.Module):
    """average <- d average + (1 - d) weights after each step, d = min(decay, (1 + step) / (10 + step)).

    The step counts from 0, so that the initial weights are soon forgotten. Codebooks are no part of it: they
    are moving averages already.
    """

    def __init__(self, variables: Sequence[tf.Variable], decay: float):
        """Starts at the values of `variables`; call it under the strategy's scope."""
        super().__init__(name="moving_average")
        self._weights = list(variables)
        self._decay = decay
        self.averages = [tf.Variable(v.read_value(), trainable=False) for v in self._weights]

    def update(self, strategy: tf.distribute.Strategy, step: tf.Tensor) -> None:
        """Moves the averages towards the weights; cross-replica context, after the optimizer's update."""
        number = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + number) / (10.0 + number))

        def move(average, weights, rate):
            average.assign_sub(rate * (average - weights))

        for average, weights in zip(self.averages, self._weights, strict=True):
            strategy.extended.update(average, move, args=(weights, rate), group=False)

    def restart(self) -> None:
        """Starts again at what the weights are now."""
        for average, weights in zip(self.averages, self._weights, strict=True):
            average.assign(weights.read_value())

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model's weights are the averages; then, whatever happened, they are bit for bit their own.

        The weights wait in the host's memory, so that evaluation needs no more of the device's.
        """
        own = [weights.numpy() for weights in self._weights]
        try:
            for weights, average in zip(self._weights, self.averages, strict=True):
                weights.assign(average.read_value())
            yield
        finally:
            for weights, value in zip(self._weights, own, strict=True):
                weights.assign(value)
