"""Compiling a small function by itself, where the program around it is not compiled as a whole.

Unfused, a few passes over memory (random numbers, a softmax over a large vocabulary) cost more than the
products between them. Inside a program that XLA compiles anyway such a function must not be compiled on its own:
on a CPU, one nested compiled call makes the whole program some twenty times slower.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import tensorflow as tf

from t2t_vqem.tiles import in_tiles

P, R = ParamSpec("P"), TypeVar("R")

# Numbers of the first argument that are taken at a time where rows are: a quarter of a mebibyte.
_TILE = 2**16
_MAPPINGS, _MOST_MAPPINGS = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/sys/vm/max_map_count")
_whole = (
    False  # of the process, not of a thread: a mirrored strategy traces its replicas in threads of their own
)


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Has XLA compile `function` by itself in graphs, where shapes are static and nothing around it is compiled.

    What it calls is compiled with it.
    """

    @functools.partial(tf.function, jit_compile=True, autograph=False)
    def compiled(*args: P.args) -> R:
        with compiled_around(True):
            return function(*args)

    @functools.wraps(function)
    def call(*args: P.args) -> R:
        return (compiled if _alone(args) else function)(*args)

    return call


def recomputed(function: Callable[P, R] | None = None, *, rows: int = 0, kinds: Any = None) -> Callable[P, R]:
    """As `fused`, and its gradient is compiled with all that it needs, from the arguments alone.

    Otherwise what lies between arguments and results is written to memory for the gradient to read. The first tensor
    among the arguments is differentiated; the others are constants.

    Args:
      function: takes tensors and other things, and returns a tensor or a tuple of tensors.
      rows: how many of the arguments, from the first on, are tensors [rows, ...]; if any, the results are such tensors
        too, each row a function of the same row of these arguments. Then, where `function` is compiled by itself, rows
        are taken a few at a time, and what lies between arguments and results stays in a CPU's caches.
      kinds: with `rows`, the types of the results, in their structure.
    """
    if function is None:
        return functools.partial(recomputed, rows=rows, kinds=kinds)

    def taken(each: Callable, args: tuple, types: Any, *upstream: tf.Tensor) -> R | tf.Tensor:
        """Returns `each(args, *upstream)`, some rows at a time if there are any."""
        if not rows:
            return each(args, *upstream)
        most = max(1, _TILE // max(1, args[0].shape[1:].num_elements()))
        tiled = [*args[:rows], *upstream]
        return in_tiles(lambda *tile: each((*tile[:rows], *args[rows:]), *tile[rows:]), tiled, most, types)

    @fused
    def forward(*args: P.args) -> R:
        return taken(lambda args: function(*args), args, kinds)

    @functools.partial(tf.function, jit_compile=True, autograph=False)
    def backward(place: int, args: tuple, upstream: tuple[tf.Tensor, ...]) -> tf.Tensor:
        def gradient(args: tuple, *upstream: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(args[place])
                results = function(*args)
            return tape.gradient(results, args[place], upstream if len(upstream) > 1 else upstream[0])

        with compiled_around(True):
            return taken(gradient, args, args[place].dtype, *upstream)

    @functools.wraps(function)
    def call(*args: P.args) -> R:
        place = next(place for place, arg in enumerate(args) if tf.is_tensor(arg))
        before, after = (
            tuple(tf.stop_gradient(arg) if tf.is_tensor(arg) else arg for arg in part)
            for part in (args[:place], args[place + 1 :])
        )
        if not _alone(args):
            return function(*before, args[place], *after)

        @tf.custom_gradient
        def apply(x: tf.Tensor) -> tuple[R, Callable[..., tf.Tensor]]:
            given = (*before, x, *after)
            return forward(*given), lambda *upstream: backward(place, given, upstream)

        return apply(args[place])

    return call


def _alone(args: tuple) -> bool:
    """Returns whether XLA compiles what is called with `args` by itself."""
    static = all(arg.shape.is_fully_defined() for arg in args if tf.is_tensor(arg))
    return static and not (_whole or tf.executing_eagerly())


@contextlib.contextmanager
def compiled_around(whole: bool) -> Iterator[None]:
    """Says, while a program is traced, whether XLA compiles all of it."""
    global _whole
    before, _whole = _whole, whole
    try:
        yield
    finally:
        _whole = before


def room_to_compile() -> bool:
    """Returns whether this process may have XLA compile another whole model.

    On a CPU each takes one to two thousand mappings of memory, which it keeps; the process crashes where Linux allows
    no more of them, 65,530 by default. So the last fifth is left alone.
    """
    try:
        held, most = _MAPPINGS.read_bytes().count(b"\n"), int(_MOST_MAPPINGS.read_text())
    except OSError:  # not Linux
        return True
    return held < 0.8 * most
