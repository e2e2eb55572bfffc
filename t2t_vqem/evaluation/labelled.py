"""What evaluators of labelled arrays, pictures and codes, share: the examples of a split, or some of them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from t2t_vqem.evaluation.evenly import evenly
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.problem import Problem

_NO_BOUNDARY = (1,)  # arrays of one shape are in no buckets


class LabelledEvaluator:
    """Evaluates on one split of a problem whose examples are arrays of one shape.

    Attributes:
      manifest: of the data.
      count: examples that are evaluated.
    """

    def __init__(
        self,
        problem: Problem,
        data_dir: str,
        split: str,
        *,
        batch_tokens: int,
        max_examples: int | None = None,
    ):
        """Reads no example yet.

        Args:
          batch_tokens: numbers of the arrays of a batch.
          max_examples: takes this many examples, evenly spaced over the split; None or 0 takes all.

        Raises UserError if the problem has no such split or its data are missing.
        """
        batching = Batching(batch_tokens=batch_tokens, boundaries=_NO_BOUNDARY)
        self.manifest: dict[str, Any] = problem.manifest(data_dir)
        self._dataset = problem.dataset(split, data_dir, batching, training=False)
        self._chosen = evenly(self.manifest["splits"][split]["examples"], max_examples)
        self.count = len(self._chosen)

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields "inputs" and "targets" of the chosen examples in batches of equal size, but for the last."""
        waiting: dict[str, np.ndarray] = {}
        for batch in self._dataset.as_numpy_iterator():
            rows = len(batch["index"])
            real = np.isin(batch.pop("index"), self._chosen)  # -1, that of a filling row, is never among them
            for name, array in batch.items():
                waiting[name] = (
                    np.concatenate([waiting[name], array[real]]) if name in waiting else array[real]
                )
            if len(waiting["inputs"]) >= rows:
                yield {name: array[:rows] for name, array in waiting.items()}
                waiting = {name: array[rows:] for name, array in waiting.items()}
        if waiting and len(waiting["inputs"]):
            yield waiting
