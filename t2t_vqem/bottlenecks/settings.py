"""What bottlenecks with a codebook have in common, so that they differ in nothing else when they are compared."""

import dataclasses
import math

import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.checks import require, require_between, require_positive, require_whole
from t2t_vqem.bottlenecks.estimator import ESTIMATORS
from t2t_vqem.context import Training

INITS = ("data", "k_means", "random", "released")


@registry.parts.register("codebook")
@dataclasses.dataclass(frozen=True)
class CodebookSettings:
    """How encodings meet codes; gin binds it as `codebook.NAME`. Raises UserError naming a value out of range.

    The scale of the encodings is the other half of the temperature. Encodings of a trained encoder have squared
    norms in the thousands, where the posterior exp(-|x - code|^2 / temperature) is one-hot and soft EM is hard EM in
    disguise. So encodings are first brought to squared norm `norm`; the metric `effective_codes` says how soft the
    result is.

    Attributes:
      norm: squared norm that encodings are scaled to; None leaves them as they come.
      code_dim: numbers of a code; encodings are projected to so many and back. None: as many as the encoding has.
      cosine: whether codes, too, have squared norm `norm`, so that the nearest is that of the greatest cosine.
      temperature: of the posterior. The published formula has 1; 2 is a Gaussian of unit variance.
      final_temperature: what `temperature` becomes, exponentially, over the first `anneal_steps` steps; None: it stays.
      anneal_steps: see there.
      init: where codes start: "data", encodings of the first batches; "k_means", the same and then ten steps of
        k-means; "random", random places of the encodings' norm; "released", as in the code published with arXiv
        1805.11063: tiny random places, counts of 0 and a constant decay, which leave one code in use for thousands of
        steps.
      decay: of the moving averages of counts and sums, in [0, 1); they last about 1 / (1 - decay) steps.
      revival_threshold: a code with less than this part of a uniform share of the positions is dead and is moved
        onto an encoding of the batch; 0 leaves dead codes alone.
      beta: weight of the commitment loss.
      entropy_weight: of H(posterior) - H(mean posterior) in the loss: positions shall be sure of their codes, and all
        codes in use. The mean is that of the moving average of usage.
      estimator: of the gradient: "straight_through" or "rotation".
      warmup_steps: for so many steps of training the decoder reads the encodings themselves and nothing is asked
        of them, while the codebook already follows them.
    """

    norm: float | None = 32.0
    code_dim: int | None = None
    cosine: bool = False
    temperature: float = 1.0
    final_temperature: float | None = None
    anneal_steps: int = 10_000
    init: str = "data"
    decay: float = 0.99
    revival_threshold: float = 0.05
    beta: float = 0.25
    entropy_weight: float = 0.0
    estimator: str = "straight_through"
    warmup_steps: int = 100

    def __post_init__(self):
        if self.norm is not None:
            require_positive(norm=self.norm)
        if self.code_dim is not None:
            require_whole(1, code_dim=self.code_dim)
        require(type(self.cosine) is bool, "cosine", self.cosine, "True or False")
        require(not self.cosine or self.norm, "norm", self.norm, "a number where codebook.cosine is True")
        require_positive(temperature=self.temperature)
        if self.final_temperature is not None:
            require_positive(final_temperature=self.final_temperature)
        require(self.init in INITS, "init", self.init, f"one of {', '.join(INITS)}")
        require(self.estimator in ESTIMATORS, "estimator", self.estimator, f"one of {', '.join(ESTIMATORS)}")
        require_between(0, 1, decay=self.decay, revival_threshold=self.revival_threshold)
        require_between(0, math.inf, beta=self.beta, entropy_weight=self.entropy_weight)
        require_whole(0, anneal_steps=self.anneal_steps, warmup_steps=self.warmup_steps)

    def temperature_at(self, training: Training | None) -> tf.Tensor | float:
        """Returns the temperature at this step of training; the last one in evaluation."""
        return annealed(self.temperature, self.final_temperature, self.anneal_steps, training)


def annealed(first: float, last: float | None, steps: int, training: Training | None) -> tf.Tensor | float:
    """Returns first * (last / first)^(step / steps); `last` from `steps` on and in evaluation; `first` if None."""
    if last is None or training is None or steps == 0:
        return first if last is None else last
    progress = tf.minimum(tf.cast(training.step, tf.float32) / steps, 1.0)
    return first * tf.pow(last / first, progress)
