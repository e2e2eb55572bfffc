"""How well a prior foretells the codes of a split's pictures, beside what codes cost without it.

All figures are of the whole split, and exact: `nll` nats and `bits_per_code` of a code; `prior_bits_per_dim` the bits
of all codes of a picture, shared among the picture's numbers (height x width x channels), as bits/dim are counted. With
`reconstruction_bits_per_dim` of the image model on the same split they make the bound on the pictures' bits/dim.
`uniform_bits_per_dim` is what codes cost that are all equally likely, and `unigram_bits_per_dim` where each slot's
codes are as frequent as in the training split, whatever stands beside them. What a `code_vqvae`
conditions the codes on costs `latent_bits_per_dim`; it is part of `prior_bits_per_dim`, which is a bound then.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from t2t_vqem.evaluation.translation import evenly
from t2t_vqem.models.model import Model
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.problem import Problem


class CodesEvaluator:
    """Evaluates priors on one split of a problem of codes; a model is traced once."""

    main_metric = "prior_bits_per_dim"

    def __init__(
        self,
        problem: Problem,
        data_dir: str,
        split: str,
        *,
        batch_tokens: int,
        max_examples: int | None = None,
    ):
        """Reads the split once, for the floors.

        Args:
          problem: one of codes: it has `train_counts(data_dir)`.
          batch_tokens: codes of a batch.
          max_examples: takes this many fields, evenly spaced over the split; None or 0 takes all.

        Raises UserError if the problem has no such split or its data is missing.
        """
        manifest = problem.manifest(data_dir)
        batching = Batching(batch_tokens=batch_tokens, boundaries=(1,))
        self._dataset = problem.dataset(split, data_dir, batching, training=False)
        self._chosen = evenly(manifest["splits"][split]["examples"], max_examples)
        self._numbers = math.prod(manifest["image_shape"])  # of a picture
        self._codes = math.prod(manifest["code_shape"])  # of a picture
        counts = problem.train_counts(data_dir) + 1.0  # no code is impossible
        unigram = -np.log2(counts / counts.sum(axis=1, keepdims=True))
        slots = np.arange(len(unigram))
        bits = [unigram[slots, batch["targets"][real]] for batch, real in self._batches()]
        self._floors = {
            "uniform_bits_per_dim": self._codes * math.log2(manifest["num_codes"]) / self._numbers,
            "unigram_bits_per_dim": float(np.concatenate(bits).sum()) / self._shared,
        }
        self._forward: tuple | None = None  # what is traced: the model, and its function

    @property
    def _shared(self) -> int:
        """The numbers of all pictures that are evaluated."""
        return len(self._chosen) * self._numbers

    def evaluate(self, model: Model, step: int) -> Mapping[str, float]:
        """Returns the figures of `model`, a `models.prior.PriorModel`, by name."""
        del step  # the caller's, to file the values under
        if self._forward is None or self._forward[0] is not model:
            self._forward = (model, tf.function(model.code_nll, autograph=False))
        nats = 0.0
        for batch, real in self._batches():
            features = {name: batch[name] for name in ("inputs", "targets")}
            nats += float(self._forward[1](features).numpy()[real].sum(dtype=np.float64))
        nll = nats / (len(self._chosen) * self._codes)
        side = len(self._chosen) * model.side_nats
        prior = (nats + side) / math.log(2.0) / self._shared
        return {
            "nll": nll,
            "bits_per_code": nll / math.log(2.0),
            "prior_bits_per_dim": prior,
            **({"latent_bits_per_dim": side / math.log(2.0) / self._shared} if side else {}),
            **self._floors,
        }

    def _batches(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yields batches, and which of their rows are evaluated."""
        for batch in self._dataset.as_numpy_iterator():
            yield (
                batch,
                np.isin(batch["index"], self._chosen),
            )  # -1, that of a filling row, is never among them
