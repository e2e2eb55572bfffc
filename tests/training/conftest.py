"""A problem and a model as small as the trainer allows: two buckets of numbers, three layers and a codebook."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem.bottlenecks.em import HardEM
from t2t_vqem.bottlenecks.settings import CodebookSettings
from t2t_vqem.context import LossTerm
from t2t_vqem.models.model import Model, ModelOutput
from t2t_vqem.problems.problem import Problem
from t2t_vqem.training import trainer
from t2t_vqem.training.train_config import TrainConfig

IDS, DIM = 20, 8


class TinyProblem(Problem):
    name, content = "tiny", "text"

    def dimensions(self, data_dir):
        return {}

    def generate(self, data_dir, source_dir=None, workers=None):
        return {}

    def dataset(self, split, data_dir, batching, *, training, seed=0, input_pipeline=(0, 1)):
        index, count = input_pipeline
        shapes = self.batch_shapes(batching)
        calls = tf.data.Dataset.range(1000).shuffle(64, seed=seed, reshuffle_each_iteration=False).repeat()

        def batch(length, number):
            shape = [batching.steps_per_call, shapes[-1]["inputs"][1], length]
            ids = tf.random.stateless_uniform(shape, [number, length], 3, IDS, tf.int32)
            return {"inputs": ids, "targets": ids}

        buckets = [
            calls.shard(count, index).map(lambda number, length=length: batch(length, number))
            for length in batching.boundaries
        ]
        choice = tf.data.Dataset.range(len(buckets)).shuffle(10, seed=seed).repeat()
        return tf.data.Dataset.choose_from_datasets(buckets, choice).prefetch(2)

    def batch_shapes(self, batching):
        return batching.shapes()

    def inspect(self, split, data_dir, count):
        return iter(())

    def fingerprint(self, data_dir):
        return "tiny"


class TinyModel(Model):
    """Predicts each id from itself, through a codebook; layers in a list, as stacks hold them."""

    def __init__(self, dim=DIM):
        super().__init__()
        self.table = self.add_weight(name="table", shape=[IDS, dim], initializer="random_normal")
        self.blocks = [keras.layers.Dense(dim) for _ in range(2)]
        self.out = keras.layers.Dense(IDS)
        self.bottleneck = HardEM(6, dim, CodebookSettings(warmup_steps=2))
        self.bottlenecks = {"latents": self.bottleneck}

    def build_weights(self):
        self({"inputs": tf.ones([1, 2], tf.int32), "targets": tf.ones([1, 2], tf.int32)})

    def call(self, features, training=None):
        hidden = tf.gather(tf.convert_to_tensor(self.table), features["inputs"])
        for block in self.blocks:
            hidden = block(hidden)
        mask = features["inputs"] != 0
        latents = self.bottleneck.e_step(hidden, mask, training)
        hidden = hidden + latents.quantized
        if training is not None:
            hidden = training.dropout(hidden, 0.1)
        logits = tf.cast(self.out(hidden), tf.float32)
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(features["targets"], logits)
        weight = tf.reduce_sum(tf.cast(mask, tf.float32))
        return ModelOutput(
            logits,
            {"nll": LossTerm(tf.reduce_sum(nll), weight), "commitment_loss": latents.loss},
            weight,
            {"latents": latents.statistics} if training is not None else {},
            latents.metrics,
        )

    def infer(self, features):
        return {"outputs": tf.argmax(self(features | {"targets": features["inputs"]}).logits, -1)}


class InstantStep:
    """In the place of a TrainStep where a test is about the loop around it: moves one weight, traces nothing."""

    def __init__(self, model, optimizer, strategy, **settings):
        self.model = model
        self.step = tf.Variable(0, dtype=tf.int64)

    def __call__(self, features):
        steps, rows, length = features["targets"].shape
        self.step.assign_add(steps)
        self.model.out.bias.assign_add(tf.ones([IDS]))
        return {"nll": (2.0 * steps, 1.0 * steps), "tokens": (steps * rows * length, steps)}

    def try_batch(self, features):
        pass


class Scripted:
    """An evaluator that reads its values from a list and remembers when it was asked."""

    main_metric = "bleu"

    def __init__(self, values):
        self.values, self.steps = list(values), []

    def evaluate(self, model, step):
        self.steps.append(step)
        return {"bleu": self.values[len(self.steps) - 1], "samples": "| a |", "codes": np.arange(5)}


@pytest.fixture
def tiny_config():
    """A function of overrides -> TrainConfig."""
    base = {
        "batch_tokens": 32,
        "boundaries": (4, 8),
        "steps_per_call": 2,
        "train_steps": 12,
        "warmup_steps": 4,
        "dtype": "float32",
    }
    periods = {"eval_every": 4, "save_every": 4, "log_every": 4}
    return lambda **overrides: TrainConfig(**{**base, **periods, **overrides})


@pytest.fixture
def make_trainer(tiny_config, tmp_path):
    """A function (model_dir name, evaluators, dim, strategy, config overrides) -> Trainer."""

    def make(name="run", evaluators=None, dim=DIM, strategy=None, seed=0, **overrides):
        return trainer.Trainer(
            TinyProblem(),
            lambda: TinyModel(dim),
            tiny_config(**overrides),
            data_dir="",
            model_dir=str(tmp_path / name),
            strategy=strategy,
            seed=seed,
            evaluators=evaluators,
        )

    return make


@pytest.fixture
def make_quick(make_trainer, monkeypatch):
    """`make_trainer` of trainers whose step takes no time."""
    monkeypatch.setattr(trainer, "TrainStep", InstantStep)
    return make_trainer


@pytest.fixture
def scripted():
    """The evaluator class whose values a test writes down."""
    return Scripted
