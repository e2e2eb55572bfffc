"""bin/encoder on a run whose codes are known, and a prior trained on them from the command line."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from t2t_vqem import config, registry
from t2t_vqem.cli import datagen, encoder, evaluator, trainer

CODE = '''
import numpy as np
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.context import LossTerm
from t2t_vqem.models.model import Model, ModelOutput
from t2t_vqem.problems.image import ImageProblem


@registry.problems.register("cli_pictures")
class Pictures(ImageProblem):
    image_shape = (2, 4, 1)
    num_classes = 2
    shard_size = 16

    def samples(self, split):
        for number in range(40 if split == "train" else 12):
            yield np.full([2, 4, 1], number % 6, np.uint8), number % 2


class Plain(Model):
    content = "images"

    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.scale = self.add_weight(name="scale", shape=[], initializer="zeros")

    def build_weights(self):
        pass

    def call(self, features, training=None):
        return ModelOutput(None, {}, tf.constant(0.0), {}, {})

    def infer(self, features):
        return {"outputs": features["targets"]}


@registry.models.register("cli_no_codes")
class NoCodes(Plain):
    """A model of pictures without codes."""


@registry.models.register("cli_quarters")
class Quarters(Plain):
    """Its codes are every other number of a picture, in two slots, the second six more than the first."""

    code_shape = (2, 2, 2)
    num_codes = 16

    def encode(self, pictures):
        half = tf.cast(pictures[:, :, ::2], tf.int32) + tf.cast(self.scale, tf.int32)
        return tf.concat([half, half + 6], axis=-1)
'''


def make_run(root, model_name):
    """A run of `model_name`, whose best checkpoint is of step 42."""
    from t2t_vqem.training import checkpoints, runs
    from t2t_vqem.training.train_config import TrainConfig

    usr_dir, data_dir, model_dir = (str(root / name) for name in ("usr", "data", model_name))
    config.parse([], ["train.batch_tokens = 40"])  # five pictures
    problem = registry.problems.get("cli_pictures")()
    problem.generate(data_dir, workers=1)
    TrainConfig()  # so that the operative configuration holds it
    dimensions = problem.dimensions(data_dir)
    model = registry.models.get(model_name)(**dimensions)
    names = {"problem": "cli_pictures", "model": model_name, "data_dir": data_dir, "usr_dir": usr_dir}
    metadata = config.RunMetadata(
        **names,
        seed=0,
        vocabulary_hash=None,
        data_fingerprint=problem.fingerprint(data_dir),
        dimensions=dimensions,
    )
    runs.write_run(model_dir, metadata, None)
    checkpoints.keep_best(model_dir, model, checkpoints.Best(42, "nll", 1.0))
    return model_dir


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    (root / "usr").mkdir()
    (root / "usr" / "quarters.py").write_text(CODE, encoding="utf-8")
    registry.load_usr_dir(str(root / "usr"))
    for name in ("cli_quarters", "cli_no_codes"):
        make_run(root, name)
    return root


@pytest.fixture
def data_dir(root, tmp_path):
    shutil.copytree(root / "data" / "cli_pictures", tmp_path / "data" / "cli_pictures")
    return tmp_path / "data"


@pytest.fixture
def encode(call, root, data_dir):
    return lambda *flags, model="cli_quarters": call(
        encoder, f"--model_dir={root / model}", f"--data_dir={data_dir}", *flags
    )


def refused(done, *words):
    assert done.status == 2, done.err[-2000:]
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err.splitlines()[-1]


def test_every_split_is_encoded_by_the_run(encode, data_dir, caplog):
    done = encode()
    assert done.status == 0, done.err
    report = json.loads(done.out.splitlines()[-1])
    assert report["problem"] == "cli_pictures_codes"
    assert report["code_shape"] == [2, 2, 2]
    assert report["examples"] == {"train": 40, "val": 12, "test": 12}
    assert report["live_codes"] == [6, 6]
    (progress,) = [line for line in caplog.messages if line.startswith("encoder: 64 of 64 examples")]
    assert "ETA 0:00:00" in progress
    problem = registry.problems.get("cli_pictures_codes")()
    told = problem.check(str(data_dir))["encoder"]
    assert (told["problem"], told["model"], told["step"]) == ("cli_pictures", "cli_quarters", 42)
    assert told["data"] == problem.base.fingerprint(str(data_dir))
    from t2t_vqem.problems.batches import Batching

    batching = Batching(batch_tokens=96, boundaries=(8,))
    (batch,) = problem.dataset("test", str(data_dir), batching, training=False).as_numpy_iterator()
    expected = np.tile(np.arange(12)[:, None, None, None] % 6 + [0, 6], [1, 2, 2, 1])
    np.testing.assert_array_equal(batch["targets"], expected)
    again = json.loads(encode().out.splitlines()[-1])  # nothing to do, the same report
    assert again | {"seconds": 0} == report | {"seconds": 0}


def test_a_prior_is_trained_and_judged_on_the_codes(call, encode, root, data_dir, tmp_path):
    assert encode().status == 0
    bindings = {"dim": 8, "filter_size": 8, "heads": 2, "layers": 1}
    bindings |= {"slot_layers": 1, "slot_dim": 8, "slot_heads": 2, "dropout": 0.0}
    flags = [f"--gin_param=latent_prior.{name} = {value}" for name, value in bindings.items()]
    training = {"batch_tokens": 128, "learning_rate": 0.03, "warmup_steps": 5, "steps_per_call": 10}
    flags += [f"--gin_param=train.{name} = {value}" for name, value in training.items()]
    flags += [f"--usr_dir={root / 'usr'}", "--problem=cli_pictures_codes", "--model=latent_prior"]
    done = call(
        trainer, *flags, f"--data_dir={data_dir}", f"--model_dir={tmp_path / 'prior'}", "--train_steps=60"
    )
    assert done.status == 0, done.err[-3000:]
    final = json.loads(done.out.splitlines()[-1])["final"]["val"]
    assert final["uniform_bits_per_dim"] == 4.0  # 8 codes of 16 for 8 numbers
    assert final["unigram_bits_per_dim"] == pytest.approx(2.63, abs=0.1)  # a little over log2 6
    assert final["prior_bits_per_dim"] < 1.0  # all codes of a field follow from its first
    judged = call(evaluator, f"--model_dir={tmp_path / 'prior'}", "--split=val,test")
    assert judged.status == 0, judged.err[-3000:]
    val, test = (json.loads(line) for line in judged.out.splitlines()[-2:])
    assert val["prior_bits_per_dim"] == pytest.approx(final["prior_bits_per_dim"], rel=1e-4)
    assert test["split"] == "test"
    assert test["bits_per_code"] == pytest.approx(test["prior_bits_per_dim"])


def test_codes_of_other_weights_are_not_overwritten(encode, root, tmp_path):
    assert encode().status == 0
    other = root / "retrained"
    shutil.copytree(root / "cli_quarters", other)
    from t2t_vqem.training import checkpoints, runs

    run = runs.open_run(str(other))
    weight = run.model.variables[0]
    weight.assign(weight + 1)
    checkpoints.keep_best(str(other), run.model, checkpoints.Best(42, "nll", 1.0))
    refused(encode(model="retrained"), "was made otherwise: encoder.weights is")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("cli_no_codes", "which bin/encoder needs; see vqvae"),
        ("nothing", "holds no run"),
    ],
)
def test_a_run_without_codes_is_told_in_one_sentence(encode, data_dir, model, expected):
    refused(encode(model=model), expected)
    assert os.listdir(data_dir) == ["cli_pictures"]


def test_a_bottleneck_of_one_code_has_none_to_draw(encode, data_dir):
    refused(encode("--drawn"), "--drawn has nothing to draw")
    assert os.listdir(data_dir) == ["cli_pictures"]


def test_a_run_of_text_is_refused(call, copy_run):
    done = call(encoder, f"--model_dir={copy_run.model_dir}")
    refused(done, "bin/encoder works on images, and the problem cli_echo is one of text")


def test_pictures_that_are_not_there_are_named(encode, data_dir):
    shutil.rmtree(data_dir / "cli_pictures")
    refused(encode(), "run bin/datagen --problem=cli_pictures")
    assert not list(pathlib.Path(data_dir).iterdir())


def test_datagen_says_who_writes_codes(call, root, encode, data_dir):
    flags = [f"--usr_dir={root / 'usr'}", "--problem=cli_pictures_codes", f"--data_dir={data_dir}"]
    refused(call(datagen, *flags), "run bin/encoder --model_dir=RUN")
    assert encode().status == 0
    done = call(datagen, *flags, "--inspect=1", "--verify")
    assert done.status == 0, done.err
    assert "val 0: label 0, 2 x 2 x 2 of 16 codes, first 0 6" in done.out
    assert json.loads(done.out.splitlines()[-1])["code_shape"] == [2, 2, 2]
