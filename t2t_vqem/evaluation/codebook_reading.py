"""The codes that a model gives a whole split, each with the example and the place that it stands at."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from t2t_vqem.context import LossTerm
from t2t_vqem.models.model import Features
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.problem import Problem
from t2t_vqem.progress import Progress

Look = Callable[[Features], tuple[Mapping[str, LossTerm], Features]]
"""Batch -> metrics, and "codes" int32 [batch, latents, slots] with their "code_mask"."""

_METRICS = ("effective_codes", "quantization_error")  # of the E-step, where a bottleneck gives them


class Reading(NamedTuple):
    """A split as its codes; padding is left out.

    Attributes:
      codes: int32 [latents, slots], in the order of the split.
      examples: int64 [latents], the example that each belongs to, counted in the split.
      positions: int64 [latents], its place among the latents of its example.
      features: what the model saw of each example, a row of each feature with its padding.
      metrics: means over all latents, of what the bottleneck's E-step says of itself.
    """

    codes: np.ndarray
    examples: np.ndarray
    positions: np.ndarray
    features: list[dict[str, np.ndarray]]
    metrics: dict[str, float]


def read(look: Look, problem: Problem, data_dir: str, split: str, batching: Batching) -> Reading:
    """Returns what a model's `look` makes of every example of a split.

    Raises UserError if the problem has no such split or its data is missing.
    """
    dataset = problem.dataset(split, data_dir, batching, training=False)
    program = tf.function(look, autograph=False, reduce_retracing=True)
    progress = Progress("codebook", problem.manifest(data_dir)["splits"][split]["examples"], "examples")
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    features: dict[int, dict[str, np.ndarray]] = {}
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for batch in dataset:
        index = batch.pop("index").numpy()
        if (index < 0).any():  # rows of padding, whose E-step is no part of the metrics
            batch = {name: value[index >= 0] for name, value in batch.items()}
            index = index[index >= 0]
        terms, rebuilt = program(batch)
        codes, mask = rebuilt["codes"].numpy(), rebuilt["code_mask"].numpy()
        arrays = {name: value.numpy() for name, value in batch.items()}
        for row, place in enumerate(index.tolist()):
            found[place] = codes[row][mask[row]], np.flatnonzero(mask[row])
            features[place] = {name: array[row] for name, array in arrays.items()}
        for name in _METRICS:
            if name in terms:
                sums[name] += [float(value) for value in terms[name]]
        progress.made(len(index))
    order = sorted(found)
    return Reading(
        codes=np.concatenate([found[place][0] for place in order]),
        examples=np.concatenate([np.full(len(found[i][0]), n) for n, i in enumerate(order)]),
        positions=np.concatenate([found[place][1] for place in order]),
        features=[features[place] for place in order],
        metrics={name: total / weight for name, (total, weight) in sums.items() if weight > 0},
    )
