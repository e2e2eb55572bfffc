"""The evaluator of priors: exact sums over a split, in bits, beside the floors."""

import math
import types

import numpy as np
import pytest
import tensorflow as tf

from t2t_vqem import registry
from t2t_vqem.evaluation import evaluators
from t2t_vqem.problems.batches import Batching
from t2t_vqem.problems.image import ImageProblem
from t2t_vqem.training.train_config import TrainConfig

FIELD, CODES = (2, 1, 2), 8


@registry.problems.register("evaluated_pictures")
class Pictures(ImageProblem):
    """Pictures of one number each; those of the training split are all even."""

    image_shape = (2, 2, 3)
    num_classes = 2

    def samples(self, split):
        for number in range(9):
            yield np.full([2, 2, 3], number * (1 + (split == "train")) % CODES, np.uint8), number % 2


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    data_dir = str(tmp_path_factory.mktemp("data"))
    problem = registry.problems.get("evaluated_pictures_codes")()
    problem.base.generate(data_dir)
    problem.write(
        data_dir,
        lambda pictures, shard, rows: tf.cast(pictures[:, :2, :1, :2], tf.int32),
        code_shape=FIELD,
        num_codes=CODES,
        encoder={},
        batching=Batching(batch_tokens=48, boundaries=(8,)),
    )
    return data_dir


def stub(features):
    """Nats that tell the row: its number and a hundredth of its label, for every code."""
    nats = features["targets"][..., :1] + tf.zeros(FIELD[-1:], tf.int32)
    return tf.cast(nats, tf.float32) + 0.01 * tf.cast(features["inputs"], tf.float32)[:, None, None, None]


@pytest.mark.parametrize(("most", "chosen"), [(None, range(9)), (3, (0, 3, 6))])
def test_figures_are_means_over_the_rows_that_are_no_filling(data_dir, most, chosen):
    problem = registry.problems.get("evaluated_pictures_codes")()
    config = TrainConfig(batch_tokens=16)  # four fields of four codes: 9 fields and three rows of filling
    evaluator = evaluators.make(problem, data_dir, "val", config, max_examples=most)
    values = evaluator.evaluate(types.SimpleNamespace(code_nll=stub, side_nats=0.0), 0)
    nll = np.mean([number % CODES + 0.01 * (number % 2) for number in chosen])
    assert values["nll"] == pytest.approx(nll)
    assert values["bits_per_code"] == pytest.approx(nll / math.log(2))
    assert values["prior_bits_per_dim"] == pytest.approx(4 * nll / math.log(2) / 12)
    assert values["uniform_bits_per_dim"] == pytest.approx(4 * 3 / 12)
    counts = np.bincount([2 * number % CODES for number in range(9)], minlength=CODES) * 2  # two positions
    bits = -np.log2((counts + 1) / (counts + 1).sum())
    mean = np.mean([bits[number % CODES] for number in chosen])
    assert values["unigram_bits_per_dim"] == pytest.approx(4 * mean / 12)
    twice = types.SimpleNamespace(code_nll=lambda features: 2 * stub(features), side_nats=6 * math.log(2))
    other = evaluator.evaluate(twice, 0)  # another model is traced anew
    assert other["nll"] == pytest.approx(2 * nll)
    assert other["latent_bits_per_dim"] == pytest.approx(6 / 12)
    assert other["prior_bits_per_dim"] == pytest.approx(2 * values["prior_bits_per_dim"] + 6 / 12)


def test_the_best_checkpoint_has_the_fewest_bits():
    for metric in ("prior_bits_per_dim", "bits_per_code", "nll"):
        assert TrainConfig(best_metric=metric).better(1.0, than=2.0)
