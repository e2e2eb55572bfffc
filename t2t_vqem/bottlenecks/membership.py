"""Products with the memberships H [positions, codes]: 1 / m in the column of each of the m samples of a position.

A row of H has at most m entries, so that H is never held. The products are each other's gradient.
"""

from collections.abc import Callable

import tensorflow as tf

from t2t_vqem.fusion import fused


def means(samples: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns H `places` float32 [positions, dim]: of each position, the mean of its samples' `places` [codes, dim].

    `samples` is int32 [positions, m]. The gradient for `places` is dense, that of `sums`. This holds m rows of each
    position, so where m is large it wants few positions at a time.
    """
    num_codes = places.shape[0]

    @tf.custom_gradient
    def product(places: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        rows = tf.gather(places, samples)
        return tf.reduce_mean(rows, axis=1), lambda upstream: sums(samples, upstream, num_codes)

    return product(places)


@fused
def sums(samples: tf.Tensor, values: tf.Tensor, num_codes: int) -> tf.Tensor:
    """Returns H^T `values` float32 [num_codes, dim]: of each code, the sum of 1 / m of `values` [positions, dim].

    So are numbers [positions] summed to [num_codes]. `samples` is int32 [positions, m]; negative ones count nowhere.
    """
    m = samples.shape[-1]

    def of_sample(column: tf.Tensor | int) -> tf.Tensor:
        return tf.math.unsorted_segment_sum(values, samples[:, column], num_codes)

    def add(column: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return column + 1, total + of_sample(column)

    start = tf.constant(1), of_sample(0)
    return tf.while_loop(lambda column, _: column < m, add, start, parallel_iterations=1)[1] / m
