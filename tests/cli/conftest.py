"""A run of a user's own problem and model, small enough to be made for these tests."""

import os
import types

import pytest

CODE = '''
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.bottlenecks.em import HardEM
from t2t_vqem.context import LossTerm
from t2t_vqem.models.model import Model, ModelOutput
from t2t_vqem.problems.translation import TranslationProblem

WORDS = ["the", "old", "dogs", "see", "a", "small", "red", "house", "with", "many", "green", "windows"]


@registry.problems.register("cli_echo")
class Echo(TranslationProblem):
    splits = ("train", "val", "test")
    vocab_size = 60

    def samples(self, split):
        for seed in range(40 if split == "test" else 30):
            source = " ".join(WORDS[(seed * 5 + i * (1 + seed % 3)) % 12] for i in range(4 + seed % 5))
            yield source, source if seed % 2 else f"{source} and more"


@registry.models.register("cli_copy")
class Copy(Model):
    """Translates a source into itself, and reconstructs a target exactly."""

    def __init__(self, vocab_size):
        super().__init__()
        self.scale = self.add_weight(name="scale", shape=[], initializer="zeros")
        self.bottlenecks = {"latents": HardEM(8, 4)}

    def build_weights(self):
        self({"inputs": tf.ones([1, 2], tf.int32), "targets": tf.ones([1, 2], tf.int32)})

    def call(self, features, training=None):
        tokens = tf.reduce_sum(tf.cast(features["targets"] != 0, tf.float32))
        return ModelOutput(None, {"nll": LossTerm(tokens * self.scale, tokens)}, tokens, {}, {})

    def infer(self, features):
        return {"outputs": features["inputs"]}

    def reconstruct(self, features):
        targets = features["targets"]
        return {"outputs": targets, "codes": targets[..., None] % 8, "code_mask": targets != 0}
'''


@pytest.fixture(scope="session")
def copy_run(tmp_path_factory):
    """A run whose best checkpoint, of step 42, says that nll is 2.5; with its folders and texts."""
    from t2t_vqem import config, registry
    from t2t_vqem.training import checkpoints, runs

    root = tmp_path_factory.mktemp("run")
    usr_dir, data_dir, model_dir = (str(root / name) for name in ("usr", "data", "model"))
    os.mkdir(usr_dir)
    with open(os.path.join(usr_dir, "echo.py"), "w", encoding="utf-8") as file:
        file.write(CODE)
    registry.load_usr_dir(usr_dir)
    config.parse([], ["train.boundaries = (8, 24)", "train.batch_tokens = 64"])
    problem = registry.problems.get("cli_echo")()
    problem.generate(data_dir, workers=1)
    vocabulary = problem.vocabulary(data_dir)
    from t2t_vqem.training.train_config import TrainConfig

    TrainConfig()  # so that the operative configuration holds it
    model = registry.models.get("cli_copy")(vocab_size=vocabulary.size)
    model.build_weights()
    model.scale.assign(2.5)
    names = {"problem": "cli_echo", "model": "cli_copy", "data_dir": data_dir, "usr_dir": usr_dir, "seed": 0}
    hashes = {"vocabulary_hash": vocabulary.hash, "data_fingerprint": problem.fingerprint(data_dir)}
    runs.write_run(model_dir, config.RunMetadata(**names, **hashes), vocabulary)
    checkpoints.keep_best(model_dir, model, checkpoints.Best(42, "bleu", 1.0))
    texts = {split: problem.texts(split, data_dir) for split in ("val", "test")}
    return types.SimpleNamespace(model_dir=model_dir, data_dir=data_dir, root=root, texts=texts)


@pytest.fixture
def call(capfdbinary):
    """A function (module of a command, arguments) -> its exit status, stdout and stderr, in this process."""
    from absl.testing import flagsaver

    from t2t_vqem.cli import main as cli_main

    def call(module, *arguments, positional=None):
        capfdbinary.readouterr()
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as exit_info:
            cli_main.run(module.main, ["command", *arguments], positional=positional)
        out, err = capfdbinary.readouterr()
        return types.SimpleNamespace(status=exit_info.value.code, out=out.decode(), err=err.decode())

    return call


@pytest.fixture
def stdin():
    """A function that makes bytes, through a pipe or from a file, the standard input of this process."""
    kept = os.dup(0)

    def feed(raw, path=None):
        if path is None:
            reader, writer = os.pipe()
            os.write(writer, raw)
            os.close(writer)
        else:
            path.write_bytes(raw)
            reader = os.open(path, os.O_RDONLY)
        os.dup2(reader, 0)
        os.close(reader)

    yield feed
    os.dup2(kept, 0)
    os.close(kept)
