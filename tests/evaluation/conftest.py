"""A problem of known texts and a model that copies: every figure can be worked out by hand."""

import types

import pytest
import tensorflow as tf

from t2t_vqem.context import LossTerm
from t2t_vqem.models.model import ModelOutput
from t2t_vqem.problems.translation import TranslationProblem

NUM_CODES = 8
WORDS = ["the", "old", "dogs", "see", "a", "small", "red", "house", "with", "many", "green", "windows"]


def sentence(seed: int) -> str:
    return " ".join(WORDS[(seed * 5 + i * (1 + seed % 3)) % len(WORDS)] for i in range(1 + seed % 9))


class Echo(TranslationProblem):
    """Half of the sources are their own translation; the others lack the last words of it."""

    name = "echo"
    splits = ("train", "val", "test")
    dev_split = "val"
    vocab_size = 60

    def samples(self, split):
        for seed in range(53):
            source = sentence(seed)
            yield source, source if seed % 2 else f"{source} and | more words"


class CopyModel:
    """Translates a source into itself, and reconstructs a target exactly; nll and codes are sums."""

    def __init__(self):
        self.scale = tf.Variable(1.0)
        self.traces = 0
        self.bottlenecks = {"latents": types.SimpleNamespace(num_codes=NUM_CODES)}

    def __call__(self, features, training=None):
        assert training is None
        self.traces += 1
        targets = features["targets"]
        mask = tf.cast(targets != 0, tf.float32)
        tokens = tf.reduce_sum(mask)
        nll = tf.reduce_sum(tf.cast(targets, tf.float32) * mask) * self.scale
        ends = tf.reduce_sum(tf.cast(targets == 1, tf.float32))
        return ModelOutput(
            logits=None,
            losses={"nll": LossTerm(nll, tokens), "unused_loss": LossTerm(tf.zeros([]), tf.zeros([]))},
            weight=tokens,
            statistics={},
            metrics={"end_share": LossTerm(ends, tokens)},
        )

    def infer(self, features):
        return {"outputs": features["inputs"]}

    def reconstruct(self, features):
        targets = features["targets"]
        return {"outputs": targets, "codes": targets[..., None] % NUM_CODES, "code_mask": targets != 0}


@pytest.fixture(scope="session")
def echo_data(tmp_path_factory):
    """(problem, data_dir) with the data made."""
    data_dir = str(tmp_path_factory.mktemp("data"))
    problem = Echo()
    problem.generate(data_dir, workers=1)
    return problem, data_dir


@pytest.fixture
def copy_model():
    return CopyModel()
