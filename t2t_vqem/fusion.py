"""Compiling a small function by itself, where the program around it is not compiled as a whole.

Unfused, a few passes over memory (random numbers, a softmax over a large vocabulary) cost more than the
products between them. Inside a program that XLA compiles anyway such a function must not be compiled on its own:
on a CPU, one nested compiled call makes the whole program some twenty times slower.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import tensorflow as tf

P, R = ParamSpec("P"), TypeVar("R")

_whole = (
    False  # of the process, not of a thread: a mirrored strategy traces its replicas in threads of their own
)


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """Has XLA compile `function` by itself in graphs, where shapes are static and nothing around it is compiled."""
    compiled = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*args: P.args) -> R:
        alone = not (_whole or tf.executing_eagerly())
        static = all(arg.shape.is_fully_defined() for arg in args if tf.is_tensor(arg))
        return (compiled if alone and static else function)(*args)

    return call


@contextlib.contextmanager
def compiled_around(whole: bool) -> Iterator[None]:
    """Says, while a program is traced, whether XLA compiles all of it."""
    global _whole
    before, _whole = _whole, whole
    try:
        yield
    finally:
        _whole = before
