"""`gradient_vq`: codes that descend the codebook loss (van den Oord et al. 2017, arXiv 1711.00937, equation 3).

The gradient of the loss, the mean of |sg(x) - code|^2 over positions, is linear in the statistics of expectation
maximisation: 2 (count * code - sum) / positions. So it is taken in the M-step: the same on every replica, outside of
the clipping and the learning rate of the model's own optimizer. With plain SGD the codes are the moving averages
of EM; with Adam the average is one of gradients, which is another dynamic (arXiv 1805.11063, section 3).
"""

from collections.abc import Mapping

import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.checks import require, require_positive
from t2t_vqem.bottlenecks.codebook import Codebook
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.bottlenecks.vector import VectorQuantiser

_ADAM_RATE, _BETA_1, _BETA_2, _EPSILON = 1e-3, 0.9, 0.999, 1e-8  # Kingma & Ba 2015


@registry.bottlenecks.register("gradient_vq")
class GradientVQ(VectorQuantiser):
    """Each position takes its nearest code; codes descend the gradient of the codebook loss."""

    def __init__(
        self,
        num_codes: int,
        dim: int,
        settings: CodebookSettings | None = None,
        *,
        optimizer: str = "adam",
        learning_rate: float | None = None,
    ):
        """Makes the codebook.

        Args:
          optimizer: "adam" or "sgd", of the codes alone.
          learning_rate: of the codes. None: 1e-3 for Adam; for SGD (1 - codebook.decay) K / 2, by which an evenly used
            code moves as EM's moving average does.

        Raises:
          UserError: naming a parameter that is out of its range.
        """
        require(optimizer in ("adam", "sgd"), "optimizer", optimizer, '"adam" or "sgd"')
        if learning_rate is not None:
            require_positive(learning_rate=learning_rate)
        self._optimizer, self._learning_rate = optimizer, learning_rate
        super().__init__(num_codes, dim, settings)

    def make_codebook(self, size: int) -> Codebook:
        if self._optimizer == "adam":
            return AdamCodebook(self.num_codes, size, self.settings, self._learning_rate or _ADAM_RATE)
        even = (1.0 - self.settings.decay) * self.num_codes / 2
        return SGDCodebook(self.num_codes, size, self.settings, self._learning_rate or even)


class SGDCodebook(Codebook):
    """Codes that take one step down the gradient at each M-step."""

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings, learning_rate: float):
        super().__init__(num_codes, dim, settings)
        self.learning_rate = learning_rate

    def _moved(
        self, statistics: Mapping[str, tf.Tensor], counts: tf.Tensor, decay: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        places = self.places()
        descent = statistics["counts"][:, None] * places - statistics["sums"]
        gradient = tf.math.divide_no_nan(2.0 * descent, statistics["positions"])
        places -= self.learning_rate * self._direction(gradient)
        return places, counts[:, None] * places

    def _direction(self, gradient: tf.Tensor) -> tf.Tensor:
        return gradient

    def settle(self) -> None:
        """The mean of several places is a place: nothing follows from counts and sums here."""


class AdamCodebook(SGDCodebook):
    """Codes that take one step of Adam at each M-step."""

    def __init__(self, num_codes: int, dim: int, settings: CodebookSettings, learning_rate: float):
        super().__init__(num_codes, dim, settings, learning_rate)
        self.first_moment = self._state("first_moment", (num_codes, dim))
        self.second_moment = self._state("second_moment", (num_codes, dim))

    def _direction(self, gradient: tf.Tensor) -> tf.Tensor:
        first = _BETA_1 * self.first_moment + (1.0 - _BETA_1) * gradient
        second = _BETA_2 * self.second_moment + (1.0 - _BETA_2) * tf.square(gradient)
        self.first_moment.assign(first)
        self.second_moment.assign(second)
        steps = self.updates + 1.0
        first /= 1.0 - tf.pow(_BETA_1, steps)
        second /= 1.0 - tf.pow(_BETA_2, steps)
        return first / (tf.sqrt(second) + _EPSILON)

    def _forget(self, revived: tf.Tensor) -> None:
        for moment in (self.first_moment, self.second_moment):
            moment.assign(tf.where(revived[:, None], 0.0, moment))
