"""How well a prior foretells the codes of a split's pictures, beside what codes cost without it.

All figures are of the whole split, and exact: `nll` nats and `bits_per_code` of a code; `prior_bits_per_dim` the bits
of all codes of a picture, shared among the picture's numbers (height x width x channels), as bits/dim are counted. With
`reconstruction_bits_per_dim` of the image model on the same split they make the bound on the pictures' bits/dim.
`uniform_bits_per_dim` is what codes cost that are all equally likely, and `unigram_bits_per_dim` where each slot's
codes are as frequent as in the training split, whatever stands beside them. What a `code_vqvae`
conditions the codes on costs `latent_bits_per_dim`; it is part of `prior_bits_per_dim`, which is a bound then.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from t2t_vqem.evaluation.labelled import LabelledEvaluator
from t2t_vqem.models.model import Model
from t2t_vqem.problems.problem import Problem


class CodesEvaluator(LabelledEvaluator):
    """Evaluates priors on one split of a problem of codes, see `LabelledEvaluator`; a model is traced once."""

    main_metric = "prior_bits_per_dim"

    def __init__(self, problem: Problem, data_dir: str, split: str, **sizes: int | None):
        """Reads the split once, for the floors; the problem has `train_counts(data_dir)`."""
        super().__init__(problem, data_dir, split, **sizes)
        self._numbers = math.prod(self.manifest["image_shape"])  # of a picture
        self._codes = math.prod(self.manifest["code_shape"])  # of a picture
        counts = problem.train_counts(data_dir) + 1.0  # no code is impossible
        unigram = -np.log2(counts / counts.sum(axis=1, keepdims=True))
        slots = np.arange(len(unigram))
        bits = sum(float(unigram[slots, batch["targets"]].sum()) for batch in self.batches())
        self._floors = {
            "uniform_bits_per_dim": self._codes * math.log2(self.manifest["num_codes"]) / self._numbers,
            "unigram_bits_per_dim": bits / self._shared,
        }
        self._forward: tuple | None = None  # what is traced: the model, and its function

    @property
    def _shared(self) -> int:
        """The numbers of all pictures that are evaluated."""
        return self.count * self._numbers

    def evaluate(self, model: Model, step: int) -> Mapping[str, float]:
        """Returns the figures of `model`, a `models.prior.PriorModel`, by name."""
        del step  # the caller's, to file the values under
        if self._forward is None or self._forward[0] is not model:
            self._forward = (model, tf.function(model.code_nll, autograph=False))
        nats = sum(float(self._forward[1](batch).numpy().sum(dtype=np.float64)) for batch in self.batches())
        nll = nats / (self.count * self._codes)
        side = self.count * model.side_nats
        prior = (nats + side) / math.log(2.0) / self._shared
        return {
            "nll": nll,
            "bits_per_code": nll / math.log(2.0),
            "prior_bits_per_dim": prior,
            **({"latent_bits_per_dim": side / math.log(2.0) / self._shared} if side else {}),
            **self._floors,
        }
