"""Adam with a fused update, applied once a step after the reduction, and its learning-rate schedules.

Keras optimizers clip and apply per replica, before the sum over replicas; this one is handed the reduced,
clipped gradients and does the same update on every device.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from t2t_vqem.errors import UserError

Schedule = Callable[[tf.Tensor], tf.Tensor]


def schedule(learning_rate: float, warmup_steps: int, decay: str, train_steps: int) -> Schedule:
    """Returns a function of the step (from 0): linear warm-up to `learning_rate`, then the decay.

    Args:
      decay: "rsqrt" (learning_rate * sqrt(warmup_steps / step)), "cosine" (to a hundredth at `train_steps`)
        or "constant".
    """
    warmup = float(max(1, warmup_steps))

    def rsqrt(step: tf.Tensor) -> tf.Tensor:
        return tf.math.rsqrt(tf.maximum(step, warmup) / warmup)

    def cosine(step: tf.Tensor) -> tf.Tensor:
        done = tf.clip_by_value((step - warmup) / max(1.0, train_steps - warmup), 0.0, 1.0)
        return 0.01 + 0.99 * 0.5 * (1.0 + tf.cos(math.pi * done))

    def constant(step: tf.Tensor) -> tf.Tensor:
        return tf.ones_like(step)

    decays = {"rsqrt": rsqrt, "cosine": cosine, "constant": constant}
    if decay not in decays:
        raise UserError(f'train.decay is "{decay}"; it must be one of {", ".join(sorted(decays))}.')

    def learning_rate_at(step: tf.Tensor) -> tf.Tensor:
        number = tf.cast(step, tf.float32) + 1.0
        return learning_rate * tf.minimum(number / warmup, 1.0) * decays[decay](number)

    return learning_rate_at


class Adam(tf.Module):
    """Adam (Kingma & Ba 2015), betas and epsilon after Vaswani et al. 2017."""

    def __init__(
        self,
        learning_rate: Schedule,
        variables: Sequence[tf.Variable],
        beta1: float = 0.9,
        beta2: float = 0.98,
        epsilon: float = 1e-9,
    ):
        """Makes the two moments of each variable; call it under the strategy's scope."""
        super().__init__(name="adam")
        self.learning_rate = learning_rate
        self.variables_ = list(variables)
        self._betas = (beta1, beta2)
        self._epsilon = epsilon
        self.first = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables_]
        self.second = [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables_]

    def apply(
        self,
        strategy: tf.distribute.Strategy,
        gradients: Sequence[tf.Tensor],
        scale: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        """Updates the variables with `gradients * scale`; cross-replica context, gradients reduced."""
        beta1, beta2 = self._betas
        number = tf.cast(step, tf.float32) + 1.0
        powers = [tf.pow(tf.constant(beta, tf.float32), number) for beta in self._betas]
        rate = self.learning_rate(step)

        def update(variable, gradient, first, second, scale, power1, power2, rate):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=power1,
                beta2_power=power2,
                lr=rate,
                beta1=beta1,
                beta2=beta2,
                epsilon=self._epsilon,
                grad=gradient * scale,
            )

        for variable, gradient, first, second in zip(
            self.variables_, gradients, self.first, self.second, strict=True
        ):
            strategy.extended.update(
                variable, update, args=(gradient, first, second, scale, *powers, rate), group=False
            )
