"""Products with the memberships H [positions, codes]: 1 / m in the column of each of the m samples of a position.

A row of H has at most m entries, so that H is never held, nor are m rows for each position: the products go sample
by sample. They are each other's gradient.
"""

from collections.abc import Callable

import tensorflow as tf

from t2t_vqem.fusion import fused


def means(samples: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Returns H `places` float32 [positions, dim]: of each position, the mean of its samples' `places` [codes, dim].

    `samples` is int32 [positions, m]. The gradient for `places` is dense, that of `sums`.
    """
    num_codes = places.shape[0]

    @tf.custom_gradient
    def product(places: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        return _means(samples, places), lambda upstream: sums(samples, upstream, num_codes)

    return product(places)


@fused
def _means(samples: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    return _over_samples(samples, lambda codes: tf.gather(places, codes))


@fused
def sums(samples: tf.Tensor, values: tf.Tensor, num_codes: int) -> tf.Tensor:
    """Returns H^T `values` float32 [num_codes, dim]: of each code, the sum of 1 / m of `values` [positions, dim].

    So are numbers [positions] summed to [num_codes]. `samples` is int32 [positions, m]; negative ones count nowhere.
    """
    return _over_samples(samples, lambda codes: tf.math.unsorted_segment_sum(values, codes, num_codes))


def _over_samples(samples: tf.Tensor, product: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Returns the mean of `product(codes)` over the columns of `samples` [positions, m], one at a time."""
    m = samples.shape[-1]

    def add(column: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return column + 1, total + product(samples[:, column])

    start = tf.constant(1), product(samples[:, 0])
    return tf.while_loop(lambda column, _: column < m, add, start, parallel_iterations=1)[1] / m
