"""The trainer: a problem, a model and a configuration in, a `model_dir` that says everything out."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from t2t_vqem.errors import UserError, near
from t2t_vqem.models.model import Model
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.problem import Problem
from t2t_vqem.training import checkpoints, largest_bucket, summaries
from t2t_vqem.training import strategy as strategies
from t2t_vqem.training.codebook_watch import CodebookWatch
from t2t_vqem.training.interrupts import Interrupts
from t2t_vqem.training.moving_average import MovingAverage
from t2t_vqem.training.optimizer import Adam, schedule
from t2t_vqem.training.record import Amounts, Record
from t2t_vqem.training.step import TrainStep
from t2t_vqem.training.train_config import TrainConfig

_RAW, _EMA = "raw", "ema"


class Evaluator(Protocol):
    """Judges a model; the trainer itself knows no metric.

    Attributes:
      main_metric: the name of the value that says most.
    """

    main_metric: str

    def evaluate(self, model: Model, step: int) -> Mapping[str, summaries.Value]:
        """Returns named values: numbers, texts, one-dimensional arrays (histograms), pictures."""


class Trainer:
    """Trains, evaluates and predicts, in the manner of Estimator; what `model_dir` holds, it goes on from.

    Attributes:
      model: with its variables; the latest checkpoint's once a method has been called.
    """

    def __init__(
        self,
        problem: Problem,
        build_model: Callable[[], Model],
        config: TrainConfig,
        *,
        data_dir: str,
        model_dir: str,
        strategy: tf.distribute.Strategy | None = None,
        seed: int = 0,
        evaluators: Mapping[str, Evaluator] | None = None,
    ):
        """Makes model, optimizer and step; restores and writes nothing yet.

        Args:
          build_model: makes the model, without its variables.
          evaluators: by the name their values go under (the split, say); `best_metric` is the first one's.
        """
        if config.best_metric == "auto":
            metrics = [evaluator.main_metric for evaluator in (evaluators or {}).values()]
            config = dataclasses.replace(config, best_metric=metrics[0] if metrics else "")
        self.config = config
        self._problem = problem
        self._data_dir = data_dir
        self._model_dir = model_dir
        self._seed = seed
        self._evaluators = dict(evaluators or {})
        self._strategy = strategy or strategies.make("one")
        self._worker, self._workers = pipeline = strategies.pipeline(self._strategy)
        keras.utils.set_random_seed(seed)  # the initial weights
        with self._strategy.scope(), strategies.dtype_policy(config.dtype):
            self.model = build_model()
            self.model.build_weights()
            variables = [variable.value for variable in self.model.trainable_variables]
            self._optimizer = Adam(
                schedule(config.learning_rate, config.warmup_steps, config.decay, config.train_steps),
                variables,
            )
            self._average = MovingAverage(variables, config.ema_decay) if config.ema_decay else None
            self._step = TrainStep(
                self.model,
                self._optimizer,
                self._strategy,
                seed=seed,
                average=self._average,
                micro_batches=config.micro_batches,
                clip_norm=config.clip_norm,
                compile=strategies.compiles(config.compile, self._strategy),
                pipeline=pipeline,
            )
        # What is evaluated, and how the model comes to hold it.
        self._weights: dict[str, Callable[[], contextlib.AbstractContextManager]]
        self._weights = {_RAW: contextlib.nullcontext}
        if self._average is not None:
            self._weights[_EMA] = self._average.in_place
        replicas = self._strategy.num_replicas_in_sync // self._workers
        self._batching = Batching(
            batch_tokens=max(1, config.batch_tokens // self._workers),
            boundaries=config.boundaries,
            rows_multiple=replicas * config.micro_batches,
            steps_per_call=config.steps_per_call,
        )
        shapes = [list(features.values()) for features in problem.batch_shapes(self._batching)]
        self._checkpoints = checkpoints.Checkpoints(
            model_dir,
            model=self.model,
            optimizer=self._optimizer,
            average=self._average,
            step=self._step.step,
            data=f"{problem.name} {problem.fingerprint(data_dir)} {seed} {pipeline} {shapes}",
            keep=config.keep_last,
            pipeline=pipeline,
        )

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the run's files."""
        return self._worker == 0

    @property
    def step(self) -> int:
        return int(self._step.step.numpy())

    def train(self) -> dict[str, Any]:
        """Trains to `train_steps` without evaluating; returns the entry "train" of `results.json`."""
        return self._train({})

    def train_and_evaluate(self) -> dict[str, Any]:
        """Trains, evaluates every `eval_every` steps and at the end, keeps the best; returns as `train`."""
        return self._train(self._evaluators)

    def evaluate(self) -> dict[str, Mapping[str, summaries.Value]]:
        """Returns what each evaluator says of the latest weights, by its name; of their average, by NAME_ema."""
        self._load()
        values = {}
        for weights, held in self._weights.items():
            with held():
                for name, evaluator in self._evaluators.items():
                    values[_entry(name, weights)] = evaluator.evaluate(self.model, self.step)
        return values

    def predict(self, dataset: tf.data.Dataset) -> Iterator[dict[str, np.ndarray]]:
        """Yields `model.infer`'s output for each example of batched features, without the rows of padding."""
        self._load()
        infer = tf.function(self.model.infer, autograph=False)
        for batch in dataset:
            index = batch.pop("index", None)
            outputs = {name: value.numpy() for name, value in infer(batch).items()}
            for row in range(len(next(iter(outputs.values())))):
                if index is None or index[row] >= 0:
                    yield {name: value[row] for name, value in outputs.items()}

    def _load(self) -> None:
        if self.step == 0 and not self._checkpoints.restore():
            raise UserError(f'no checkpoint in "{self._model_dir}"; train a model there first')

    def _train(self, evaluators: Mapping[str, Evaluator]) -> dict[str, Any]:
        config, last = self.config, self.config.last_step
        if last != config.train_steps:
            logging.info("%d steps rounded up to %d, to make whole calls", config.train_steps, last)

        # Data, and where the run stands in it.
        dataset = self._problem.dataset(
            self._problem.train_split,
            self._data_dir,
            self._batching,
            training=True,
            seed=self._seed,
            input_pipeline=(self._worker, self._workers),
        )
        iterator = self._resume(dataset)
        self._checkpoints.track(iterator)
        self._record = Record.read(self._model_dir, self.step)
        self._events = summaries.Events(self._model_dir) if self.is_chief else None
        self._watch = CodebookWatch(
            self.model.bottlenecks, alarm=config.live_codes_alarm, quiet_steps=config.warmup_steps
        )
        if self.step < last:
            spec = dataset.element_spec
            largest_bucket.check(self._step, self._problem, self._batching, spec, self._workers)

        progress, shapes = summaries.Progress(), set()
        with Interrupts() as interrupts:
            while True:
                # Evaluation comes first, so that a run killed in the midst of one makes up for it.
                if evaluators and self._evaluation_due() and self._evaluate_and_judge(evaluators, interrupts):
                    break
                if self.step >= last:
                    break
                self._call(iterator, progress, shapes)
                stop = strategies.any_worker(self._strategy, interrupts.received is not None)
                if self.is_chief and (config.due(self.step, config.log_every) or self.step >= last):
                    self._log(progress, bool(evaluators))
                    progress = summaries.Progress()
                if stop or config.due(self.step, config.save_every) or self._evaluation_due():
                    self._save()
                if stop:
                    logging.info("saved at step %d; the same command goes on from there", self.step)
                    raise SystemExit(interrupts.exit_status if interrupts.received else 143)
        entry = self._write_record()
        if self._events:
            self._events.close()
        return entry

    def _resume(self, dataset: tf.data.Dataset) -> tf.data.Iterator:
        iterator = iter(dataset)
        if not self._checkpoints.restore():
            logging.info("starting at step 0")
        elif self._checkpoints.restore_position(iterator):
            logging.info("resumed at step %d, data position restored", self.step)
        else:
            logging.warning(
                "resumed at step %d; data or batches are not what they were: they start anew", self.step
            )
            iterator = iter(dataset)
        return iterator

    def _call(self, iterator: tf.data.Iterator, progress: summaries.Progress, shapes: set) -> None:
        """Takes `steps_per_call` steps; waiting for their data counts as their time.

        Raises:
          UserError: a loss is no number any more; the last checkpoint is left as it is.
        """
        start, before = time.monotonic(), self.step
        features = next(iterator)
        shape = tuple(tuple(value.shape) for value in features.values())
        compiled = shape not in shapes
        shapes.add(shape)
        terms = self._step(features)
        seconds = time.monotonic() - start
        bad = [name for name, (total, _) in terms.items() if not math.isfinite(total)]
        if bad:
            raise UserError(
                f"training diverged between steps {before + 1} and {self.step}: {', '.join(bad)} not finite; "
                "nothing of it was saved: lower train.learning_rate or train.clip_norm, or lengthen "
                "train.warmup_steps, and run the same command to go on from the last checkpoint"
            )
        amounts = Amounts(
            steps=shape[0][0],
            seconds=seconds,
            examples=shape[0][0] * shape[0][1] * self._workers,
            tokens=terms["tokens"][0],
            padded_tokens=math.prod(features["targets"].shape) * self._workers,
        )
        if compiled:
            logging.info("first call with batches of %s (compiling): %.1f s", shape[0][1:], seconds)
        progress.add({name: term for name, term in terms.items() if name != "tokens"}, amounts, compiled)
        self._record.add(amounts, compiled)

    def _log(self, progress: summaries.Progress, evaluating: bool) -> None:
        learning_rate = float(self._optimizer.learning_rate(tf.constant(self.step - 1)))
        means, rates = progress.means() | {"learning_rate": learning_rate}, progress.rates()
        eta = self._eta(evaluating)
        tokens = self._problem.content == "text"
        logging.info(
            summaries.progress_line(
                self.step, self.config.last_step, means=means, rates=rates, eta=eta, tokens=tokens
            )
        )
        self._events.training(self.step, means, rates)
        self._events.codebooks(self.step, self._watch.look(self.step))

    def _eta(self, evaluating: bool) -> float:
        """Returns the seconds to go: training at the pace so far, and the evaluations still to come."""
        steady, done = self._record.steady, self._record.evaluations
        if not steady.steps:
            return math.inf
        seconds = (self.config.last_step - self.step) * steady.seconds / steady.steps
        if evaluating and done:
            coming = self.config.last_step // self.config.eval_every - self.step // self.config.eval_every
            seconds += coming * self._record.evaluation_seconds / len(done)
        return seconds

    def _save(self) -> None:
        if self._workers > 1 and not self.is_chief:
            self._checkpoints.save()
        strategies.any_worker(self._strategy, False)  # the chief saves when all others have
        if self.is_chief:
            self._checkpoints.save()
            self._write_record()

    def _write_record(self) -> dict[str, Any]:
        if not self.is_chief:
            return {}
        return self._record.write(
            self._model_dir,
            step=self.step,
            train_config=self.config,
            seed=self._seed,
            replicas=self._strategy.num_replicas_in_sync,
        )

    def _evaluation_due(self) -> bool:
        return self.config.due(self.step, self.config.eval_every) or self.step >= self.config.last_step

    def _evaluate_and_judge(self, evaluators: Mapping[str, Evaluator], interrupts: Interrupts) -> bool:
        """Evaluates, unless that is done already; returns whether training should stop early."""
        exhausted = False
        if self.is_chief:
            if not self._record.evaluated(self.step):
                self._evaluate_and_keep(evaluators, interrupts)
            best, patience = checkpoints.read_best(self._model_dir), self.config.early_stop_patience
            exhausted = bool(patience and best and self._record.evaluations_since(best.step) >= patience)
        if not strategies.any_worker(self._strategy, exhausted):
            return False
        if self.is_chief:
            logging.info(
                "stopping early: no better %s since step %d (%.4g)", best.metric, best.step, best.value
            )
        return True

    def _evaluate_and_keep(self, evaluators: Mapping[str, Evaluator], interrupts: Interrupts) -> None:
        start = time.monotonic()
        evaluation: dict[str, Any] = {"step": self.step}
        for weights, held in self._weights.items():
            with held():
                for name, evaluator in evaluators.items():
                    name, began = _entry(name, weights), time.monotonic()
                    with interrupts.idle(alone=self._workers == 1):
                        values = evaluator.evaluate(self.model, self.step)
                    seconds = time.monotonic() - began
                    logging.info(summaries.evaluation_line(self.step, name, values, seconds))
                    self._events.evaluation(self.step, name, values)
                    evaluation[name] = summaries.figures(values)
        first = next(iter(evaluators))
        self._keep_if_best({weights: evaluation[_entry(first, weights)] for weights in self._weights})
        self._record.evaluations.append(evaluation | {"seconds": time.monotonic() - start})
        self._write_record()

    def _keep_if_best(self, judged: Mapping[str, Mapping[str, float]]) -> None:
        """Keeps the better of the weights `judged` at this step if it is better than the best so far."""
        metric = self.config.best_metric
        if not metric:
            return
        kept, best = checkpoints.read_best(self._model_dir), None
        to_beat = kept if kept is not None and kept.metric == metric else None
        for weights, values in judged.items():
            if metric not in values:
                raise UserError(f'train.best_metric: the evaluation has no "{metric}"{near(metric, values)}')
            value = values[metric]
            if math.isnan(value) or (to_beat and not self.config.better(value, to_beat.value)):
                continue
            to_beat = best = checkpoints.Best(self.step, metric, value, weights)
        if best is None:
            return
        with self._weights[best.weights]():
            checkpoints.keep_best(self._model_dir, self.model, best)
        logging.info(
            "step %d is the best so far: %s %.4g (%s weights)", best.step, metric, best.value, best.weights
        )


def _entry(evaluator: str, weights: str) -> str:
    """Returns the name that an evaluator's values of these weights go under."""
    return evaluator if weights == _RAW else f"{evaluator}_{weights}"
