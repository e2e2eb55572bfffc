"""The largest batch is tried before step 1, so that a want of memory shows at once and not after hours."""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf
from absl import logging

from t2t_vqem.errors import UserError
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.problem import Problem
from t2t_vqem.training.step import TrainStep

_REAL_ID = 1  # in every vocabulary, and no padding: every position is real, which is what costs most


def check(
    step: TrainStep, problem: Problem, batching: Batching, spec: Mapping[str, tf.TensorSpec], workers: int = 1
) -> None:
    """Runs forward and backward on the largest bucket of `batching` (one worker's); nothing is updated.

    Args:
      spec: the element_spec of the training data, for the dtypes.

    Raises:
      UserError: it does not fit into memory; the text names the `train.batch_tokens` that does.
    """
    shapes = problem.batch_shapes(batching)[-1]
    if _fits(step, shapes, spec):
        logging.info("the largest batch fits: %s", _words(shapes))
        return
    tried, tokens = shapes, batching.batch_tokens
    while tokens > 1:
        tokens //= 2
        fewer = problem.batch_shapes(dataclasses.replace(batching, batch_tokens=tokens))[-1]
        if fewer == tried:
            continue  # no fewer rows than replicas and micro-batches ask for
        tried = fewer
        if _fits(step, fewer, spec):
            raise UserError(
                f"train.batch_tokens = {batching.batch_tokens * workers} does not fit into memory (largest "
                f"batch: {_words(shapes)}); train.batch_tokens = {tokens * workers} does, or raise "
                "train.micro_batches"
            )
    raise UserError(
        f"not even the smallest batch of the largest bucket fits into memory ({_words(tried)}); take "
        "a smaller model or, for text, shorter train.boundaries"
    )


def _fits(step: TrainStep, shapes: Mapping[str, tuple[int, ...]], spec: Mapping[str, tf.TensorSpec]) -> bool:
    features = {
        name: tf.cast(tf.fill([1, *shape[-spec[name].shape.rank + 1 :]], _REAL_ID), spec[name].dtype)
        for name, shape in shapes.items()
    }
    try:
        step.try_batch(features)
    except tf.errors.ResourceExhaustedError:
        return False
    return True


def _words(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items())
