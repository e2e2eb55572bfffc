"""The training step: gradient sums and sufficient statistics per replica, then one reduction and update.

The replica function holds no collective, so that XLA can compile it on every device. The order of a step:
forward, E-step, backward -> sums; all-reduce; divide by the global weight; clip by global norm; Adam; the
moving average of the weights; M-step.
"""

from collections.abc import Mapping

import tensorflow as tf

from t2t_vqem import fusion
from t2t_vqem.context import LossTerm, Training
from t2t_vqem.models.model import Model
from t2t_vqem.training.moving_average import MovingAverage
from t2t_vqem.training.optimizer import Adam

Features = Mapping[str, tf.Tensor]

_ROWS_OF_A_WORKER = 2**20  # workers may hold different buckets at the same step; their rows must not meet


class TrainStep:
    """Several optimizer steps a call, on every replica of a strategy."""

    def __init__(
        self,
        model: Model,
        optimizer: Adam,
        strategy: tf.distribute.Strategy,
        *,
        seed: int,
        average: MovingAverage | None = None,
        micro_batches: int = 1,
        clip_norm: float = 1.0,
        compile: bool = False,
        pipeline: tuple[int, int] = (0, 1),
    ):
        """Make it under the strategy's scope, when the model has its variables.

        Args:
          average: what follows the weights, if anything does.
          micro_batches: parts of a replica's rows whose gradients are added before the update.
          clip_norm: greatest global norm of the gradient; 0 means no clipping.
          compile: whether XLA compiles forward and backward.
          pipeline: (index of this worker, number of workers).
        """
        self.model = model
        self.optimizer = optimizer
        self.average = average
        self.strategy = strategy
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._seed = seed
        self._micro_batches = micro_batches
        self._clip_norm = clip_norm
        self._compiled = compile
        self._worker, self._workers = pipeline
        self._variables = [variable.value for variable in model.trainable_variables]
        self._compute = tf.function(self._compute_sums, jit_compile=compile, autograph=False)
        self._run = tf.function(self._run_steps, autograph=False)
        self._try = tf.function(self._try_one, autograph=False)

    def __call__(self, features: Features) -> dict[str, tuple[float, float]]:
        """Takes as many steps as `features` [steps, rows, ...] holds; rows are this worker's.

        Returns name -> (sum, weight) over the steps: every loss and metric, "loss" (the objective, per
        position), "tokens" (its sum counts the real positions) and "gradient_norm" (before clipping).
        """
        with self.strategy.scope():
            totals = self._run(self._split(features))
        return {name: (float(term.sum), float(term.weight)) for name, term in totals.items()}

    def try_batch(self, features: Features) -> None:
        """Runs forward and backward on a batch of this shape; updates nothing."""
        with self.strategy.scope():
            self._try(self._split(features))

    def _split(self, features: Features) -> Features:
        """Hands every replica its share of the rows, and each row its place in the global batch."""
        steps, rows = next(iter(features.values())).shape[:2]
        replicas = self.strategy.num_replicas_in_sync // self._workers
        parts = replicas * self._micro_batches
        if rows % parts:
            raise ValueError(f"{rows} rows do not split into {replicas} replicas x {self._micro_batches}")
        share = rows // replicas
        places = tf.range(rows) + self._worker * _ROWS_OF_A_WORKER

        def of_replica(context: tf.distribute.experimental.ValueContext) -> dict[str, tf.Tensor]:
            start = (context.replica_id_in_sync_group % replicas) * share
            split = {name: value[:, start : start + share] for name, value in features.items()}
            return split | {"rows": tf.repeat(places[None, start : start + share], steps, axis=0)}

        return self.strategy.experimental_distribute_values_from_function(of_replica)

    def _run_steps(self, features: Features) -> dict[str, LossTerm]:
        steps = tf.shape(self.strategy.experimental_local_results(features["rows"])[0])[0]

        def add_step(index: tf.Tensor, totals: dict[str, LossTerm]) -> tuple:
            return index + 1, tf.nest.map_structure(tf.add, totals, self._one_step(features, index))

        start = (tf.constant(1), self._one_step(features, 0))
        return tf.while_loop(lambda index, totals: index < steps, add_step, start)[1]

    def _one_step(self, features: Features, index: int | tf.Tensor) -> dict[str, LossTerm]:
        gradients, weight, terms, statistics = self.strategy.run(
            self._replica_sums, args=(features, index, self.step)
        )
        terms, weight, statistics = self._sum((terms, weight, statistics))
        pairs = list(zip(gradients, self._variables, strict=True))
        reduced = self.strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
        local = [self.strategy.experimental_local_results(gradient)[0] for gradient in reduced]
        norm = tf.math.divide_no_nan(tf.linalg.global_norm(local), weight)
        clip = self._clip_norm / tf.maximum(norm, self._clip_norm) if self._clip_norm else 1.0
        scale = tf.math.divide_no_nan(clip, weight)
        self.optimizer.apply(self.strategy, reduced, scale, self.step)
        if self.average is not None:
            self.average.update(self.strategy, self.step)
        for name, bottleneck in self.model.bottlenecks.items():
            bottleneck.m_step(statistics[name])
        self.step.assign_add(1)
        return terms | {"gradient_norm": LossTerm(norm, tf.constant(1.0))}

    def _sum(self, values):
        return tf.nest.map_structure(
            lambda value: self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None), values
        )

    def _replica_sums(self, features: Features, index: int | tf.Tensor, step: tf.Tensor):
        """Adds the sums of this replica's micro-batches; no collective inside."""
        share = features["rows"].shape[1] // self._micro_batches
        total = None
        for part in range(self._micro_batches):
            batch = {n: value[index][part * share : (part + 1) * share] for n, value in features.items()}
            sums = self._compute(batch, step)
            total = sums if total is None else tf.nest.map_structure(tf.add, total, sums)
        return total

    def _compute_sums(self, batch: Features, step: tf.Tensor):
        """Returns (gradient sums, weight, terms, statistics) of `batch`, tensors [rows, ...]."""
        batch = dict(batch)
        rows = batch.pop("rows")
        global_rows = rows.shape[0] * self._micro_batches * self.strategy.num_replicas_in_sync
        training = Training(self._seed, step, rows, global_rows)
        with fusion.compiled_around(self._compiled):  # the gradients too
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(self._variables)
                output = self.model(batch, training=training)
                objective = tf.add_n([term.sum for term in output.losses.values()])
            gradients = tape.gradient(
                objective, self._variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        terms = output.losses | output.metrics
        terms["loss"] = LossTerm(objective, output.weight)
        terms["tokens"] = LossTerm(output.weight, tf.constant(1.0))
        return gradients, output.weight, terms, output.statistics

    def _try_one(self, features: Features) -> tf.Tensor:
        def replica(features: Features, step: tf.Tensor) -> tf.Tensor:
            # Summed, so that no part of the backward pass is pruned away.
            gradients, *_ = self._replica_sums(features, 0, step)
            return tf.add_n([tf.reduce_sum(tf.abs(gradient)) for gradient in gradients])

        return self._sum(self.strategy.run(replica, args=(features, self.step)))
