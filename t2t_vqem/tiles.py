"""Functions of rows, taken some rows at a time, so that what lies between arguments and results stays small."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def in_tiles(function: Callable, rows: Sequence[tf.Tensor], most: int, kinds: Any) -> Any:
    """Returns `function(*rows)`, calling it for `most` rows or fewer at a time.

    Where a number of rows more than half of `most` divides them all, tiles are so large; otherwise the last is padded,
    which copies arguments and results.

    Args:
      function: takes and returns tensors [rows, ...]; of its results each row depends on the same row of its arguments.
      rows: tensors [rows, ...], of a static number of rows or not, the rest of the shape static.
      kinds: the types of what `function` returns, in its structure.
    """
    known = rows[0].shape[0]
    if known is not None and known <= most:
        return function(*rows)
    if known is None:
        count = tf.shape(rows[0])[0]
        tiles = tf.maximum(-(-count // most), 1)
        size = -(-count // tiles)
    else:
        count, size = known, _even(known, most)
        tiles = -(-count // size)
    tiled = []
    for argument in rows:
        rest = argument.shape[1:]
        if known is None or tiles * size > known:
            argument = tf.pad(argument, [[0, tiles * size - count], *([0, 0] for _ in rest)])
        tiled.append(tf.reshape(argument, [tiles, size, *rest]))
    results = tf.map_fn(
        lambda tile: function(*(argument[tile] for argument in tiled)),
        tf.range(tiles),
        fn_output_signature=kinds,
        parallel_iterations=1,  # more would hold more than one tile
    )
    return tf.nest.map_structure(lambda result: tf.reshape(result, [-1, *result.shape[2:]])[:count], results)


def _even(count: int, most: int) -> int:
    """Returns how many rows, at most `most`, a tile of `count` has, so that tiles are even and not many."""
    for size in range(most, most // 2, -1):
        if count % size == 0:
            return size
    return -(-count // -(-count // most))
